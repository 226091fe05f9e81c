"""The rules of evolution: invariants over random batches, and the saturation that the remedy ends."""

from typing import Any

import numpy as np
import pytest
from experience_helpers import UNHURRIED
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.seeding import rng
from verbalize.experience.admission import (
    Pool,
    entry_values,
    fade,
    gate_open,
    limit_extraction,
    plan_admission,
    split_batch,
    usage_credit,
)
from verbalize.experience.settings import AdmissionConfig, ClusterConfig

PAPER = AdmissionConfig(rule="paper")
SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=24)


@UNHURRIED
@given(SCORES, st.none() | st.floats(-0.5, 1.5))
def test_a_split_separates_best_from_worst(scores: list[float], eta: float | None) -> None:
    best, worst = split_batch(scores, eta, top=3, bottom=2)
    assert len(best) <= 3 and len(worst) <= 2 and not set(best) & set(worst)
    assert [scores[i] for i in best] == sorted((scores[i] for i in best), reverse=True)
    assert [scores[i] for i in worst] == sorted(scores[i] for i in worst)
    if best and worst:
        assert scores[best[-1]] > scores[worst[-1]]
    rest = [s for i, s in enumerate(scores) if i not in best]
    assert not best or not rest or scores[best[-1]] >= max([s for s in rest if s > scores[best[-1]]], default=-np.inf)
    if eta is not None:
        assert all(scores[i] >= eta for i in best) and all(scores[i] < eta for i in worst)


@UNHURRIED
@given(st.lists(st.booleans(), min_size=2, max_size=30))
def test_a_mixed_binary_batch_is_split_into_successes_and_failures_wherever_its_median_lies(wins: list[bool]) -> None:
    best, worst = split_batch([float(w) for w in wins], top=30, bottom=30)
    if len(set(wins)) == 1:
        assert (best, worst) == ([], [])
    else:
        assert best == [i for i, w in enumerate(wins) if w] and worst == [i for i, w in enumerate(wins) if not w]


@UNHURRIED
@given(st.lists(st.sampled_from(["strategy", "warning"]), max_size=40), st.integers(0, 12), st.integers(0, 6))
def test_extraction_is_limited_per_zone_and_keeps_the_first(zones: list[str], strategies: int, warnings: int) -> None:
    kept = limit_extraction(zones, AdmissionConfig(max_strategies=strategies, max_warnings=warnings))
    for zone, limit in (("strategy", strategies), ("warning", warnings)):
        places = [i for i, z in enumerate(zones) if z == zone]
        assert [i for i in kept if zones[i] == zone] == places[:limit]
    assert kept == sorted(kept)


def test_limits_are_the_papers_by_default() -> None:
    assert len(limit_extraction(["strategy"] * 30 + ["warning"] * 30, AdmissionConfig())) == 15


@pytest.mark.parametrize(
    ("epoch", "lessons", "is_open"), [(4, 100, False), (5, 10, False), (5, 11, True), (50, 0, False), (9, 400, True)]
)
def test_the_gate_needs_both_warm_up_and_a_filled_library(epoch: int, lessons: int, is_open: bool) -> None:
    assert gate_open(epoch, lessons, ClusterConfig()) is is_open


@st.composite
def pools(draw: Any) -> tuple[Pool, Pool, AdmissionConfig]:
    """Candidates and residents in a plane, where near repeats are common, with small capacities and tied values."""
    config = AdmissionConfig(
        strategies=draw(st.integers(1, 4)), warnings=draw(st.integers(1, 3)), novelty=draw(st.sampled_from([0.85, 1.1]))
    )

    def pool(n: int) -> Pool:
        angles = np.array(draw(st.lists(st.floats(0, 6.28), min_size=n, max_size=n)))
        cell = st.tuples(st.sampled_from(["principle", "example"]), st.sampled_from(["strategy", "warning"]))
        values = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=n, max_size=n))
        vectors = np.stack([np.cos(angles), np.sin(angles)], 1) if n else np.zeros((0, 2))
        return Pool(draw(st.lists(cell, min_size=n, max_size=n)), np.array(values), vectors)

    return pool(draw(st.integers(0, 8))), pool(draw(st.integers(0, 12))), config


