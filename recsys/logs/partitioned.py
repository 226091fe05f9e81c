"""Examples of a log by buckets of users: the same tables in bounded memory, or on many machines.

What an example needs of other users is small and global: the split times and the popularity by day (`Statistics`, and
item vectors where slates are retrieved). It is computed first; then each bucket of users is worked on alone
(`bucket_examples`), by whatever engine runs the function over the buckets. The tables are equal to those of
`build_examples` for any number of buckets and any engine.
"""

import datetime as dt
import functools
from collections.abc import Callable, Iterator

import numpy as np
import polars as pl

from recsys.logs.buckets import BucketedLog, Run, loaded, split_users, summed
from recsys.logs.coded import DAY_US
from recsys.logs.examples import (
    ExamplesConfig,
    Statistics,
    bucket_examples,
    refuse_no_examples,
    statistics_of,
)
from recsys.logs.slates import ItemVectors, draw_counted
from recsys.logs.splits import split_times_at
from recsys.logs.tables import Log

Tables = tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]


def global_statistics(log: BucketedLog, config: ExamplesConfig, run: Run | None = None) -> Statistics:
    """`Statistics` of all buckets. A split time given as a share costs a pass over the events of one day."""
    days, events = log.popularity.by_day()
    ends = np.cumsum(events)

    def at(share: float) -> dt.datetime:
        place = int((int(ends[-1]) - 1) * share)  # as pl.Series.quantile with interpolation "lower"
        day = int(np.searchsorted(ends, place, side="right"))
        parts = (run or Run())(functools.partial(_times_on, day=int(days[day])), log.paths)
        times = np.concatenate(list(parts))
        within = place - (int(ends[day]) - int(events[day]))
        return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(
            microseconds=int(np.partition(times, within)[within])
        )

    return Statistics(split_times_at(at, config.split), log.popularity)


def examples_by_bucket(
    log: BucketedLog,
    config: ExamplesConfig,
    vectors: ItemVectors | None = None,
    run: Run | None = None,
    statistics: Statistics | None = None,
) -> Iterator[tuple[pl.DataFrame, dict[str, int]]]:
    """(examples, counts) of one bucket after the other; some may hold none. Nothing is kept: the caller writes them."""
    statistics = statistics or global_statistics(log, config, run)
    work = functools.partial(bucket_examples, statistics=statistics, config=config, vectors=vectors)
    return (run or Run())(loaded(log, work), log.paths)


def build_examples_bucketed(
    log: BucketedLog, config: ExamplesConfig, vectors: ItemVectors | None = None, run: Run | None = None
) -> tuple[pl.DataFrame, dict[str, int]]:
    """`build_examples` by buckets: the same table and counts. The table itself must fit in memory; where it does not,
    write what `examples_by_bucket` yields."""
    parts = list(examples_by_bucket(log, config, vectors, run))
    counts = summed([part for _, part in parts])
    refuse_no_examples(counts, config, log.engaged, log.counts["events_kept"])
    return _by_user([examples for examples, _ in parts]), counts


def example_tables(
    log: Log, config: ExamplesConfig, n_slates: int, run: Run, buckets: int, vectors: ItemVectors | None = None
) -> Tables:
    """(examples, `n_slates` redrawn slates of each that is not a test user's, counts) of a log in memory, its users
    dealt over `buckets` tasks: equal to `build_examples` and `draw_slates`."""
    work: Callable[[Log], Tables] = functools.partial(
        _tables, statistics=statistics_of(log, config), config=config, n_slates=n_slates, vectors=vectors
    )
    parts = list(run(work, split_users(log, buckets)))
    counts = summed([part for _, _, part in parts])
    refuse_no_examples(counts, config, log.engaged, len(log.events))
    examples = _by_user([part for part, _, _ in parts])
    slates = pl.concat([part for _, part, _ in parts])
    place = examples.select("example_id").with_row_index("_place")
    slates = slates.join(place, on="example_id", how="left", maintain_order="left").sort("_place", maintain_order=True)
    return examples, slates.drop("_place").rechunk(), counts


def _tables(
    log: Log, statistics: Statistics, config: ExamplesConfig, n_slates: int, vectors: ItemVectors | None
) -> Tables:
    examples, counts = bucket_examples(log, statistics, config, vectors)
    seen = examples.filter(pl.col("split") != "test")
    slates, _ = draw_counted(seen, log, config.slate, n_slates, config.seed, vectors, statistics.popularity)
    return examples, slates, counts


def _by_user(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """One table in the order of a whole log: no user is in two parts, and each part is in order."""
    return pl.concat(parts).sort("user_id", maintain_order=True).rechunk()


def _times_on(path: str, day: int) -> np.ndarray:
    """The times of a bucket's events on one day, int64 microseconds."""
    times = pl.scan_parquet(path).select(pl.col("event_time").dt.epoch("us").alias("time"))
    return (
        times.filter(pl.col("time").is_between(day * DAY_US, (day + 1) * DAY_US, closed="left"))
        .collect()["time"]
        .to_numpy()
    )
