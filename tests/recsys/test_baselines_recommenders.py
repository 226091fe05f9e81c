"""Popularity, item-kNN, EASE^R and the content baselines: against slow references and by hand."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from recsys.errors import InputError
from recsys.recommenders.base import Query, Recommender
from recsys.recommenders.collaborative import Catalogue, interaction_matrix
from recsys.recommenders.content import GenreOverlap, YearDistance, genre_cosine
from recsys.recommenders.ease import Ease, EaseConfig, ease_weights
from recsys.recommenders.item_knn import ItemKNN, ItemKNNConfig, neighbour_similarity
from recsys.recommenders.popularity import Popularity

START = datetime(2020, 1, 1, tzinfo=UTC)
AFTER = START + timedelta(days=100)
EVERY = [Popularity, ItemKNN, Ease, YearDistance, GenreOverlap]


def make_events(pairs):
    return pl.DataFrame(
        [
            {"user_id": user, "item_id": item, "event_time": START + timedelta(days=day)}
            for day, (user, item) in enumerate(pairs)
        ],
        schema={"user_id": pl.String, "item_id": pl.String, "event_time": pl.Datetime("us", "UTC")},
    )


ITEMS = pl.DataFrame(
    {
        "item_id": ["d", "a", "c", "b", "e"],
        "year": [1950, 1990, None, 1994, 2000],
        "genres": [["Drama"], ["Comedy", "Drama"], [], ["Comedy"], ["Horror"]],
    },
    schema_overrides={"year": pl.Int32},
)
EVENTS = make_events([("u1", "a"), ("u1", "b"), ("u2", "a"), ("u2", "b"), ("u3", "a"), ("u3", "d"), ("u3", "a")])


def scores(recommender, history, slate):
    return recommender.rank([Query("example", "ignored", tuple(history))], [list(slate)])[0].tolist()


@pytest.fixture(scope="module")
def random_log():
    generator = np.random.default_rng(0)
    taste = generator.normal(size=(60, 3)) @ generator.normal(size=(3, 15)) + generator.normal(size=(60, 15))
    pairs = [(f"u{user}", f"i{item:02d}") for user, item in np.argwhere(taste > 0.7).tolist()]
    start, step = START, timedelta(minutes=1)
    events = pl.DataFrame(
        [
            {"user_id": user, "item_id": item, "event_time": start + place * step}
            for place, (user, item) in enumerate(pairs)
        ],
        schema_overrides={"event_time": pl.Datetime("us", "UTC")},
    )
    items = pl.DataFrame({"item_id": [f"i{item:02d}" for item in range(15)]})
    return events, items, interaction_matrix(events, Catalogue(items["item_id"].to_list()))


@pytest.mark.parametrize("build", EVERY)
def test_protocol_errors_and_counted_strangers(build):
    recommender = build.fit(EVENTS, ITEMS, before=AFTER)
    assert isinstance(recommender, Recommender)
    with pytest.raises(InputError, match="item 'ghost': is in a slate but not in the catalogue of 5 items"):
        scores(recommender, ["a"], ["a", "ghost"])
    assert scores(recommender, ["a", "gone", "gone"], "bde") == scores(recommender, ["a"], "bde")
    assert recommender.ignored_history_items == 2
    assert np.isfinite(scores(recommender, [], "abcde")).all()
    with pytest.raises(InputError, match="1 events at or after 2020-01-07"):
        build.fit(EVENTS, ITEMS, before=START + timedelta(days=6))
    with pytest.raises(InputError, match="1 repeated item ids"):
        build.fit(EVENTS, pl.concat([ITEMS, ITEMS.head(1)]), before=AFTER)
    with pytest.raises(InputError, match="1 queries and 2 slates"):
        recommender.rank([Query("x", "")], [["a"], ["b"]])


@pytest.mark.parametrize("build", EVERY)
def test_slate_order_and_catalogue_order_change_nothing(build):
    first = build.fit(EVENTS, ITEMS, before=AFTER)
    second = build.fit(EVENTS.reverse(), ITEMS.reverse(), before=AFTER)
    assert scores(first, "ab", "abcde") == pytest.approx(scores(second, "ab", "edcba")[::-1])


def test_an_event_outside_the_catalogue_is_named():
    with pytest.raises(InputError, match="'zz'"):
        Popularity.fit(make_events([("u", "zz")]), ITEMS, before=AFTER)


def test_popularity_counts_users_once():
    assert scores(Popularity.fit(EVENTS, ITEMS, before=AFTER), [], "abcd") == [3, 2, 0, 1]


def test_year_distance_by_hand():
    recommender = YearDistance.fit(EVENTS, ITEMS, before=AFTER)
    # History years 1990, 1994, 2000: median 1994. Item c has no year: median of the seen a, b, d = 1990.
    assert scores(recommender, "abe", "abcde") == [-4, 0, -4, -44, -6]


def test_genre_overlap_by_hand():
    recommender = GenreOverlap.fit(EVENTS, ITEMS, before=AFTER)
    assert scores(recommender, "ab", "abcde") == [(1 + 1 / 2) / 2, (1 / 2 + 1) / 2, 0, (1 / 2 + 0) / 2, 0]
    genres = recommender.content.genres
    history, slate = recommender.catalogue.slate("ab"), recommender.catalogue.slate("dce")
    assert genre_cosine(genres, history, slate) == pytest.approx([1 / np.sqrt(5), 0, 0])


def test_item_knn_equals_the_definition(random_log):
    events, items, matrix = random_log
    dense, k, shrinkage = matrix.toarray(), 4, 3.0
    expected = np.zeros((15, 15))
    for i in range(15):
        row = [
            0 if i == j else dense[:, i] @ dense[:, j] / (np.sqrt(dense[:, i].sum() * dense[:, j].sum()) + shrinkage)
            for j in range(15)
        ]
        for j in sorted(range(15), key=lambda j: -row[j])[:k]:
            expected[i, j] = row[j]
    assert neighbour_similarity(matrix, ItemKNNConfig(k, shrinkage)).toarray() == pytest.approx(expected)
    recommender = ItemKNN.fit(events, items, before=AFTER, config=ItemKNNConfig(k, shrinkage))
    found = scores(recommender, ["i03", "i07", "i03"], ["i01", "i02"])
    assert found == pytest.approx((expected[1:3, 3] + expected[1:3, 7]).tolist())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ease_equals_ridge_regressions_without_the_item_itself(random_log, dtype):
    matrix, l2 = random_log[2], 7.0
    dense, weights = matrix.toarray(), ease_weights(matrix, EaseConfig(l2=l2, dtype=dtype))
    for j in range(15):
        others = [i for i in range(15) if i != j]
        x = dense[:, others]
        ridge = np.linalg.solve(x.T @ x + l2 * np.eye(14), x.T @ dense[:, j])
        assert weights[others, j] == pytest.approx(ridge, abs=1e-9 if dtype == "float64" else 1e-4)
        assert weights[j, j] == 0


def test_ease_sums_the_history_once_per_item(random_log):
    events, items, matrix = random_log
    recommender = Ease.fit(events, items, before=AFTER, config=EaseConfig(l2=20.0))
    weights = ease_weights(matrix, EaseConfig(l2=20.0))
    expected = weights[3, [1, 2]] + weights[7, [1, 2]]
    assert scores(recommender, ["i03", "i07", "i03"], ["i01", "i02"]) == pytest.approx(expected.tolist())


def test_ease_refuses_large_catalogues_and_no_ridge(random_log):
    with pytest.raises(InputError, match=r"5 items: .* above the limit of 4 items"):
        Ease.fit(EVENTS, ITEMS, before=AFTER, config=EaseConfig(max_items=4))
    with pytest.raises(InputError, match="l2 0"):
        ease_weights(random_log[2], EaseConfig(l2=0.0))


def test_collaborative_models_learn_structure():
    # Two groups of users with disjoint tastes: within-group items must come first although the others are more popular.
    pairs = [(f"x{u}", i) for u in range(20) for i in "abc" if (u, i) != (0, "c")]
    pairs += [(f"y{u}", i) for u in range(60) for i in "de"]
    events = make_events(pairs).with_columns(event_time=pl.lit(START).cast(pl.Datetime("us", "UTC")))
    for build in (ItemKNN, Ease):
        found = scores(build.fit(events, ITEMS, before=AFTER), "ab", "cde")
        assert found[0] > max(found[1:])
    assert np.argmax(scores(Popularity.fit(events, ITEMS, before=AFTER), "ab", "cde")) > 0
