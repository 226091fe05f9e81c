"""Tasks about people: lessons remember user and time; neither the future nor a user's own past leaks into a task."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from agents_worlds import ladder
from experience_helpers import START, named_vectors, open_library
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optimize_helpers import tiny_policy
from slea_helpers import episode
from tiny_run import model_with_chat

from recsys.errors import InputError
from verbalize.agents.chats import as_experience
from verbalize.agents.environment import Task
from verbalize.agents.evaluation import key_of
from verbalize.agents.personal import PersonalTask, cutoff_of, hidden_from, lesson_of, permitted, users_of
from verbalize.agents.rollouts import Situation
from verbalize.agents.slea_lessons import by_model, by_rules
from verbalize.agents.slea_memory import StepMemory
from verbalize.config import plain
from verbalize.experience.entries import Exclude, Experience, lesson
from verbalize.experience.evolution import Episode
from verbalize.experience.library import ExperienceLibrary
from verbalize.experience.settings import ClusterConfig, ExperienceConfig
from verbalize.forget import LibraryKeeper, forget

SEEN = "a session of dramas"
NEAR = f"{SEEN} ~ another"
CONFIG = ExperienceConfig(clusters=ClusterConfig(delta=0.8, strategies=3, warnings=3, warmup=0, minimum=1))


def task_of(user: str = "me", hours: int = 50, name: str = "mine") -> PersonalTask:
    return PersonalTask(name, "verbalization", 0, max_steps=4, user=user, cutoff=START + timedelta(hours=hours))


def situation(task: Task, observation: str = SEEN) -> Situation:
    return Situation(task, 0, 0, "goal", observation, [], ("stop",))


def told(text: str, user: str, hours: int | None, zone: str = "strategy", score: float = 1.0) -> Experience:
    time = None if hours is None else START + timedelta(hours=hours)
    users = [user] if user else []
    return lesson(NEAR, text, "example", zone, score, sources=[f"of {user} {hours}"], users=users, time=time)


def shown(library: ExperienceLibrary, *tasks: Task) -> list[str]:
    return StepMemory(library, 400, len)([situation(task) for task in tasks])


def test_every_lesson_of_a_personal_task_names_user_and_time_and_a_games_neither(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    policy = tiny_policy(model_with_chat(tiny_model_dir, tmp_path / "model"))
    steps = (
        ("a hall", "go east", 0.0),
        ("an attic", "go west", 0.0),
        ("a hall", "go down", 0.0),
        ("a cellar", "x", 1.0),
    )
    lost = (("a hall", "look", 0.0), ("a hall", "look", 0.0), ("a hall", "go east", 0.0), ("an attic", "go west", 0.0))
    extract_model = by_model(policy.model, policy.tokenizer)
    for task, users, time in (
        (task_of(), ("me",), START + timedelta(hours=50)),
        (ladder(1), (), None),
    ):
        won, failed = episode(*steps, task=task), episode(*lost, last="a hall", task=task)
        pair = [Episode(one.source, one.outcome, task.id, frozenset(), one) for one in (won, failed)]
        found = [*by_rules(pair[:1], pair[1:]), *extract_model(pair[:1], pair[1:])]
        assert {source for entry in found for source in entry.sources if source.startswith("by:")} >= {
            "by:rules.progress",
            "by:rules.plan",
            "by:rules.path",
            "by:rules.loop",
            "by:rules.idle",
            "by:model",
        }
        assert all((entry.users, entry.time) == (users, time) and task.id in entry.sources for entry in found)
        kept = as_experience(won)
        assert (kept.users, kept.time) == (users, time)
    other = datetime(2030, 1, 1, tzinfo=UTC)
    assert as_experience(won, other).time == other


entries = st.lists(
    st.tuples(
        st.sampled_from(["me", "you", "they", ""]),
        st.one_of(st.none(), st.integers(0, 99)),
        st.sampled_from(["strategy", "warning"]),
        st.floats(0, 1),
    ),
    max_size=12,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(entries, entries, st.integers(1, 99))
def test_rewriting_the_future_and_ones_own_lessons_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    past: list[tuple[str, int | None, str, float]],
    other: list[tuple[str, int | None, str, float]],
    hours: int,
) -> None:
    """Two libraries that agree on what a task may see, and on nothing else, show it the same: as a reader shows it and
    as a training run does, whose library learns clusters on the way. What it may see does matter."""

    def hidden(row: tuple[str, int | None, str, float]) -> bool:
        return row[0] == "me" or row[1] is None or row[1] >= hours

    first = [told(f"lesson {place}", *row) for place, row in enumerate(past)]
    second = [entry for entry, row in zip(first, past, strict=True) if not hidden(row)]
    second += [told(f"rewritten {place}", *row) for place, row in enumerate(other) if hidden(row)]
    task, blocks = task_of(hours=hours), []
    for number, told_to in enumerate((first, second)):
        folder = tmp_path_factory.mktemp(f"library-{number}")
        with open_library(folder, CONFIG) as library:
            library.admit(told_to)
            blocks += shown(library, task)
            blocks += shown(library, ladder(1), task)[1:]  # beside another task, and a second time
        with open_library(folder, CONFIG, read_only=True) as reader:
            blocks += shown(reader, task)
    assert len(set(blocks)) == 1
    visible = [f"lesson {place}" for place, row in enumerate(past) if not hidden(row)]
    assert permitted(first, task) == permitted(second, task) == len(visible)
    assert bool(blocks[0]) == (len(visible) > 1)  # the gate wants more than one
    assert all(f"lesson {place}" not in blocks[0].splitlines() for place, row in enumerate(past) if hidden(row))
    if len(visible) > 1:
        assert any(text in blocks[0] for text in visible)


def test_the_moment_itself_is_too_late_and_games_see_what_they_always_saw(tmp_path: Path) -> None:
    known = [told("early", "you", 49), told("at once", "you", 50), told("own", "me", 1), told("timeless", "", None)]
    with open_library(tmp_path, CONFIG) as library:
        library.admit([*known, told("earlier", "they", 2, "warning")])
        personal, game = shown(library, task_of(), ladder(1))
        assert "early" in personal and "earlier" in personal
        assert not any(text in personal for text in ("at once", "own", "timeless"))
        assert (
            sum(text in game for text in ("early", "at once", "own", "timeless")) == 3
        )  # three strategies, of anybody
        (elsewhere,) = shown(library, task_of("you", 99))
        assert "own" in elsewhere and "at once" not in elsewhere
    assert hidden_from(ladder(1)) == Exclude(sources=("ladder-1",)) and cutoff_of(ladder(1)) is None
    assert users_of(ladder(1)) == () and permitted(known, ladder(1)) == 4


def test_forbidden_lessons_do_not_open_the_gate(tmp_path: Path) -> None:
    late = [told(f"late {place}", "you", 60 + place) for place in range(8)]
    with open_library(tmp_path, CONFIG) as library:
        library.admit([told("early", "you", 1), *late])
        assert shown(library, task_of()) == [""] and "late" in shown(library, ladder(1))[0]
        library.admit([told("as early", "they", 1)])
        assert "early" in shown(library, task_of())[0]


def test_forgetting_finds_lessons_and_the_observations_of_training(tmp_path: Path) -> None:
    played = episode((SEEN, "drop session 1", 0.5), task=task_of())
    entry = lesson_of(played, SEEN, "drop the dramas", "example", "strategy", 0.5, "by:rules.choice")
    with open_library(tmp_path, CONFIG) as library:
        library.admit([entry, told("stays", "you", 1)])
        StepMemory(library, 400, len)(
            [situation(task_of(), "what only I saw"), situation(task_of("you", name="yours"))]
        )
        library.commit()
        clusters = library.clusters
    assert clusters == 2
    report = forget(["me"], keepers=[LibraryKeeper(tmp_path)])
    assert report.removed[0].rows == 1 and report.found.remaining == {} and report.found.elsewhere == {}
    with ExperienceLibrary.open(tmp_path, CONFIG, named_vectors, read_only=True) as library:
        assert [one.text for one in library.entries()] == ["stays"]
        assert library.clusters == 1


def test_a_task_without_a_user_or_a_zone_is_refused_and_keys_know_both() -> None:
    with pytest.raises(InputError, match="needs a user"):
        task_of(user="")
    with pytest.raises(InputError, match="needs a user and a moment with a time zone"):
        replace(task_of(), cutoff=datetime(2024, 1, 1))
    with pytest.raises(InputError, match="has a name"):
        task_of(name="")
    keys = {key_of(plain(one)) for one in (task_of(), task_of("you"), task_of(hours=51), task_of())}
    assert len(keys) == 3
    elsewhere = replace(task_of(), cutoff=task_of().cutoff.astimezone(timezone(timedelta(hours=2))))
    assert key_of(plain(elsewhere)) == key_of(plain(task_of()))
