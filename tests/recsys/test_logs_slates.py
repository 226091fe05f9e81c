"""Slates: what they hold, in which order, how policies weigh, what redraws share."""

import logs_factory as factory
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.logs.engaged import EngagedConfig
from recsys.logs.examples import build_examples
from recsys.logs.pools import Past
from recsys.logs.popularity import added, deciles, popularity
from recsys.logs.slates import ItemVectors, SlateConfig, count_future_favourites, draw_counted, draw_slates
from recsys.logs.splits import SplitConfig
from recsys.logs.tables import Log

VECTORS = ItemVectors(tuple(factory.catalogue()["item_id"]), np.random.default_rng(0).normal(size=(factory.ITEMS, 6)))
POLICIES = ["uniform", "popularity", "matched", "retrieved"]


@given(st.integers(0, 2**32), st.sampled_from(POLICIES))
@settings(max_examples=40, deadline=None)
def test_a_slate_holds_the_target_once_and_nothing_touched(seed: int, policy: str) -> None:
    log = factory.make_log(factory.random_rows(np.random.default_rng(seed), 60))
    config = factory.small_config(policy)
    examples, _ = build_examples(log, config, VECTORS)
    slates = draw_slates(examples, log, config.slate, 3, config.seed, VECTORS)
    assert slates.filter(pl.col("slate_index") == 0)["slate"].equals(examples["slate"])
    assert slates.schema == {
        "example_id": pl.String,
        "slate_index": pl.Int32,
        "slate": pl.List(pl.String),
        "target_index": pl.Int32,
    }
    touched: dict[str, list[tuple[object, str]]] = {}
    for user, item, time in log.events.select("user_id", "item_id", "event_time").iter_rows():
        touched.setdefault(user, []).append((time, item))
    for row in slates.join(examples.drop("slate"), on="example_id").iter_rows(named=True):
        earlier = {item for time, item in touched[row["user_id"]] if time < row["cutoff_time"]}
        assert len(set(row["slate"])) == config.slate.size
        assert row["slate"][row["target_index"]] == row["target_item_id"]
        assert not (set(row["slate"]) - {row["target_item_id"]}) & earlier


def test_redraws_differ_do_not_depend_on_each_other_and_follow_the_seed() -> None:
    log = factory.make_log(factory.random_rows(np.random.default_rng(5), 60))
    config = factory.small_config()
    examples, _ = build_examples(log, config)
    three = draw_slates(examples, log, config.slate, 3, 0)
    one = draw_slates(examples[::-1], log, config.slate, 1, 0)[::-1]
    assert three.filter(pl.col("slate_index") == 0).equals(one)
    as_sets = three.with_columns(pl.col("slate").list.sort()).group_by("example_id").agg(pl.col("slate").n_unique())
    assert (as_sets["slate"] > 1).mean() > 0.8
    assert not draw_slates(examples, log, config.slate, 1, 1)["slate"].equals(one["slate"])


def wide_log(n_users: int = 400, n_items: int = 300) -> Log:
    """Users of six events; item popularity falls off steeply."""
    generator = np.random.default_rng(0)
    weights = 1 / (1 + np.arange(n_items))
    rows = []
    for user in range(n_users):
        items = generator.choice(n_items, 7, replace=False, p=weights / weights.sum())
        rows += [
            (user, int(item), 24 * int(generator.integers(1, 3)) + place, 3 + 2 * (place == 6))
            for place, item in enumerate(items)
        ]
    return factory.make_log(rows, factory.catalogue(n_items, parents=False))


EVERYONE = SplitConfig(train=1.0, validation=0, test=0, train_until="2030-01-01", validate_until="2031-01-01")


@pytest.mark.parametrize("policy", ["uniform", "popularity", "matched"])
def test_the_targets_place_is_uniform(policy: str) -> None:
    log = wide_log()
    config = factory.small_config(policy, split=EVERYONE, slate=SlateConfig(policy=policy, size=5))
    examples, _ = build_examples(log, config)
    places = draw_slates(examples, log, config.slate, 5, 0)["target_index"].to_numpy()
    observed = np.bincount(places, minlength=5)
    expected = len(places) / 5
    assert len(places) >= 1000
    assert ((observed - expected) ** 2 / expected).sum() < 18.5  # chi-square, 4 degrees of freedom, p = 0.001


