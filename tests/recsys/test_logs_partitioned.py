"""A log in buckets of users gives the tables of the whole log, for any number of buckets and batches."""

import dataclasses
import datetime as dt
from pathlib import Path

import logs_factory as factory
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.logs.buckets import Run, bucket_of, canonicalise_bucketed, split_users
from recsys.logs.engaged import EngagedConfig
from recsys.logs.events import canonicalise
from recsys.logs.examples import build_examples, statistics_of
from recsys.logs.partitioned import build_examples_bucketed, example_tables, examples_by_bucket, global_statistics
from recsys.logs.slates import ItemVectors, SlateConfig, draw_slates
from recsys.logs.splits import SplitConfig
from recsys.logs.tables import RawLog

VECTORS = ItemVectors(tuple(factory.catalogue()["item_id"]), np.random.default_rng(0).normal(size=(factory.ITEMS, 6)))
RULE = EngagedConfig(rating_at_least=4)


def messy_events(seed: int, count: int = 400, users: int = 11) -> pl.DataFrame:
    """Raw events in no order, with repeats, conflicts, unknown items, blanks, and ids that are equal once cleaned."""
    generator = np.random.default_rng(seed)
    user, item, hour = (generator.integers(0, high, count) for high in (users, factory.ITEMS + 2, factory.HOURS))
    rows = pl.DataFrame(
        {
            "user_id": [f" u{n}" if k % 5 else f"u{n}\n" for k, n in enumerate(user)],
            "item_id": [f"i{n:02d}" for n in item],
            "event_time": [factory.hour(int(n)) for n in hour],
            "event_type": ["rating" if n % 3 else "play" for n in hour],
            "rating": generator.integers(1, 6, count).astype(float),
        },
        schema_overrides={"event_time": pl.Datetime("us", "UTC")},
    )
    conflicts = rows.head(20).with_columns(pl.col("rating") % 5 + 1)
    blanks = rows.head(6).with_columns(pl.Series("user_id", [None, " ", "\x00", None, "u1", "u2"]))
    return pl.concat([rows, rows.head(30), conflicts, blanks])[generator.permutation(count + 56)]


def raw(seed: int, derived: bool = False) -> RawLog:
    events = messy_events(seed)
    if derived:
        events = events.join(factory.catalogue(), on="item_id", how="left", maintain_order="left")
        return RawLog(events.lazy(), None, {}, RULE)
    return RawLog(events.lazy(), factory.catalogue(), {}, RULE)


SHARES = SplitConfig(train=0.4, validation=0.3, test=0.3, train_until="55%", validate_until="75%")


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 5, 40]), st.integers(20, 500), st.booleans())
@settings(max_examples=12, deadline=None)
def test_canonical_events_do_not_depend_on_buckets(
    tmp_path_factory: pytest.TempPathFactory, seed: int, buckets: int, batch: int, derived: bool
) -> None:
    folder = tmp_path_factory.mktemp("buckets")
    whole = canonicalise(raw(seed, derived))
    log = canonicalise_bucketed(raw(seed, derived), folder, buckets, batch_rows=batch)
    assert len(log.paths) == buckets
    assert log.counts == whole.counts
    assert log.items.equals(whole.items)
    parts = [log.bucket(path).events for path in log.paths]
    assert pl.concat(parts).sort("user_id", maintain_order=True).equals(whole.events)
    for number, part in enumerate(parts):
        assert set(bucket_of(part["user_id"].unique(), buckets)) <= {number}
    assert not (folder / "raw").exists()


@pytest.mark.parametrize("policy", ["uniform", "popularity", "matched", "retrieved"])
@pytest.mark.parametrize("buckets", [1, 3, 20])
def test_examples_and_counts_do_not_depend_on_buckets(tmp_path: Path, policy: str, buckets: int) -> None:
    for seed, split in ((1, SHARES), (2, factory.small_config().split)):
        config = factory.small_config(policy, split=split, targets_per_user=3, history_min=2, discovery_only=seed == 1)
        whole, counts = build_examples(canonicalise(raw(seed)), config, VECTORS)
        log = canonicalise_bucketed(raw(seed), tmp_path / str(seed), buckets, batch_rows=150)
        examples, total = build_examples_bucketed(log, config, VECTORS)
        assert len(whole) > 15
        assert examples.equals(whole)
        assert total == counts


