"""Histories, discovery, splits and the choice of targets against slow references."""

import dataclasses

import logs_factory as factory
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys import contracts
from recsys.errors import InputError
from recsys.logs import history as history_module
from recsys.logs.engaged import EngagedConfig
from recsys.logs.examples import build_examples
from recsys.logs.splits import SplitConfig, split_times, user_splits
from recsys.seeding import unit_hash

SEEDS = st.integers(0, 2**32)


def reference(
    rows: list[tuple[int, int, int, int]], history_min: int, history_max: int
) -> dict[tuple[str, str, int], tuple[list[str], bool, str]]:
    """Every example by plain loops: (user, item, hour) -> history's item ids, discovery, split."""
    parents = dict(factory.catalogue().select("item_id", pl.coalesce("parent_id", "item_id")).iter_rows())
    found = {}
    for user, item, moment, rating in rows:
        place = unit_hash("split", f"u{user}")
        split = "train" if place < 0.5 else "validation" if place < 0.7 else "test"
        inside = {"train": moment < 40, "validation": 40 <= moment < 50, "test": moment >= 50}[split]
        past = sorted((when, f"i{what:02d}") for who, what, when, _ in rows if who == user and when < moment)
        if rating >= 4 and inside and len(past) >= history_min:
            name = f"i{item:02d}"
            new = all(parents[earlier] != parents[name] for _, earlier in past)
            found[f"u{user}", name, moment] = ([earlier for _, earlier in past[-history_max:]], new, split)
    return found


