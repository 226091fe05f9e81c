"""What is drawn from an episode, by each rule, and what a step is shown."""

from pathlib import Path

from agents_worlds import ladder
from experience_helpers import a_lesson, open_library
from slea_helpers import episode

from verbalize.agents.environment import Trajectory
from verbalize.agents.rollouts import Situation
from verbalize.agents.slea_lessons import by_rules, direct_path, idle, loop, path, plan, progress
from verbalize.agents.slea_memory import StepMemory, extractor_of, lessons_by_extractor
from verbalize.experience.evolution import Episode
from verbalize.experience.settings import ClusterConfig, ExperienceConfig

WON = episode(
    ("a hall", "go east", 0.0),
    ("an attic", "go west", 0.0),
    ("a hall", "go down", 0.0),
    ("a cellar", "take coin", 1.0),
    task=ladder(1),
)
LOST = episode(
    ("a hall", "go east", 0.0),
    ("an attic", "look", 0.0),
    ("an attic", "look", 0.0),
    ("an attic", "go west", 0.0),
    last="a hall",
    task=ladder(2),
)


def finished(*episodes: Trajectory) -> list[Episode]:
    return [Episode(one.source, one.outcome, one.task.id, frozenset(), one) for one in episodes]


def test_each_rule_says_what_happened() -> None:
    assert [(e.key, "take coin" in e.text, e.zone) for e in progress(WON)] == [("a cellar", True, "strategy")]
    assert [turn.action for turn in direct_path(WON.turns)] == ["go down", "take coin"]  # the attic was a detour
    assert [(e.key, "go down" in e.text) for e in path(WON)] == [("a hall", True)]
    assert [(e.key, e.text.rpartition(": ")[2], e.level) for e in plan(WON)] == [("a hall", "go, take.", "principle")]
    assert [(e.key, "go west" in e.text, e.zone) for e in loop(LOST)] == [("an attic", True, "warning")]
    assert [('"look"' in e.text, e.zone) for e in idle(LOST)] == [(True, "warning")]
    assert loop(episode(("a hall", "go east", 0.0))) == [] == idle(episode(("a hall", "look", 0.0)))


def test_what_was_no_success_teaches_no_way_to_the_goal() -> None:
    """The split is relative to the batch: half a reward may count as its success."""
    half = episode(("a hall", "go east", 0.5), ("an attic", "wait", 0.0))
    assert plan(half) == [] == path(half)
    assert len(progress(half)) == 1


def test_lessons_name_their_game_and_who_wrote_them() -> None:
    found = by_rules(finished(WON), finished(LOST))
    assert {e.zone for e in found} == {"strategy", "warning"}
    for entry in found:
        game = "ladder-1" if entry.zone == "strategy" else "ladder-2"
        assert game in entry.sources and extractor_of(entry.sources).startswith("rules.")
        assert entry.score == (1.0 if entry.zone == "strategy" else 0.0)
    strategies = [extractor_of(e.sources) for e in by_rules(finished(WON, WON), [])]
    assert strategies[:2] == ["rules.progress"] * 2  # of both episodes, before anything less important


def test_a_game_never_sees_its_own_lessons(tmp_path: Path) -> None:
    """... and nothing is shown while the gate is closed, or where only labels are asked for."""
    config = ExperienceConfig(clusters=ClusterConfig(warmup=0, minimum=1))

    def situation(number: int) -> Situation:
        return Situation(ladder(number), 0, 0, "goal", "a hall", [], ("up",))

    with open_library(tmp_path, config) as library:
        library.admit(path(WON))
        closed = StepMemory(library, 100, len)
        assert closed([situation(3)]) == [""] and closed.found["ladder-3", 0, 0].ids
        library.admit([a_lesson("far away", observation="a ship")])
        memory = StepMemory(library, 200, len)
        own, other = memory([situation(1), situation(3)])
        assert own == "" and "go down" in other
        assert memory.metrics() == {"component.shown_by_model": 0.0, "component.shown_by_rules": 0.5}
        assert memory.used(episode(("a hall", "up", 0.0), task=ladder(3))) == {path(WON)[0].id}
        assert memory.used(episode(("a hall", "up", 0.0), task=ladder(1))) == frozenset()
        labels = StepMemory(library, 200, len, show=False)
        assert labels([situation(3)]) == [""]
        one = episode(("a hall", "up", 0.0), task=ladder(3))
        assert labels.clusters([one]) == memory.clusters([one]) == [[memory.found["ladder-1", 0, 0].cluster]]
        assert lessons_by_extractor(library) == {"": 1, "rules.path": 1}
