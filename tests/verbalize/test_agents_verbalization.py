"""Verbalization as a task: texts are the executor's, the reward is the recommender's, and nothing of it leaks."""

import re
from collections.abc import Sequence
from functools import partial

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verbalizers_frames import event, frame, histories

from recsys.errors import InputError
from recsys.recommenders.base import Query
from recsys.seeding import rng
from verbalize.agents.policies import ExpertPolicy, RandomPolicy
from verbalize.agents.pool import EnvironmentPool, LocalEnvironments, PoolConfig
from verbalize.agents.rollouts import RolloutConfig, roll_out
from verbalize.agents.verbalization_drafts import (
    STOP,
    Draft,
    DraftConfig,
    first_draft,
    open_history,
    possible,
    revise,
    session_starts,
    write,
)
from verbalize.agents.verbalization_env import NOTHING, Verbalization, verbalization_tasks
from verbalize.agents.verbalization_experts import greedy_plan, scripted_plan
from verbalize.optimize.rewards import ConfiguredReward, RewardConfig, Scored
from verbalize.optimize.scoring import RewardScorer
from verbalize.verbalizers.action_pool import CANDIDATES, candidate_actions
from verbalize.verbalizers.actions import ALPHABET, KEEP, ActionConfig, execute
from verbalize.verbalizers.sanitise import sanitise_history

CONFIG = DraftConfig()
DAY = 24 * 60
EVENING = [
    event("Heat", 1995, ["Action", "Drama"], rating=4.0),
    event("Alien", 1979, ["Horror"], minutes=20, rating=2.0),
    event("Big", 1988, ["Comedy"], minutes=3 * DAY, rating=5.0),
    event("Airplane", 1980, ["Comedy"], minutes=3 * DAY + 10),
    event("Dark 1", 2017, ["Drama"], minutes=6 * DAY, series="Dark", completion=0.9),
    event("Speed", 1994, ["Action"], minutes=6 * DAY + 5),
    event("Dark 2", 2017, ["Drama"], minutes=6 * DAY + 10, series="Dark"),
]


class SharedWords:
    """A recommender that scores a candidate by how often its words occur in the text."""

    name = "shared-words"

    def __init__(self, titles: dict[str, str]) -> None:
        self.titles = titles

    def rank(self, queries: Sequence[Query], slates: Sequence[Sequence[str]]) -> list[np.ndarray]:
        return [
            np.array([float(sum(query.text.count(word) for word in self.titles[item].split())) for item in slate])
            for query, slate in zip(queries, slates, strict=True)
        ]


TITLES = {"target": "Comedy Hour", "n1": "Action Heat", "n2": "Horror Alien", "n3": "Dark Nothing"}


def scorer(target: str = "target", kind: str = "reciprocal_rank") -> RewardScorer:
    """Two slates for the examples e0 and e1."""
    slate = sorted(TITLES)
    slates = pl.DataFrame(
        [
            {"example_id": f"e{row}", "slate_index": index, "slate": slate, "target_index": slate.index(target)}
            for row in range(2)
            for index in range(2)
        ]
    )
    return RewardScorer(SharedWords(TITLES), slates, ConfiguredReward(RewardConfig(kind=kind, slates=2)))


def worlds(inputs: pl.DataFrame, target: str = "target", slots: int = 1) -> LocalEnvironments:
    return LocalEnvironments(Verbalization(inputs, partial(scorer, target)), slots)


def test_an_episode_by_hand() -> None:
    world = Verbalization(frame(EVENING), scorer)()
    (task,) = verbalization_tasks(frame(EVENING))
    first = world.reset(task)
    assert first.startswith("Say what a recommender should know about this viewer. 7 events. Top genres: Drama (3)")
    assert first.splitlines()[1:] == [
        "Session 1, 30 days ago: 2 events, mostly Action; 2 kept.",
        "Session 2, 27 days ago: 2 events, mostly Comedy; 2 kept.",
        "Session 3, 24 days ago: 3 events, mostly Drama; 3 kept.",
    ]
    assert world.text() == "Heat; Alien; Big; Airplane; Dark 1; Speed; Dark 2"
    assert "keep session 1" not in world.admissible() and "drop event 1" not in world.admissible()
    assert world.step("drop event 1") == (NOTHING, False)  # not looked at
    seen, _ = world.step("inspect session 3")
    assert seen.splitlines()[0] == "Event 5: Dark 1 (2017; Drama), watched 90%. Kept."
    assert world.step("drop event 6")[0] == "Session 3, 24 days ago: 3 events, mostly Drama; 2 kept."
    assert world.step("drop session 1")[0].endswith("0 kept.")
    assert world.step("enrich session 2")[0].endswith("2 kept, 2 with metadata.")
    assert world.text() == "Big (1988; Comedy); Airplane (1980; Comedy); Dark 1; Dark 2"
    assert world.step("group by series") == ("Grouped by series.", False)
    assert world.text() == "Big (1988; Comedy); Airplane (1980; Comedy); 2 episodes of Dark"
    world.step("group by genre")
    assert world.text() == "Comedy: Big (1988; Comedy); Airplane (1980; Comedy). Drama: Dark 1; Dark 2"
    assert world.reward() == 0.0
    shown, over = world.step(STOP)
    assert over and shown == f"Written: {world.text()}" and world.reward() == 1.0
    assert world.admissible() == [] and world.step("drop session 2") == (NOTHING, True)
    assert world.reset(task) == first and world.reward() == 0.0