@given(SEEDS, st.integers(1, 6), st.integers(0, 10))
@settings(max_examples=40, deadline=None)
def test_examples_equal_a_slow_reference(seed: int, history_min: int, extra: int) -> None:
    rows = factory.random_rows(np.random.default_rng(seed))
    config = factory.small_config(history_min=history_min, history_max=history_min + extra)
    examples, counts = build_examples(factory.make_log(rows), config)
    expected = reference(rows, history_min, history_min + extra)
    found = {
        (row["user_id"], row["target_item_id"], round((row["cutoff_time"] - factory.START).total_seconds() / 3600)): (
            [event["item_id"] for event in row["history"]],
            row["is_discovery"],
            row["split"],
        )
        for row in examples.iter_rows(named=True)
    }
    assert found == expected
    assert counts["targets_not_discovery"] == sum(not new for _, new, _ in expected.values())


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_input_changes_nothing(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = factory.random_rows(generator)
    shuffled = [rows[place] for place in generator.permutation(len(rows))] + rows[:7]  # with repeats, to be dropped
    items = factory.catalogue()
    first, first_counts = build_examples(
        factory.make_log(rows, items), factory.small_config("matched", targets_per_user=3)
    )
    log = factory.make_log(shuffled, items.sample(fraction=1, shuffle=True, seed=seed % 1000))
    second, second_counts = build_examples(log, factory.small_config("matched", targets_per_user=3))
    assert first.equals(second)
    assert first_counts == second_counts
    assert log.counts["events_exact_duplicates_dropped"] == 7


def test_history_carries_the_events_and_items_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = factory.random_rows(np.random.default_rng(1))
    log = factory.make_log(rows)
    examples, _ = build_examples(log, factory.small_config())
    flat = examples.select("cutoff_time", "user_id", "history").explode("history").unnest("history")
    joined = flat.join(
        log.events.with_columns(pl.lit(True).alias("real")),
        on=["user_id", "item_id", "event_time", "rating"],
        how="left",
    )
    assert joined["real"].all()
    assert (flat["event_time"] < flat["cutoff_time"]).all()
    assert flat.join(log.items, on="item_id").filter(pl.col("title") != pl.col("title_right")).is_empty()
    monkeypatch.setattr(history_module, "_BATCH_ROWS", 7)  # the same in many small batches
    assert build_examples(log, factory.small_config())[0].equals(examples)


def test_the_limit_keeps_a_seeded_subset_per_user() -> None:
    log = factory.make_log(factory.random_rows(np.random.default_rng(2), 200))
    everything, _ = build_examples(log, factory.small_config())
    some, counts = build_examples(log, factory.small_config(targets_per_user=3))
    other, _ = build_examples(log, factory.small_config(targets_per_user=3, seed=1))
    assert some["user_id"].value_counts()["count"].max() == 3
    assert counts["targets_over_the_limit_dropped"] == len(everything) - len(some)
    assert some.equals(everything.filter(pl.col("example_id").is_in(some["example_id"].to_list())))
    assert set(some["example_id"]) != set(other["example_id"])


def test_discovery_only_drops_repeats_and_ties_are_not_earlier() -> None:
    rows = [(0, item, item, 3) for item in range(6)] + [(0, 3, 20, 5), (0, 10, 21, 5), (0, 10, 30, 5), (0, 11, 30, 5)]
    log = factory.make_log(rows)
    split = SplitConfig(train=1.0, validation=0.0, test=0.0, train_until="100%", validate_until="100%")
    config = factory.small_config(
        split=dataclasses.replace(split, train_until="2030-01-01", validate_until="2030-01-02"),
        history_min=5,
        history_max=9,
    )
    examples, _ = build_examples(log, config)
    assert examples.select("target_item_id", "is_discovery").rows() == [
        ("i03", False),
        ("i10", True),
        ("i10", False),
        ("i11", True),
    ]
    # i11 shares its hour with i10's second play: neither is in the other's history.
    assert [len(history) for history in examples["history"]] == [6, 7, 8, 8]
    assert [history[-1]["item_id"] for history in examples["history"].to_list()] == ["i05", "i03", "i10", "i10"]
    only, _ = build_examples(log, dataclasses.replace(config, discovery_only=True))
    assert only["target_item_id"].to_list() == ["i10", "i11"]


def test_user_splits_are_stable_and_follow_the_shares() -> None:
    users = pl.Series([f"user-{place}" for place in range(20_000)])
    config = SplitConfig(train=0.3, validation=0.1, test=0.5)
    splits = user_splits(users, config)
    shares = dict(splits.value_counts().iter_rows())
    for name, share in (("train", 0.3), ("validation", 0.1), ("test", 0.5), (None, 0.1)):
        assert abs(shares[name] / len(users) - share) < 0.015
    assert user_splits(users.reverse(), config).reverse().equals(splits)
    assert user_splits(pl.Series(["user-0", "user-1", "user-2", "user-3"]), config).to_list() == splits[:4].to_list()


def test_split_times_as_dates_and_shares() -> None:
    times = pl.Series([factory.hour(place) for place in range(101)])
    assert split_times(times, SplitConfig(train_until="50%", validate_until="60%")) == (
        factory.hour(50),
        factory.hour(60),
    )
    assert split_times(times, SplitConfig(train_until="2020-01-02", validate_until="2020-01-03T00:00:00+00:00")) == (
        factory.hour(24),
        factory.hour(48),
    )
    for bad in ("tomorrow", "120%", "x%"):
        with pytest.raises(InputError, match="neither a time nor a share"):
            split_times(times, SplitConfig(train_until=bad))
    with pytest.raises(InputError, match="before the second"):
        split_times(times, SplitConfig(train_until="70%", validate_until="60%"))


def test_refusals_name_what_took_the_targets() -> None:
    log = factory.make_log(factory.random_rows(np.random.default_rng(3)))
    with pytest.raises(InputError, match=r"no target is left.*'targets_engaged': 0"):
        build_examples(log, factory.small_config(engaged=EngagedConfig(rating_at_least=9)))
    with pytest.raises(InputError, match="what counts as an engaged target must be named"):
        build_examples(log, factory.small_config(engaged=EngagedConfig()))
    with pytest.raises(InputError, match="neither the recipe nor the source"):
        build_examples(dataclasses.replace(log, engaged=None), factory.small_config())
    with pytest.raises(InputError, match="history_min"):
        build_examples(log, factory.small_config(history_min=9, history_max=4))
    with pytest.raises(InputError, match="ordered by user"):
        build_examples(dataclasses.replace(log, events=log.events.reverse()), factory.small_config())
    with pytest.raises(InputError, match="sum to at most 1"):
        build_examples(log, factory.small_config(split=SplitConfig(train=0.9, test=0.9)))


def test_users_with_too_little_history_are_counted() -> None:
    rows = [(0, item, item, 5) for item in range(8)] + [(1, item, item, 5) for item in range(3)]
    config = factory.small_config(
        history_min=5,
        history_max=5,
        split=SplitConfig(train=1.0, validation=0, test=0, train_until="2030-01-01", validate_until="2031-01-01"),
    )
    examples, counts = build_examples(factory.make_log(rows), config)
    assert examples["user_id"].unique().to_list() == ["u0"]
    assert counts["users_with_too_little_history"] == 1
    assert counts["targets_with_too_little_history_dropped"] == 5 + 3
    assert counts["examples_train"] == 3 == len(examples)
    contracts.check(examples, "examples")


def test_engaged_rules_combine() -> None:
    rows = [(0, item, item, 1 + item % 5) for item in range(12)]
    log = factory.make_log(rows)
    kinds = pl.when(pl.col("item_id") == "i06").then(pl.lit("click")).otherwise(pl.lit("play"))
    completion = pl.when(pl.col("item_id") == "i07").then(0.5)
    log = dataclasses.replace(
        log, events=log.events.with_columns(kinds.alias("event_type"), completion.alias("completion"))
    )
    split = SplitConfig(train=1.0, validation=0, test=0, train_until="2030-01-01", validate_until="2031-01-01")
    config = factory.small_config(
        history_min=5,
        history_max=5,
        split=split,
        engaged=EngagedConfig(rating_at_least=5, completion_at_least=0.5, event_types=("click",)),
    )
    assert build_examples(log, config)[0]["target_item_id"].to_list() == ["i06", "i07", "i09"]
