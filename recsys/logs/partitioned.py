"""Examples of a log by buckets of users: the same tables in bounded memory, or on many machines.

What an example needs of other users is small and global: the split times and the popularity by day (`Statistics`, and
item vectors where slates are retrieved). It is computed first; then each bucket of users is worked on alone
(`bucket_examples`), by whatever engine runs the function over the buckets. The tables are equal to those of
`build_examples` and `draw_slates` for any number of buckets and any engine.
"""

import datetime as dt
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from recsys.logs.bucketed_log import Bucket, BucketedLog, loaded
from recsys.logs.buckets import PARTS, summed
from recsys.logs.coded import DAY_US
from recsys.logs.engines import Run
from recsys.logs.examples import ExamplesConfig, Statistics, bucket_examples, refuse_no_examples
from recsys.logs.popularity import Popularity, added
from recsys.logs.slates import ItemVectors, draw_counted
from recsys.logs.splits import split_times_at
from recsys.storage import join_parquet, read_json, write_json, write_parquet

TABLES = ("examples.parquet", "slates.parquet")


def total_popularity(log: BucketedLog, run: Run | None = None) -> Popularity:
    """The popularity of the whole log: a pass over items and times."""
    items = log.items.select("item_id").with_row_index("item")
    return added(list((run or Run())(functools.partial(_popularity, items=items), log.buckets)))


def global_statistics(log: BucketedLog, config: ExamplesConfig, run: Run | None = None) -> Statistics:
    """`Statistics` of all buckets. A split time given as a share costs a pass over the events of one day."""
    touched = total_popularity(log, run)
    days, events = touched.by_day()
    ends = np.cumsum(events)

    def at(share: float) -> dt.datetime:
        place = int((int(ends[-1]) - 1) * share)  # as pl.Series.quantile with interpolation "lower"
        day = int(np.searchsorted(ends, place, side="right"))
        parts = (run or Run())(functools.partial(_times_on, day=int(days[day])), log.buckets)
        times = np.concatenate(list(parts))
        within = place - (int(ends[day]) - int(events[day]))
        return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(
            microseconds=int(np.partition(times, within)[within])
        )

    return Statistics(split_times_at(at, config.split), touched)


def examples_by_bucket(
    log: BucketedLog, config: ExamplesConfig, vectors: ItemVectors | None = None, run: Run | None = None
) -> Iterator[tuple[pl.DataFrame, dict[str, int]]]:
    """(examples, counts) of one bucket after the other; some may hold none. Nothing is kept: the caller writes them."""
    statistics = global_statistics(log, config, run)
    work = functools.partial(bucket_examples, statistics=statistics, config=config, vectors=vectors)
    return (run or Run())(loaded(log, work), log.buckets)


def write_tables(
    log: BucketedLog,
    config: ExamplesConfig,
    n_slates: int,
    folder: Path,
    vectors: ItemVectors | None = None,
    run: Run | None = None,
) -> dict[str, int]:
    """Write FOLDER/examples.parquet (of `build_examples`) and FOLDER/slates.parquet (`draw_slates`: `n_slates` redrawn
    ones of each example that is not a test user's); returns the counts. Neither table has to fit in memory.

    Each bucket's share goes to FOLDER/parts first; a call with the same arguments goes on from those that a killed one
    finished. Every process of `run` must reach the folder. Raises InputError when no example is left.
    """
    parts, tables = folder / PARTS, [folder / name for name in TABLES]
    notes = [parts / f"{Path(one.path).stem}-{one.start}-{one.rows}.json" for one in log.buckets]
    if all(path.exists() for path in (*tables, *notes)):
        return summed(read_json(note) for note in notes)
    statistics = global_statistics(log, config, run)
    work = functools.partial(
        _write_part, log=log, statistics=statistics, config=config, n_slates=n_slates, vectors=vectors
    )
    counts = summed((run or Run())(work, list(zip(log.buckets, map(str, notes), strict=True))))
    refuse_no_examples(counts, config, log.engaged, log.events)
    for table in tables:
        join_parquet([_part(note, table.name) for note in notes], table)
    for part in parts.glob("*.parquet"):
        part.unlink()
    return counts


def _write_part(
    place: tuple[Bucket, str],
    log: BucketedLog,
    statistics: Statistics,
    config: ExamplesConfig,
    n_slates: int,
    vectors: ItemVectors | None,
) -> dict[str, int]:
    """Write the tables of one bucket, then its counts, unless a killed call has."""
    bucket, note = place[0], Path(place[1])
    if not note.exists() or not all(_part(note, name).exists() for name in TABLES):
        held = log.bucket(bucket)
        examples, counts = bucket_examples(held, statistics, config, vectors)
        seen = examples.filter(pl.col("split") != "test")
        slates, _ = draw_counted(seen, held, config.slate, n_slates, config.seed, vectors, statistics.popularity)
        for name, table in zip(TABLES, (examples, slates), strict=True):
            write_parquet(table.rechunk(), _part(note, name))
        write_json(counts, note)
    found: dict[str, int] = read_json(note)
    return found


def _part(note: Path, table: str) -> Path:
    return note.with_name(f"{note.stem}-{table}")


def _popularity(bucket: Bucket, items: pl.DataFrame) -> Popularity:
    """Events of a bucket by day and item; `items` holds item_id and item, the row of the catalogue."""
    day = pl.col("event_time").dt.epoch("us").floordiv(DAY_US)
    cells = bucket.scan().select("item_id", day.alias("day")).group_by("item_id", "day").len()
    found = cells.join(items.lazy(), on="item_id").select("day", "item", "len").sort("day", "item").collect()
    return Popularity(
        found["day"].to_numpy(), found["item"].to_numpy(), found["len"].cast(pl.Int64).to_numpy(), len(items)
    )


def _times_on(bucket: Bucket, day: int) -> np.ndarray:
    """The times of a bucket's events on one day, int64 microseconds."""
    times = bucket.scan().select(pl.col("event_time").dt.epoch("us").alias("time"))
    wanted = pl.col("time").is_between(day * DAY_US, (day + 1) * DAY_US, closed="left")
    return times.filter(wanted).collect()["time"].to_numpy()