def test_the_last_step_judges_what_is_there() -> None:
    (task,) = verbalization_tasks(frame(EVENING), max_steps=2)
    (episode,) = roll_out(worlds(frame(EVENING)), ExpertPolicy(lambda _: ["drop session 1", "ungroup"]), [task])
    assert not episode.truncated and episode.last_observation == "Written: Big; Airplane; Dark 1; Speed; Dark 2"
    (paid,) = scorer()(["e0"], ["Big; Airplane; Dark 1; Speed; Dark 2"])
    assert 0 < episode.outcome == paid.reward < 1 and episode.invalid_actions == 1


def test_neither_target_nor_slates_reach_the_agent() -> None:
    inputs = frame(EVENING, EVENING[::-1][:3][::-1])
    tasks = verbalization_tasks(inputs, max_steps=8)
    config = RolloutConfig(attempts=5)
    told = roll_out(worlds(inputs), RandomPolicy(1), tasks, config)
    other = roll_out(worlds(inputs, target="n3"), RandomPolicy(1), tasks, config)
    for one, two in zip(told, other, strict=True):
        assert [(t.observation, t.admissible, t.action) for t in one.turns] == [
            (t.observation, t.admissible, t.action) for t in two.turns
        ]
        assert (one.last_observation, one.goal) == (two.last_observation, two.goal)
        assert all(turn.reward == 0 for turn in one.turns[:-1])  # no hints on the way
        assert "Hour" not in repr(one) and "Nothing" not in repr(one)
    assert [one.outcome for one in told] != [two.outcome for two in other]
    with pytest.raises(InputError, match="the target leaks"):
        Verbalization(inputs.with_columns(slate=pl.lit("x")), scorer)()
    with pytest.raises(InputError, match="the target leaks"):
        open_history(inputs[:1].with_columns(target_item_id=pl.lit("x")), CONFIG)


def test_pool_equals_local() -> None:
    inputs = frame(EVENING, EVENING[:4])
    tasks = verbalization_tasks(inputs, max_steps=6)
    expected = roll_out(worlds(inputs, slots=2), RandomPolicy(2), tasks, RolloutConfig(attempts=2))
    with EnvironmentPool(Verbalization(inputs, scorer), PoolConfig(size=2, step_timeout=120.0)) as pool:
        assert roll_out(pool, RandomPolicy(2), tasks, RolloutConfig(attempts=2)) == expected
        assert pool.restarted == 0


def test_greedy_improvement_finds_what_pays_and_stops_there() -> None:
    history = open_history(frame(EVENING), CONFIG)
    plan = greedy_plan(history, scorer())
    (task,) = verbalization_tasks(frame(EVENING))
    assert plan[0] == "enrich session 2" and plan[-1] == STOP  # it brings the word "Comedy" twice
    for actions, outcome in (([STOP], 0.25), (plan, 1.0)):
        (episode,) = roll_out(worlds(frame(EVENING)), ExpertPolicy(lambda _, plan=actions: plan), [task])
        assert episode.outcome == pytest.approx(outcome) and episode.invalid_actions == 0

    def counts(example_ids: Sequence[str], texts: Sequence[str]) -> list[Scored]:
        return [Scored(-float(len(text)), {}) for text in texts]

    assert greedy_plan(history, counts, max_steps=3) == ["drop session 3", "drop session 2", STOP]
    assert greedy_plan(history, lambda ids, texts: [Scored(0.5, {})] * len(texts)) == [STOP]


