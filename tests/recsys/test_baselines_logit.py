"""The conditional logit: gradient, optimum, recovered coefficients, and statistics that never look ahead."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from recsys.errors import InputError
from recsys.recommenders.base import Query
from recsys.recommenders.collaborative import Catalogue
from recsys.recommenders.item_statistics import ItemStatistics
from recsys.recommenders.logit import FEATURES, ConditionalLogit, fit_conditional_logit

START = datetime(2020, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")


def simulated(n, beta, seed):
    """Ragged slates of 2 to 9 candidates, choices drawn from the model itself."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(2, 10, size=n)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    features = generator.normal(size=(sizes.sum(), len(beta)))
    utility = features @ beta + generator.gumbel(size=len(features))
    chosen = np.array(
        [start + utility[start : start + size].argmax() for start, size in zip(starts, sizes, strict=True)]
    )
    return features, starts, sizes, chosen


def slow_loss(beta, features, starts, sizes, chosen, l2):
    loss = 0.0
    for start, size, place in zip(starts, sizes, chosen, strict=True):
        utility = features[start : start + size] @ beta
        loss += np.log(np.exp(utility).sum()) - features[place] @ beta
    return loss / len(starts) + l2 / 2 * beta @ beta


def test_reaches_the_optimum_of_the_slow_likelihood():
    features, starts, sizes, chosen = simulated(60, np.array([1.0, -0.5, 0.2]), 0)
    found = fit_conditional_logit(features, starts, chosen, 0.1)
    slow = minimize(
        slow_loss,
        np.zeros(3),
        args=(features, starts, sizes, chosen, 0.1),
        method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 4000},
    )
    assert found == pytest.approx(slow.x, abs=1e-5)
    for axis in np.eye(3):
        step = 1e-5 * axis
        slope = slow_loss(found + step, features, starts, sizes, chosen, 0.1) - slow_loss(
            found - step, features, starts, sizes, chosen, 0.1
        )
        assert slope / 2e-5 == pytest.approx(0, abs=1e-5)


def test_recovers_the_coefficients_that_made_the_choices():
    beta = np.array([0.8, -1.2, 0.0, 0.4])
    features, starts, _, chosen = simulated(8000, beta, 1)
    assert fit_conditional_logit(features, starts, chosen, 0.0) == pytest.approx(beta, abs=0.07)


def test_binary_slates_equal_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(2)
    features = generator.normal(size=(400, 2))
    starts = np.arange(0, 400, 2)
    first = generator.random(200) < 1 / (1 + np.exp(-(features[::2] - features[1::2]) @ [1.0, -2.0]))
    found = fit_conditional_logit(features, starts, np.where(first, starts, starts + 1), 0.01)
    reference = LogisticRegression(C=1 / (0.01 * 200), fit_intercept=False, tol=1e-10)
    reference.fit(features[::2] - features[1::2], first)
    assert found == pytest.approx(reference.coef_[0], abs=1e-5)


def test_separable_choices_stay_finite_under_the_penalty_and_huge_features_do_not_overflow():
    features = np.array([[1000.0], [0.0], [2000.0], [0.0]])
    assert np.isfinite(fit_conditional_logit(features, np.array([0, 2]), np.array([0, 2]), 1e-3)).all()


events_strategy = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 6), st.one_of(st.none(), st.integers(1, 5))),
    min_size=1,
    max_size=30,
)


@given(events_strategy, st.sampled_from("abc"), st.integers(-1, 8))
def test_statistics_as_of_a_moment_equal_counting(rows, item, moment):
    events = pl.DataFrame(
        [{"item_id": i, "event_time": START + timedelta(days=d), "rating": r} for i, d, r in rows],
        schema={"item_id": pl.String, "event_time": TIME, "rating": pl.Float64},
    )
    statistics = ItemStatistics(events, Catalogue("abc"))
    query = (
        np.array(["abc".index(item)]),
        pl.Series([START + timedelta(days=moment)], dtype=TIME).to_physical().to_numpy(),
    )
    before = [(i, r) for i, d, r in rows if d < moment]
    own = sum(i == item for i, _ in before)
    assert statistics.log_popularity(*query)[0] == pytest.approx(np.log((own + 1) / (len(before) + 3)))
    rated = [r for _, r in before if r is not None]
    mine = [r for i, r in before if i == item and r is not None]
    overall = np.mean(rated) if rated else 0.0
    assert statistics.mean_rating(*query, 2.0)[0] == pytest.approx((sum(mine) + 2 * overall) / (len(mine) + 2))