def test_popularity_draws_in_proportion_and_uniform_does_not() -> None:
    log = wide_log()
    drawn = {}
    for policy in ("uniform", "popularity"):
        config = factory.small_config(policy, split=EVERYONE, slate=SlateConfig(policy=policy, size=2))
        examples, _ = build_examples(log, config)
        late = examples.filter(pl.col("cutoff_time") >= factory.hour(48))
        slates = draw_slates(late, log, config.slate, 40, 0).join(
            late.select("example_id", "target_item_id"), on="example_id"
        )
        negatives = slates.explode("slate").filter(pl.col("slate") != pl.col("target_item_id"))["slate"]
        drawn[policy] = dict(negatives.value_counts().iter_rows())
    earlier = dict(log.events.filter(pl.col("event_time") < factory.hour(48))["item_id"].value_counts().iter_rows())
    # Items 20..60 are rarely excluded as touched: their shares follow the counts before the day.
    middle = [f"i{place}" for place in range(20, 60) if f"i{place}" in earlier]
    shares = np.array([drawn["popularity"].get(item, 0) for item in middle], float)
    assert np.corrcoef(shares, [earlier[item] for item in middle])[0, 1] > 0.9
    flat = np.array([drawn["uniform"].get(item, 0) for item in middle], float)
    assert abs(np.corrcoef(flat, [earlier[item] for item in middle])[0, 1]) < 0.5
    assert set(drawn["popularity"]) <= set(earlier)


