"""The dense reward on the whole catalogue: its value by definition, who may pay it, what it sees that slates miss."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.contracts import schema
from recsys.errors import InputError
from recsys.logs.eligible import Eligible
from recsys.logs.events import canonicalise
from recsys.logs.tables import RawLog
from recsys.recommenders.embedding import EmbeddingRecommender, EmbeddingSettings
from verbalize.optimize.catalogue_reward import with_catalogue
from verbalize.optimize.rewards import CATALOGUE, ConfiguredReward, Ranking, RewardConfig, TextTraits, score_text
from verbalize.optimize.scoring import RewardScorer, no_traits

START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
TITLES = {"a": "war film", "b": "love story", "c": "war tale", "d": "space opera", "e": "night train", "f": "new war"}
TEMPERATURE = 0.1


def letters(texts: Sequence[str]) -> np.ndarray:
    """Letter counts as unit vectors: an encoder one can follow."""
    counts = np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], dtype=np.float64)
    return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


def day(count: int) -> dt.datetime:
    return START + dt.timedelta(days=count)


def world(later: Sequence[tuple[str, int]] = ()) -> tuple[pl.DataFrame, Eligible]:
    """A user who touched a and b before day 5, whose target is c; f appears on day 9. `later`: more of their events."""
    events = [("a", 1), ("b", 2), ("c", 5), *later]
    raw = pl.DataFrame(
        {
            "user_id": ["u"] * len(events),
            "item_id": [item for item, _ in events],
            "event_time": [day(count) for _, count in events],
            "event_type": ["rating"] * len(events),
        },
        schema_overrides={"event_time": pl.Datetime("us", "UTC")},
    )
    since = pl.Series([day(9) if item == "f" else None for item in TITLES], dtype=pl.Datetime("us", "UTC"))
    items = pl.DataFrame({"item_id": list(TITLES), "title": list(TITLES.values()), "available_from": since})
    log = canonicalise(RawLog(raw.lazy(), items))
    examples = pl.DataFrame(
        {"example_id": ["x"], "user_id": ["u"], "cutoff_time": [day(5)], "target_item_id": ["c"]},
        schema={name: schema("examples")[name] for name in ("example_id", "user_id", "cutoff_time", "target_item_id")},
    )
    return examples, Eligible(examples, log)


def recommender() -> EmbeddingRecommender:
    return EmbeddingRecommender(TITLES, letters, EmbeddingSettings(temperature=TEMPERATURE))


def scorer(eligible: Eligible, **settings: Any) -> RewardScorer:
    slates = pl.DataFrame({"example_id": ["x"], "slate_index": [0], "slate": [["d", "c"]], "target_index": [1]})
    config = RewardConfig(kind=CATALOGUE, slates=1, **settings)
    traits = with_catalogue(no_traits, recommender(), eligible, config.negatives_temperature)
    return RewardScorer(recommender(), slates, ConfiguredReward(config), traits)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_reward_is_the_log_probability_of_the_target_among_what_competes(temperature: float) -> None:
    """c, d and e compete: a and b were touched, f was not available yet."""
    _, eligible = world()
    text = "a war in space"
    (scored,) = scorer(eligible, negatives_temperature=temperature)(["x"], [text])
    cosines = letters([TITLES[item] for item in "cde"]).astype(np.float64) @ letters([text])[0].astype(np.float64)
    odds = np.exp(cosines / (TEMPERATURE * temperature))
    assert scored.reward == pytest.approx(np.log(odds[0] / odds.sum()), abs=1e-5)
    assert scored.components[CATALOGUE] == scored.reward and scored.components["hit"] in (0.0, 1.0)
    (blank,) = scorer(eligible)(["x"], [" "])
    assert blank.reward == pytest.approx(np.log(1 / 3), abs=1e-6)


def test_it_tells_texts_apart_that_slates_pay_alike() -> None:
    _, eligible = world()
    texts = ["war", "war tale", "a tale of war and night"]
    scored = scorer(eligible)(["x"] * 3, texts)
    assert {one.components["reciprocal_rank"] for one in scored} == {1.0}
    assert len({round(one.reward, 6) for one in scored}) == 3
    assert max(scored, key=lambda one: one.reward) is scored[1]  # the target's own title


def test_what_the_user_touches_later_changes_no_reward() -> None:
    paid = [scorer(world(later)[1])(["x"], ["space war"])[0].reward for later in ((), [("d", 6), ("e", 7), ("f", 10)])]
    assert paid[0] == paid[1]


def test_weights_are_added_and_a_missing_measurement_is_refused() -> None:
    config = RewardConfig(kind=CATALOGUE, length_weight=0.5, faithfulness_weight=0.25)
    ranking = [Ranking(np.array([1.0, 0.0]), 0, 1)]
    assert score_text(TextTraits(0.4, 1.0, 0.8, -2.0), ranking, config).reward == pytest.approx(-2.0 + 0.5 + 0.2)
    with pytest.raises(InputError, match="with_catalogue"):
        score_text(TextTraits(0.4, 1.0, 0.8), ranking, config)
    assert CATALOGUE not in score_text(TextTraits(0.4, 1.0, 0.8), ranking, RewardConfig()).components


def test_only_the_sentence_encoder_can_pay_it() -> None:
    _, eligible = world()
    with pytest.raises(InputError, match=r"recommender\.mode: embedding"):
        with_catalogue(no_traits, object(), eligible)
