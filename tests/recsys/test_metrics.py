"""Ranks and metrics: against brute force, against ranx, and under ties, NaN and reordered slates."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.metrics import chance_corrected, chance_level, expression, ndcg_at, rank_of_target, recall_at, target_ranks

slates = st.lists(
    st.lists(st.floats(-5, 5, allow_nan=False), min_size=1, max_size=12, unique=True), min_size=1, max_size=8
)


@given(slates, st.randoms())
def test_ranks_without_ties_equal_sorting(rows, random):
    scores = [np.array(row) for row in rows]
    targets = [random.randrange(len(row)) for row in rows]
    expected = [sorted(row, reverse=True).index(row[target]) + 1 for row, target in zip(rows, targets, strict=True)]
    assert target_ranks(scores, targets, range(len(rows))).tolist() == expected


@given(st.lists(st.sampled_from([0.0, 1.0, -math.inf]), min_size=2, max_size=8), st.data(), st.integers())
def test_order_of_the_slate_never_decides(scores, data, key):
    target = data.draw(st.integers(0, len(scores) - 1))
    order = data.draw(st.permutations(range(len(scores))))
    shuffled = [scores[place] for place in order]
    assert rank_of_target(scores, target, key) == rank_of_target(shuffled, order.index(target), key)


def test_ties_are_broken_uniformly_over_keys():
    # Target tied with two others, one candidate better, one worse: ranks 2, 3 and 4 in equal shares.
    ranks = target_ranks([np.array([1.0, 3.0, 1.0, 1.0, 0.0])] * 6000, [2] * 6000, range(6000))
    values, counts = np.unique(ranks, return_counts=True)
    assert values.tolist() == [2, 3, 4]
    assert np.abs(counts / 6000 - 1 / 3).max() < 0.03


def test_constant_scores_reach_chance_wherever_the_target_stands():
    for target in (0, 9):
        frame = pl.DataFrame({"rank": target_ranks([np.zeros(10)] * 4000, [target] * 4000, range(4000))})
        assert frame.select(recall_at(1).mean()).item() == pytest.approx(0.1, abs=0.02)


def test_nan_and_targets_outside_are_refused():
    with pytest.raises(InputError, match="NaN score for key 'second'"):
        target_ranks([np.array([0.0, 1.0]), np.array([np.nan, 1.0])], [0, 1], ["first", "second"])
    with pytest.raises(InputError, match="target_index 2 in a slate of 2"):
        rank_of_target([0.0, 1.0], 2, "key")
    assert rank_of_target([-math.inf, 0.0], 0, "key") == 2
    assert target_ranks([], [], []).tolist() == []


def test_metrics_agree_with_ranx(monkeypatch):
    # Compiled, ranx costs a minute and a half of numba; interpreted, it gives the same numbers at once.
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    from ranx import Qrels, Run, evaluate

    generator = np.random.default_rng(3)
    n, size = 60, 12
    scores = generator.normal(size=(n, size))
    targets = generator.integers(size, size=n)
    qrels = Qrels({f"q{q}": {f"d{targets[q]}": 1} for q in range(n)})
    run = Run({f"q{q}": {f"d{d}": float(scores[q, d]) for d in range(size)} for q in range(n)})
    frame = pl.DataFrame({"rank": target_ranks(list(scores), targets, range(n))})
    for metric, name in [
        ("recall@1", "recall@1"),
        ("recall@3", "recall@3"),
        ("mrr", "mrr"),
        ("ndcg@5", "ndcg@5"),
        ("ndcg@10", "ndcg@10"),
    ]:
        assert frame.select(expression(metric).mean()).item() == pytest.approx(evaluate(qrels, run, name), abs=1e-9)


def test_chance_levels_and_correction():
    assert chance_level("mrr", 4) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert chance_level("ndcg@1", 5) == pytest.approx(0.2)
    assert chance_level("recall@7", 5) == 1.0
    assert chance_corrected(1.0, 0.1) == 1.0
    assert chance_corrected(0.1, 0.1) == 0.0
    assert chance_corrected(0.0, 0.1) == pytest.approx(-1 / 9)
    assert chance_corrected(1.0, 1.0) == 0.0
    with pytest.raises(InputError, match="slate size 1"):
        chance_level("mrr", 1)


@pytest.mark.parametrize("name", ["recall", "recall@0", "hits@1", "mrr@5", "ndcg@-1", ""])
def test_unknown_metrics_are_refused(name):
    with pytest.raises(InputError, match="is not one of recall@k"):
        expression(name)


def test_cutoffs_start_at_one():
    for build in (recall_at, ndcg_at):
        with pytest.raises(InputError, match="k = 0"):
            build(0)
