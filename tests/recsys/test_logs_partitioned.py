"""A log in buckets of users gives the tables of the whole log, for any number of buckets and batches."""

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import logs_factory as factory
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.logs.batches import passing_of
from recsys.logs.bucketed_log import BucketedLog, buckets_in
from recsys.logs.buckets import canonicalise_bucketed
from recsys.logs.engaged import EngagedConfig
from recsys.logs.engines import Run
from recsys.logs.events import canonicalise
from recsys.logs.examples import build_examples, statistics_of
from recsys.logs.partitioned import examples_by_bucket, global_statistics, write_tables
from recsys.logs.slates import ItemVectors, SlateConfig, draw_slates
from recsys.logs.splits import SplitConfig
from recsys.logs.tables import RawLog
from recsys.storage import read_parquet, write_parquet

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


def parts_of(log: BucketedLog) -> list[pl.DataFrame]:
    return [log.bucket(bucket).events for bucket in log.buckets]


@given(st.integers(0, 2**32), st.sampled_from([1000, 200, 60, 1]), st.integers(20, 500), st.booleans())
@settings(max_examples=12, deadline=None)
def test_canonical_events_do_not_depend_on_buckets(
    tmp_path_factory: pytest.TempPathFactory, seed: int, size: int, batch: int, derived: bool
) -> None:
    folder = tmp_path_factory.mktemp("buckets")
    whole = canonicalise(raw(seed, derived))
    log = canonicalise_bucketed(passing_of(raw(seed, derived)), folder, bucket_events=size, batch_rows=batch)
    assert log.counts == whole.counts
    assert log.items.equals(whole.items)
    assert pl.concat(parts_of(log)).equals(whole.events)  # in order, one behind another
    users = whole.events["user_id"].n_unique()
    assert len(log.buckets) == {1000: 1, 1: users}.get(size, len(log.buckets))
    assert (len(log.buckets) > 1) == (size < 1000)
    assert all(one["user_id"].max() < other["user_id"].min() for one, other in pairwise(parts_of(log)))
    assert not list((folder / "parts").rglob("*.parquet"))


def test_a_file_is_cut_between_users(tmp_path: Path) -> None:
    log = canonicalise(raw(7))
    write_parquet(log.events, tmp_path / "events.parquet")
    for size in (1, 50, 120, 10_000):
        buckets = buckets_in(tmp_path / "events.parquet", size)
        parts = [read_parquet(one.path, start=one.start, rows=one.rows) for one in buckets]
        assert pl.concat(parts).equals(log.events)
        assert all(one["user_id"].max() < other["user_id"].min() for one, other in pairwise(parts))
        largest = log.codes.lengths.max()
        assert all(len(part) <= max(1.5 * size, size + largest) for part in parts)
        assert len(buckets) == {1: len(log.codes.users), 10_000: 1}.get(size, len(buckets))


@pytest.mark.parametrize("policy", ["uniform", "popularity", "matched", "retrieved"])
@pytest.mark.parametrize("size", [10_000, 150, 1])
def test_tables_and_counts_do_not_depend_on_buckets(tmp_path: Path, policy: str, size: int) -> None:
    for seed, split in ((1, SHARES), (2, factory.small_config().split)):
        config = factory.small_config(policy, split=split, targets_per_user=3, history_min=2, discovery_only=seed == 1)
        log = canonicalise(raw(seed))
        whole, counts = build_examples(log, config, VECTORS)
        seen = whole.filter(pl.col("split") != "test")
        slates = draw_slates(seen, log, config.slate, 3, config.seed, VECTORS)
        folder = tmp_path / str(seed)
        bucketed = canonicalise_bucketed(passing_of(raw(seed)), folder / "logs", bucket_events=size, batch_rows=150)
        assert write_tables(bucketed, config, 3, folder / "examples", VECTORS) == counts
        assert len(whole) > 15 and len(slates)
        assert read_parquet(folder / "examples" / "examples.parquet").equals(whole)
        assert read_parquet(folder / "examples" / "slates.parquet").equals(slates)
        assert pl.concat([part for part, _ in examples_by_bucket(bucketed, config, VECTORS)]).equals(whole)


def test_tables_too_large_for_one_piece_hold_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = canonicalise_bucketed(passing_of(raw(1)), tmp_path / "logs", bucket_events=60)
    config = factory.small_config("matched", split=SHARES, history_min=2)
    write_tables(log, config, 2, tmp_path / "whole")
    monkeypatch.setattr("recsys.storage.WHOLE_ROWS", 0)
    write_tables(log, config, 2, tmp_path / "joined")
    for name in ("examples.parquet", "slates.parquet"):
        one, other = (read_parquet(tmp_path / folder / name) for folder in ("whole", "joined"))
        assert one.equals(other) and one.schema == other.schema and len(one)