def test_sessions_are_cut_at_the_widest_gaps() -> None:
    times = [event("x", minutes=minutes)["event_time"] for minutes in (0, 10, 50, 100, 1000, 1010, 1100)]
    assert session_starts(times, CONFIG) == (0, 2, 3, 4, 6)
    assert session_starts(times, DraftConfig(max_sessions=3)) == (0, 4, 6)
    assert session_starts(times, DraftConfig(max_sessions=1)) == (0,)
    assert session_starts(times, DraftConfig(session_gap_minutes=2000)) == (0,)
    assert session_starts([], CONFIG) == ()


@settings(max_examples=25, deadline=None)
@given(histories, st.data())
def test_scripts_are_carried_out_exactly(row: list[dict[str, object]], data: st.DataObject) -> None:
    inputs = frame(row)
    symbols = data.draw(st.lists(st.sampled_from(ALPHABET), min_size=len(row), max_size=len(row)))
    history = open_history(inputs, CONFIG)
    draft = first_draft(history)
    plan = scripted_plan(history, symbols)
    for action in plan:
        assert action in possible(history, draft)
        draft = revise(history, draft, action)
    assert write(history, draft) == execute(inputs, [symbols], ActionConfig())[0]


@settings(max_examples=25, deadline=None)
@given(histories, st.integers(0, 10_000))
def test_any_actions_keep_the_text_faithful(row: list[dict[str, object]], seed: int) -> None:
    inputs = frame(row)
    history = open_history(inputs, CONFIG)
    draft, draws = first_draft(history), rng(seed, "drafts")
    for _ in range(8):
        actions = possible(history, draft)
        assert actions == sorted(set(actions)) and STOP in actions
        revised = revise(history, draft, actions[int(draws.integers(len(actions)))])
        assert revised.symbols != draft.symbols or revised != draft or STOP in actions
        draft = revised
    kept = [place for place, symbol in enumerate(draft.symbols) if symbol >= KEEP]
    clean = inputs.select(sanitise_history(pl.col("history"))).item().to_list() if row else []
    text = write(history, draft)
    for group in ("", "genre", "series"):
        grouped = write(history, Draft(draft.symbols, group))
        assert bool(grouped) == bool(kept)
        if group != "series":
            # Every kept title, and, once they and all the history's own facts are taken away, nothing but marks.
            rest = grouped
            facts = {clean[place]["title"] for place in kept}
            facts |= {str(clean[place]["year"]) for place in kept}
            facts |= {genre for place in kept for genre in clean[place]["genres"] or ()}
            assert all(clean[place]["title"] in grouped for place in kept)
            for fact in sorted(facts, key=len, reverse=True):
                rest = rest.replace(fact, "")
            assert re.fullmatch(r"[;:., ()]*", rest)
    assert text == write(history, draft)


def test_the_pools_candidates_fit_as_experts() -> None:
    inputs = frame(EVENING)
    history = open_history(inputs, CONFIG)
    (task,) = verbalization_tasks(inputs, max_steps=20)
    for name, (symbols,) in candidate_actions(inputs, ActionConfig()).items():
        plan = scripted_plan(history, symbols)
        (episode,) = roll_out(worlds(inputs), ExpertPolicy(lambda _, plan=plan: plan), [task])
        assert episode.invalid_actions == 0 and not episode.truncated, name
        assert episode.last_observation == f"Written: {execute(inputs, [symbols], ActionConfig())[0]}"
    assert len(CANDIDATES) > 5


def test_refusals() -> None:
    (task,) = verbalization_tasks(frame(EVENING))
    world = Verbalization(frame(EVENING), partial(scorer, kind="margin"))()
    with pytest.raises(InputError, match="call reset"):
        world.goal()
    with pytest.raises(InputError, match="is no example"):
        world.reset(verbalization_tasks(frame(EVENING, EVENING))[1])
    world.reset(task)
    for action in ("drop session 1", "drop session 3", "enrich session 2"):
        world.step(action)
    with pytest.raises(InputError, match="at most 1"):
        world.step(STOP)
    with pytest.raises(InputError, match="needs one of"):
        scripted_plan(open_history(frame(EVENING), CONFIG), [KEEP])
    with pytest.raises(InputError, match="of one example"):
        open_history(frame(EVENING, EVENING), CONFIG)
    with pytest.raises(InputError, match="a history has a session"):
        DraftConfig(max_sessions=0)