def world(n_examples=300, seed=0):
    """A log whose users choose by genre only, and training examples from it."""
    generator = np.random.default_rng(seed)
    genres = [f"g{place % 4}" for place in range(40)]
    items = pl.DataFrame(
        {
            "item_id": [f"i{place:02d}" for place in range(40)],
            "year": generator.integers(1950, 2000, 40).astype(np.int32),
            "genres": [[genre] for genre in genres],
        }
    )
    ids, rows, examples = items["item_id"].to_list(), [], []
    for number in range(n_examples):
        liked = number % 4
        own = [name for place, name in enumerate(ids) if place % 4 == liked]
        moment = START + timedelta(hours=number)
        history = generator.choice(own, 6, replace=False).tolist()
        rows += [(f"u{number}", name, moment - timedelta(minutes=9 - place), 4.0) for place, name in enumerate(history)]
        target = generator.choice([name for name in own if name not in history])
        rows.append((f"u{number}", target, moment, 5.0))
        slate = [target, *generator.choice([name for name in ids if name not in own], 4, replace=False).tolist()]
        examples.append(
            {
                "example_id": f"e{number}",
                "user_id": f"u{number}",
                "cutoff_time": moment,
                "history": [{"item_id": name} for name in history],
                "target_item_id": target,
                "slate": generator.permutation(slate).tolist(),
            }
        )
    schema = {"user_id": pl.String, "item_id": pl.String, "event_time": TIME, "rating": pl.Float64}
    events = pl.DataFrame(rows, schema=schema, orient="row")
    return events, items, pl.DataFrame(examples, schema_overrides={"cutoff_time": TIME})


def rank_of_own_genre(model, seed):
    generator = np.random.default_rng(seed)
    liked = seed % 4
    history = tuple(f"i{place:02d}" for place in range(liked, 24, 4))
    slate = [f"i{36 + liked}", *(f"i{place:02d}" for place in generator.permutation(36) if place % 4 != liked)][:6]
    return model.rank([Query("e", "", history)], [slate])[0].argmax()


def test_learns_what_moves_the_choices():
    events, items, examples = world()
    after = START + timedelta(days=30)
    model = ConditionalLogit.fit(events, items, examples, before=after)
    weights = dict(zip(FEATURES, model.coefficients, strict=True))
    assert weights["genre_overlap"] + weights["genre_cosine"] > 5 * abs(weights["log_year_distance_median"])
    assert all(rank_of_own_genre(model, seed) == 0 for seed in range(12))
    again = ConditionalLogit.fit(
        events.sample(fraction=1.0, shuffle=True, seed=1), items.reverse(), examples, before=after
    )
    assert again.coefficients == pytest.approx(model.coefficients)


def test_missing_fields_weigh_nothing():
    events, items, examples = world(60)
    model = ConditionalLogit.fit(events.drop("rating"), items.drop("year"), examples, before=START + timedelta(days=30))
    weights = dict(zip(FEATURES, model.coefficients, strict=True))
    assert weights["mean_rating"] == 0 and weights["log_year_distance_recent"] == 0 and weights["genre_cosine"] > 0
    assert np.isfinite(model.rank([Query("e", "", ("i00",))], [["i01", "i02"]])[0]).all()


def test_training_features_do_not_look_past_each_cutoff():
    events, items, examples = world(120)
    late = START + timedelta(days=30)
    model = ConditionalLogit.fit(events, items, examples, before=late)
    # Events after the last training cutoff change what is known when ranking, never the coefficients.
    flood = pl.DataFrame(
        {
            "user_id": ["z"] * 500,
            "item_id": ["i05"] * 500,
            "event_time": [late - timedelta(days=1)] * 500,
            "rating": [1.0] * 500,
        },
        schema_overrides={"event_time": TIME},
    )
    flooded = ConditionalLogit.fit(pl.concat([events, flood]), items, examples, before=late)
    assert flooded.coefficients == pytest.approx(model.coefficients)
    assert flooded.popularity[5] > model.popularity[5] + 1


def test_refusals():
    events, items, examples = world(30)
    late = START + timedelta(days=30)
    with pytest.raises(InputError, match="0 training examples"):
        ConditionalLogit.fit(events, items, examples.head(0), before=late)
    with pytest.raises(InputError, match="events at or after"):
        ConditionalLogit.fit(events, items, examples, before=START + timedelta(hours=5))
    with pytest.raises(InputError, match="1 training cutoffs at or after"):
        ConditionalLogit.fit(
            events.filter(pl.col("event_time") < START + timedelta(hours=29)),
            items,
            examples,
            before=START + timedelta(hours=29),
        )
    lost = examples.with_columns(target_item_id=pl.lit("i99"))
    with pytest.raises(InputError, match="its slate lacks its target"):
        ConditionalLogit.fit(events, items, lost, before=late)