def test_matched_negatives_share_the_targets_cell_unless_widened() -> None:
    log = wide_log()
    config = factory.small_config("matched", split=EVERYONE, slate=SlateConfig(policy="matched", size=3))
    examples, _ = build_examples(log, config)
    _, counts = draw_counted(examples, log, config.slate, 1, 0)
    years = dict(log.items.select("item_id", "year").iter_rows())
    ids = log.items["item_id"].to_list()
    outside = 0
    days = np.unique(examples["cutoff_time"].dt.epoch("d").to_numpy())
    for day, counted in popularity(log.codes, len(ids)).before(days):
        cell = {
            item: (-1 if years[item] is None else years[item] // 5, int(decile))
            for item, decile in zip(ids, deciles(counted), strict=True)
        }
        for row in examples.filter(pl.col("cutoff_time").dt.epoch("d") == day).iter_rows(named=True):
            outside += any(cell[item] != cell[row["target_item_id"]] for item in row["slate"])
    assert 0 < outside == sum(counts.values()) < len(examples) / 2


def test_retrieved_negatives_are_near_the_history_and_vectors_are_required() -> None:
    log = factory.make_log(factory.random_rows(np.random.default_rng(6), 60))
    config = factory.small_config("retrieved", slate=SlateConfig(policy="retrieved", size=4, retrieved_from=3))
    examples, _ = build_examples(log, config, VECTORS)
    unit = VECTORS.matrix / np.linalg.norm(VECTORS.matrix, axis=1, keepdims=True)
    place = {item: row for row, item in enumerate(VECTORS.item_ids)}
    example = examples.row(0, named=True)
    mean = unit[[place[event["item_id"]] for event in example["history"]]].mean(axis=0)
    touched = log.events.filter(
        (pl.col("user_id") == example["user_id"]) & (pl.col("event_time") < example["cutoff_time"])
    )["item_id"].to_list()
    order = [
        item
        for item in sorted(place, key=lambda item: -float(unit[place[item]] @ mean))
        if item not in touched and item != example["target_item_id"]
    ]
    assert set(example["slate"]) == {*order[:3], example["target_item_id"]}
    with pytest.raises(InputError, match="needs item vectors"):
        build_examples(log, config)
    with pytest.raises(InputError, match="have no vector"):
        build_examples(log, config, ItemVectors(VECTORS.item_ids[:5], VECTORS.matrix[:5]))


def test_items_not_yet_available_are_no_candidates() -> None:
    items = factory.catalogue().with_columns(
        pl.when(pl.col("item_id") > "i11").then(factory.hour(1000)).alias("available_from")
    )
    rows = [(user, item, item + user, 5) for user in range(4) for item in range(6)]
    config = factory.small_config(split=EVERYONE, slate=SlateConfig(policy="uniform", size=4))
    examples, _ = build_examples(factory.make_log(rows, items), config)
    assert examples["slate"].explode().max() <= "i11"


def test_too_few_candidates_name_the_numbers() -> None:
    log = factory.make_log(factory.random_rows(np.random.default_rng(7)))
    with pytest.raises(
        InputError, match=r"candidates of 60 items.*a slate of 70 needs 69 negatives.*slate\.size smaller"
    ):
        build_examples(log, factory.small_config(slate=SlateConfig(policy="uniform", size=70)))
    for slate, message in (
        (SlateConfig(size=1), "at least one negative"),
        (SlateConfig(policy="hard"), "not known"),
        (SlateConfig(year_band=0), "at least one year"),
    ):
        with pytest.raises(InputError, match=message):
            build_examples(log, factory.small_config(slate=slate))


def test_future_favourites_are_counted_and_kept() -> None:
    rows = [(0, item, item, 3) for item in range(5)] + [(0, 10, 10, 5), (0, 11, 20, 5), (0, 12, 30, 1)]
    log = factory.make_log(rows)
    config = factory.small_config(
        split=EVERYONE, history_min=5, history_max=5, slate=SlateConfig(policy="uniform", size=53)
    )
    examples, _ = build_examples(log, config)
    first = examples.filter(pl.col("target_item_id") == "i10")
    assert {"i11", "i12"} <= set(first["slate"][0])
    found = count_future_favourites(first, first, log, EngagedConfig(rating_at_least=4))
    assert found == {"negatives": 52, "negatives_touched_later": 2, "negatives_engaged_later": 1}


def test_popularity_stops_before_the_day_and_adds_up_over_parts() -> None:
    log = factory.make_log(factory.random_rows(np.random.default_rng(8)))
    whole = popularity(log.codes, len(log.items))
    days = np.array([18261, 18262, 18263, 18264, 18300])  # 18262 is 2020-01-01
    for day, counts in whole.before(days):
        earlier = log.events.filter(pl.col("event_time").dt.epoch("d") < day)
        assert counts.tolist() == [earlier.filter(pl.col("item_id") == item).height for item in log.items["item_id"]]
    parts = [
        Log(log.events.filter(pl.col("user_id") == user), log.items) for user in ("u0", "u1", "u2", "u3", "nobody")
    ]
    total = added([popularity(part.codes, len(log.items)) for part in parts])
    for name in ("days", "items", "counts"):
        assert np.array_equal(getattr(total, name), getattr(whole, name)), name
    found, counts = whole.by_day()
    assert dict(zip(found.tolist(), counts.tolist(), strict=True)) == dict(
        log.events["event_time"].dt.epoch("d").value_counts().iter_rows()
    )


def test_deciles_rank_among_touched_items() -> None:
    generator = np.random.default_rng(9)
    for size in (1, 7, 60):
        counts = generator.integers(0, 9, size)
        touched = sorted(count for count in counts if count)
        expected = [1 + 10 * touched.index(count) // len(touched) if count else 0 for count in counts]
        assert deciles(counts).tolist() == expected


def test_candidates_of_a_user_leave_out_what_lies_before_the_moment() -> None:
    log = factory.make_log(factory.random_rows(np.random.default_rng(10)))
    past, ids = Past(log, log.items), np.array(log.items["item_id"])
    for user in ("u0", "u3", "nobody"):
        for hour in (0, 17, 33, 100):
            moment = factory.hour(hour)
            touched = log.events.filter((pl.col("user_id") == user) & (pl.col("event_time") < moment))["item_id"]
            cutoffs = np.array([int(moment.timestamp() * 1_000_000)])
            starts, ends = past.spans_before(pl.Series([user]), cutoffs)
            allowed = past.allowed(int(starts[0]), int(ends[0]), int(cutoffs[0]))
            assert set(ids[~allowed]) == set(touched)
