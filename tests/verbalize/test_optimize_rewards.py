"""Rewards as pure functions, and the scorer that feeds them."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import InputError
from verbalize.optimize.rewards import (
    ConfiguredReward,
    Ranking,
    RewardConfig,
    TextTraits,
    group_shares,
    log_softmax,
    margin,
    score_text,
    squashed,
)
from verbalize.optimize.scoring import RewardScorer

TRAITS = TextTraits(compression=0.15, plateau=0.5, faithful=0.8)
FIRST, SECOND = Ranking(np.array([2.0, 1.0, 0.0]), 0, 1), Ranking(np.array([2.0, 1.0, 0.0]), 1, 2)
SCORES = st.lists(st.floats(-50, 50), min_size=2, max_size=12)


def test_paper_like_is_the_papers_formula():
    config = RewardConfig(kind="paper_like", alpha=0.9)
    assert score_text(TRAITS, [FIRST], config).reward == pytest.approx(0.9 * 1 + 0.1 * 0.5)
    assert score_text(TRAITS, [SECOND], config).reward == pytest.approx(0.1 * 0.5)
    assert score_text(TRAITS, [FIRST, SECOND], config).reward == pytest.approx(0.9 * 0.5 + 0.1 * 0.5)


def test_reciprocal_rank_and_extras():
    config = RewardConfig(kind="reciprocal_rank", length_weight=0.2, faithfulness_weight=0.1)
    scored = score_text(TRAITS, [FIRST, SECOND], config)
    assert scored.reward == pytest.approx(0.75 + 0.2 * 0.5 + 0.1 * 0.8)
    assert scored.components["reciprocal_rank"] == 0.75 and scored.components["hit"] == 0.5


@given(SCORES, st.data())
def test_margin_lies_between_its_limits_and_ignores_order(scores, data):
    target = data.draw(st.integers(0, len(scores) - 1))
    others = np.delete(np.array(scores), target)
    to_best, to_mean = scores[target] - others.max(), scores[target] - others.mean()
    value = margin(Ranking(np.array(scores), target, 1), 1.0)
    assert to_best - 1e-6 <= value <= to_mean + 1e-6
    assert margin(Ranking(np.array(scores), target, 1), 1e-3) == pytest.approx(to_best, abs=0.01)
    assert margin(Ranking(np.array(scores), target, 1), 1e5) == pytest.approx(to_mean, abs=0.02)
    order = data.draw(st.permutations(range(len(scores))))
    assert margin(Ranking(np.array(scores)[list(order)], order.index(target), 1)) == pytest.approx(value, abs=1e-9)


@given(SCORES, st.floats(0.1, 10))
def test_log_softmax_is_a_distribution_over_targets_and_pays_a_sure_thing_nothing_more(scores, temperature):
    values = [log_softmax(Ranking(np.array(scores), place, 1), temperature) for place in range(len(scores))]
    assert np.exp(values).sum() == pytest.approx(1.0) and max(values) == values[int(np.argmax(scores))] <= 0
    # The margin over summed instead of averaged negatives, bent to stay below 0.
    sharp = margin(Ranking(np.array(scores), 0, 1), temperature) / temperature - np.log(len(scores) - 1)
    assert values[0] == pytest.approx(-np.logaddexp(0.0, -sharp), abs=1e-9)
    paid = score_text(TRAITS, [FIRST, SECOND], RewardConfig(kind="log_softmax", negatives_temperature=temperature))
    assert paid.reward == pytest.approx((log_softmax(FIRST, temperature) + log_softmax(SECOND, temperature)) / 2)


def test_squash_bounds_and_keeps_sign():
    assert squashed(100.0, 2.0) == pytest.approx(2.0) and squashed(-100.0, 2.0) == pytest.approx(-2.0)
    assert squashed(0.01, 2.0) == pytest.approx(0.01, rel=1e-4) and squashed(5.0, None) == 5.0


def test_group_shares():
    shares = group_shares([1, 1, 0, 1, 2, 2], [0, 0, 0, 1, 1, 1], ["a", "a", "b", "c", "d", "d"], group_size=2)
    assert shares == {
        "dead_groups": pytest.approx(2 / 3),
        "mixed_groups": pytest.approx(1 / 3),
        "distinct_texts": pytest.approx((0.5 + 1 + 0.5) / 3),
    }


@pytest.mark.parametrize("change", [{"kind": "luck"}, {"alpha": 1.1}, {"slates": 0}, {"negatives_temperature": 0.0}])
def test_bad_configurations_are_refused(change):
    with pytest.raises(InputError):
        RewardConfig(**change)


def test_a_score_that_is_not_finite_is_an_error():
    with pytest.raises(InputError, match="must be finite"), np.errstate(invalid="ignore"):
        score_text(TRAITS, [Ranking(np.array([np.inf, np.inf]), 0, 1)], RewardConfig())


class CountingRecommender:
    """Scores a candidate by its number plus the text's length; remembers what it was asked."""

    name = "counting"

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []

    def score_texts(self, texts, candidate_lists):
        self.asked += list(zip(texts, map(list, candidate_lists), strict=True))
        return [
            np.array([int(item) * (len(text) - 2) for item in items], dtype=float)
            for text, items in zip(texts, candidate_lists, strict=True)
        ]

    def rank(self, queries, slates):
        return CountingRecommender.score_texts(self, [query.text for query in queries], slates)


SLATES = pl.DataFrame(
    {
        "example_id": ["a", "a", "b"],
        "slate_index": [0, 1, 0],
        "slate": [["1", "2", "3"], ["3", "4", "5"], ["7", "9"]],
        "target_index": [2, 0, 1],
    },
    schema_overrides={"slate_index": pl.Int32, "target_index": pl.Int32},
)


def test_scorer_asks_once_per_pair_for_the_union_of_slates():
    recommender = CountingRecommender()
    scorer = RewardScorer(recommender, SLATES, ConfiguredReward(RewardConfig(kind="reciprocal_rank")))
    scored = scorer(["a", "b", "a", "a"], ["long", "x", "long", "x"])
    assert recommender.asked == [
        ("long", ["1", "2", "3", "4", "5"]),
        ("x", ["7", "9"]),
        ("x", ["1", "2", "3", "4", "5"]),
    ]
    assert [one.reward for one in scored] == pytest.approx([(1 + 1 / 3) / 2, 1 / 2, (1 + 1 / 3) / 2, (1 / 3 + 1) / 2])
    scorer(["a"], ["long"])
    assert len(recommender.asked) == 3


def test_slate_at_once_recommenders_give_the_same_rewards():
    whole = CountingRecommender()
    whole.__class__ = type("Slatewise", (), {"name": "slatewise", "rank": CountingRecommender.rank})
    whole.asked = []
    reward = ConfiguredReward(RewardConfig(kind="margin"))
    pairs = (["a", "b"], ["long", "longer"])
    union = RewardScorer(CountingRecommender(), SLATES, reward)(*pairs)
    assert [one.reward for one in union] == [one.reward for one in RewardScorer(whole, SLATES, reward)(*pairs)]


def test_an_example_without_slates_is_an_error():
    with pytest.raises(InputError, match="no slates"):
        RewardScorer(CountingRecommender(), SLATES, ConfiguredReward(RewardConfig()))(["c"], ["x"])