@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=12, deadline=None)
def test_statistics_of_buckets_are_those_of_the_log(
    tmp_path_factory: pytest.TempPathFactory, seed: int, first: float, second: float
) -> None:
    shares = [f"{100 * share:.6f}%" for share in sorted((first, second))]
    split = SplitConfig(train=0.5, validation=0.0, test=0.5, train_until=shares[0], validate_until=shares[1])
    config = factory.small_config(split=split)
    log = canonicalise_bucketed(raw(seed), tmp_path_factory.mktemp("buckets"), 4, batch_rows=200)
    found, expected = global_statistics(log, config), statistics_of(canonicalise(raw(seed)), config)
    assert found.times == expected.times
    for name in ("days", "items", "counts"):
        assert np.array_equal(getattr(found.popularity, name), getattr(expected.popularity, name))


@pytest.mark.parametrize("buckets", [1, 4])
def test_tables_of_a_log_in_memory_equal_one_shot(buckets: int) -> None:
    log = canonicalise(raw(3))
    config = factory.small_config("matched", split=SHARES, targets_per_user=4)
    whole, expected_counts = build_examples(log, config)
    expected_slates = draw_slates(whole.filter(pl.col("split") != "test"), log, config.slate, 3, config.seed)
    examples, slates, counts = example_tables(log, config, 3, Run(), buckets)
    assert examples.equals(whole)
    assert slates.equals(expected_slates) and len(slates)
    assert counts == expected_counts


def test_buckets_hold_whole_users_and_their_impressions() -> None:
    log = canonicalise(raw(4))
    shown = pl.DataFrame({"user_id": log.codes.users, "impression_id": [str(n) for n in range(len(log.codes.users))]})
    parts = split_users(dataclasses.replace(log, impressions=shown), 5)
    assert sum(len(part.events) for part in parts) == len(log.events)
    for part in parts:
        assert part.impressions is not None
        assert part.impressions["user_id"].to_list() == part.codes.users.to_list()


def test_nothing_left_is_refused_once_for_all_buckets(tmp_path: Path) -> None:
    log = canonicalise_bucketed(raw(5), tmp_path / "log", 30)
    config = factory.small_config(engaged=EngagedConfig(rating_at_least=9))
    assert all(examples.is_empty() for examples, _ in examples_by_bucket(log, config))
    with pytest.raises(InputError, match=r"no target is left.*'targets_engaged': 0"):
        build_examples_bucketed(log, config)
    nobody = dataclasses.replace(raw(5), events=raw(5).events.with_columns(user_id=pl.lit(None, pl.String)))
    with pytest.raises(InputError, match="nothing is left after cleaning"):
        canonicalise_bucketed(nobody, tmp_path / "empty", 3)


def test_refusals_name_the_folder_and_the_number(tmp_path: Path) -> None:
    (tmp_path / "something").write_text("here")
    with pytest.raises(InputError, match="holds files already"):
        canonicalise_bucketed(raw(6), tmp_path, 3)
    with pytest.raises(InputError, match="at least 1 and at most"):
        canonicalise_bucketed(raw(6), tmp_path / "log", 0)
    log = canonicalise_bucketed(raw(6), tmp_path / "log", 3)
    with pytest.raises(InputError, match="a slate of 70 needs 69 negatives"):
        build_examples_bucketed(log, factory.small_config(slate=SlateConfig(policy="uniform", size=70)))
    late = factory.small_config(split=dataclasses.replace(SHARES, train_until="2020-02-02", validate_until="1%"))
    with pytest.raises(InputError, match="the first must lie before the second"):
        global_statistics(log, late)
    assert global_statistics(log, factory.small_config()).times[0] == factory.START + dt.timedelta(hours=40)