@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=12, deadline=None)
def test_statistics_of_buckets_are_those_of_the_log(
    tmp_path_factory: pytest.TempPathFactory, seed: int, first: float, second: float
) -> None:
    shares = [f"{100 * share:.6f}%" for share in sorted((first, second))]
    split = SplitConfig(train=0.5, validation=0.0, test=0.5, train_until=shares[0], validate_until=shares[1])
    config = factory.small_config(split=split)
    log = canonicalise_bucketed(
        passing_of(raw(seed)), tmp_path_factory.mktemp("buckets"), bucket_events=100, batch_rows=200
    )
    found, expected = global_statistics(log, config), statistics_of(canonicalise(raw(seed)), config)
    assert found.times == expected.times
    for name in ("days", "items", "counts"):
        assert np.array_equal(getattr(found.popularity, name), getattr(expected.popularity, name))


class Killed(Run):
    """An engine that dies when it has carried out so many tasks."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, function: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterator[Any]:
        for argument in arguments:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            yield function(argument)


def test_a_killed_canonicalisation_goes_on_from_its_bucket(tmp_path: Path) -> None:
    whole = canonicalise(raw(8))
    with pytest.raises(KeyboardInterrupt):
        canonicalise_bucketed(passing_of(raw(8)), tmp_path, Killed(2), bucket_events=60)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "events").iterdir()}
    assert len(done) == 2
    # What was dealt is not read again: without its events the log is still finished.
    unread = dataclasses.replace(raw(8), events=raw(8).events.filter(pl.lit(False)))
    log = canonicalise_bucketed(passing_of(unread), tmp_path, bucket_events=60)
    assert pl.concat(parts_of(log)).equals(whole.events) and log.counts == whole.counts
    assert {path: path.stat().st_mtime_ns for path in done} == done
    again = canonicalise_bucketed(passing_of(unread), tmp_path, bucket_events=60)
    assert again.counts == whole.counts and again.buckets == log.buckets


def test_killed_while_dealing_it_deals_again(tmp_path: Path) -> None:
    whole = canonicalise(raw(9))

    def read(columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        yield from passing_of(raw(9)).read(columns)
        if len(columns) > 1:
            raise KeyboardInterrupt

    write_parquet(messy_events(9).head(5), tmp_path / "parts" / "raw" / "00000" / "000000.parquet")
    with pytest.raises(KeyboardInterrupt):
        canonicalise_bucketed(dataclasses.replace(passing_of(raw(9)), read=read), tmp_path, bucket_events=60)
    log = canonicalise_bucketed(passing_of(raw(9)), tmp_path, bucket_events=60)
    assert pl.concat(parts_of(log)).equals(whole.events) and log.counts == whole.counts


def test_killed_examples_go_on_from_their_bucket(tmp_path: Path) -> None:
    config = factory.small_config("matched", split=factory.small_config().split, history_min=2)
    log = canonicalise_bucketed(passing_of(raw(1)), tmp_path / "logs", bucket_events=60)
    whole, counts = build_examples(canonicalise(raw(1)), config)
    with pytest.raises(KeyboardInterrupt):
        write_tables(log, config, 2, tmp_path, run=Killed(len(log.buckets) + 3))  # popularity, then three buckets
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*.json")}
    assert len(done) == 3 and not (tmp_path / "examples.parquet").exists()
    assert write_tables(log, config, 2, tmp_path) == counts
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert read_parquet(tmp_path / "examples.parquet").equals(whole)
    written = (tmp_path / "examples.parquet").stat().st_mtime_ns
    assert write_tables(log, config, 2, tmp_path) == counts  # killed before its stage was noted as done
    assert (tmp_path / "examples.parquet").stat().st_mtime_ns == written


def test_nothing_left_is_refused_once_for_all_buckets(tmp_path: Path) -> None:
    log = canonicalise_bucketed(passing_of(raw(5)), tmp_path / "log", bucket_events=20)
    config = factory.small_config(engaged=EngagedConfig(rating_at_least=9))
    with pytest.raises(InputError, match=r"no target is left.*'targets_engaged': 0"):
        write_tables(log, config, 1, tmp_path / "examples")
    nobody = dataclasses.replace(raw(5), events=raw(5).events.with_columns(user_id=pl.lit(None, pl.String)))
    with pytest.raises(InputError, match="nothing is left after cleaning"):
        canonicalise_bucketed(passing_of(nobody), tmp_path / "empty", bucket_events=50)


def test_refusals_name_the_folder_and_the_number(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    with pytest.raises(InputError, match="events: is there already"):
        canonicalise_bucketed(passing_of(raw(6)), tmp_path)
    with pytest.raises(InputError, match="at least one event"):
        canonicalise_bucketed(passing_of(raw(6)), tmp_path / "log", bucket_events=0)
    log = canonicalise_bucketed(passing_of(raw(6)), tmp_path / "log", bucket_events=100)
    with pytest.raises(InputError, match="a slate of 70 needs 69 negatives"):
        write_tables(log, factory.small_config(slate=SlateConfig(policy="uniform", size=70)), 1, tmp_path / "tables")
    late = factory.small_config(split=dataclasses.replace(SHARES, train_until="2020-02-02", validate_until="1%"))
    with pytest.raises(InputError, match="the first must lie before the second"):
        global_statistics(log, late)
    assert global_statistics(log, factory.small_config()).times[0] == factory.START + dt.timedelta(hours=40)