@UNHURRIED
@given(pools())
def test_admission_keeps_capacities_refuses_repeats_and_never_trades_down(
    case: tuple[Pool, Pool, AdmissionConfig],
) -> None:
    candidates, residents, config = case
    plan = plan_admission(candidates, residents, config)
    assert sorted([*plan.admitted, *plan.repeats, *plan.unworthy]) == list(range(len(candidates.cells)))
    capacity = {"strategy": config.strategies, "warning": config.warnings}
    stayed = [i for i in range(len(residents.cells)) if i not in plan.evicted]
    after = [residents.cells[i] for i in stayed] + [candidates.cells[i] for i in plan.admitted]
    for cell in {*residents.cells, *candidates.cells}:
        before = residents.cells.count(cell)
        assert after.count(cell) <= capacity[cell[1]]
        lost = sorted(residents.values[i] for i in plan.evicted if residents.cells[i] == cell)
        gained = sorted(candidates.values[i] for i in plan.admitted if candidates.cells[i] == cell)
        kept = [residents.values[i] for i in stayed if residents.cells[i] == cell]
        assert not lost or not kept or max(lost) <= min(kept)
        surplus = max(0, before - capacity[cell[1]])  # a lowered capacity evicts without a replacement
        assert all(new > old for new, old in zip(gained[::-1], lost[surplus:][::-1], strict=False))
        assert len(lost) <= len(gained) + surplus
    for i in plan.admitted:
        zone = candidates.cells[i][1]
        for j in plan.admitted:
            if i != j and candidates.cells[j][1] == zone:
                assert candidates.vectors[i] @ candidates.vectors[j] < config.novelty
        for j in stayed:
            if residents.cells[j][1] == zone:
                assert candidates.vectors[i] @ residents.vectors[j] < config.novelty


def test_the_lowest_goes_and_among_equals_the_oldest() -> None:
    config = AdmissionConfig(rule="paper", strategies=3)
    cells = [("pattern", "strategy")] * 3
    residents = Pool(cells, np.array([0.5, 0.2, 0.2]), np.eye(6)[:3])
    plan = plan_admission(Pool(cells[:2], np.array([0.2, 0.6]), np.eye(6)[3:5]), residents, config)
    assert plan.admitted == (1,) and plan.evicted == (1,) and plan.unworthy == (0,)


def test_credit_is_the_gain_over_comparable_episodes_without_the_lesson() -> None:
    used = [{"a"}, {"a", "b"}, set(), {"b"}, set()]
    scores, groups = [1.0, 1.0, 0.0, 1.0, 0.5], ["x", "x", "x", "y", "z"]
    credit = usage_credit(used, scores, groups)
    assert credit["a"] == (2, 2.0)  # both against the group's only episode without it
    # b in group x against its peers without b, 1 and 0; in y nobody lacks it: against all without b, 1, 0 and 0.5
    assert credit["b"] == (2, pytest.approx((1.0 - 0.5) + (1.0 - 0.5)))
    assert usage_credit([{"a"}, {"a"}], [1.0, 0.0], ["x", "x"]) == {}


@UNHURRIED
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=10), st.integers(0, 200), st.floats(0, 50), st.floats(0, 1))
def test_values_follow_the_paper_or_the_formula(scores: list[float], age: int, uses: float, mean: float) -> None:
    z = np.array(scores)
    ages, n = np.full(len(z), float(age)), np.full(len(z), uses)
    np.testing.assert_array_equal(entry_values(z, ages, n, n * mean, PAPER), z)
    config = AdmissionConfig()
    useful = entry_values(z, ages, n, n * mean, config)
    assert (useful >= entry_values(z, ages, n, -n * mean, config)).all()
    assert (useful >= entry_values(z, ages + 1, n, n * mean, config)).all()
    assert (np.abs(useful - z) <= mean + config.freshness_weight + 1e-12).all()


def test_faded_evidence_halves_in_a_half_life() -> None:
    uses, credit = 8.0, 4.0
    for _ in range(20):
        uses, credit = fade(uses, credit, AdmissionConfig(half_life=20))
    assert (uses, credit) == (pytest.approx(4), pytest.approx(2))


def evolve_with_binary_scores(config: AdmissionConfig, batches: int) -> tuple[list[int], dict[int, int]]:
    """Five successful lessons a batch, all of score 1; lesson 0 really helps, lesson 1 really harms. Admissions per
    batch, and for each lesson that was ever admitted the batch it left at (`batches` if it stayed).
    """
    born: dict[int, int] = {}
    left: dict[int, int] = {}
    evidence: dict[int, tuple[float, float]] = {}
    admissions, next_lesson = [], 0
    for batch in range(batches):
        for name, effect in ((0, 0.5), (1, -0.5)):
            if name in born:
                uses, credit = fade(*evidence.get(name, (0.0, 0.0)), config)
                evidence[name] = (uses + 4, credit + 4 * effect)
        names = list(range(next_lesson, next_lesson + 5))
        next_lesson += 5
        old = list(born)
        vectors = {n: _unit(n) for n in [*old, *names]}
        values = entry_values(
            np.ones(len(old)),
            np.array([batch - born[n] for n in old], float),
            np.array([evidence.get(n, (0.0, 0.0))[0] for n in old]),
            np.array([evidence.get(n, (0.0, 0.0))[1] for n in old]),
            config,
        )
        fresh = entry_values(np.ones(5), np.zeros(5), np.zeros(5), np.zeros(5), config)
        cell = ("pattern", "strategy")
        plan = plan_admission(
            Pool([cell] * 5, fresh, np.stack([vectors[n] for n in names])),
            Pool([cell] * len(old), values, np.stack([vectors[n] for n in old]) if old else np.zeros((0, 64))),
            config,
        )
        for place in plan.evicted:
            left[old[place]] = batch
            del born[old[place]]
        born |= {names[place]: batch for place in plan.admitted}
        admissions.append(len(plan.admitted))
        assert len(born) <= config.strategies
    return admissions, left | dict.fromkeys(born, batches)


def _unit(name: int) -> np.ndarray:
    vector = rng("admission", name).normal(size=64)
    return np.asarray(vector / np.linalg.norm(vector))


def test_with_binary_scores_the_papers_rule_stops_admitting_and_the_remedy_goes_on() -> None:
    stuck, left = evolve_with_binary_scores(AdmissionConfig(rule="paper", strategies=20), 30)
    assert sum(stuck[:4]) == 20 and sum(stuck[4:]) == 0
    assert set(left.values()) == {30}, "what came first stays for ever, whether it helps or harms"
    alive, left = evolve_with_binary_scores(AdmissionConfig(rule="value", strategies=20), 30)
    assert min(alive[4:]) == 5, "every batch of new lessons finds room"
    assert left[0] == 30, "a lesson that raises success stays"
    assert left[1] == 4, "one that lowers it is the first to go"
    assert all(left[name] < 30 for name in range(2, 20)), "unproven ones are replaced"


def test_freshness_never_overturns_a_better_score() -> None:
    config = AdmissionConfig(strategies=1)
    cell = [("principle", "strategy")]
    old = entry_values(np.array([1.0]), np.array([500.0]), np.zeros(1), np.zeros(1), config)
    new = entry_values(np.array([0.5]), np.zeros(1), np.zeros(1), np.zeros(1), config)
    assert plan_admission(Pool(cell, new, np.eye(2)[:1]), Pool(cell, old, np.eye(2)[1:]), config).unworthy == (0,)


def test_settings_refuse_what_makes_no_sense() -> None:
    with pytest.raises(InputError, match="half_life 0"):
        AdmissionConfig(half_life=0)
