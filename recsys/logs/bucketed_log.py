"""A canonical log on disk, read a bucket of whole users at a time, whatever its size.

Its events lie in one file or in several, ordered by user, time and item throughout: the last user of a file comes
before the first of the next. A bucket is a stretch of rows of one file; a file with more is cut between users.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.logs.engaged import EngagedConfig
from recsys.logs.tables import Log
from recsys.storage import read_parquet

BUCKET_EVENTS = 4_000_000
"""About so many events are worked on at once, with four to five gigabytes; a user with more is not divided."""


@dataclass(frozen=True)
class Bucket:
    """The rows [start, start + rows) of a file of events: whole users."""

    path: str
    start: int
    rows: int

    def scan(self) -> pl.LazyFrame:
        """Its events, lazily."""
        return pl.scan_parquet(self.path, glob=False).slice(self.start, self.rows)


@dataclass(frozen=True)
class BucketedLog:
    """`buckets` in the order of their users. `items`, `engaged` and `counts` are as in a `Log`; `impressions` is the
    file of the whole log's, where it has some."""

    buckets: tuple[Bucket, ...]
    items: pl.DataFrame = field(repr=False)
    engaged: EngagedConfig | None = None
    impressions: str | None = None
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def events(self) -> int:
        """How many there are."""
        return sum(bucket.rows for bucket in self.buckets)

    def bucket(self, bucket: Bucket) -> Log:
        """The log of one bucket's users."""
        events = read_parquet(bucket.path, start=bucket.start, rows=bucket.rows)
        shown = None
        if self.impressions is not None:
            users = events["user_id"].unique().implode()
            shown = read_parquet(self.impressions, where=pl.col("user_id").is_in(users))
        return Log(events, self.items, engaged=self.engaged, impressions=shown)


def event_files(events: Path) -> list[Path]:
    """The files of `events` (one, or a folder of them) in the order of their users. Raises FileNotFoundError."""
    if events.is_dir():
        return sorted(path for path in events.glob("*.parquet") if not path.name.startswith("."))
    if not events.is_file():
        raise FileNotFoundError(events)
    return [events]


def buckets_in(events: Path, bucket_events: int = BUCKET_EVENTS) -> tuple[Bucket, ...]:
    """The buckets of canonical `events` (a file, or a folder of files), none of them empty: a file each, cut where it
    holds half as much again as `bucket_events`."""
    found = []
    for path in event_files(events):
        rows = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
        edges = [0, rows] if rows <= 1.5 * bucket_events else _between_users(path, rows, bucket_events)
        found += [Bucket(str(path), low, high - low) for low, high in itertools.pairwise(edges) if low < high]
    return tuple(found)


def loaded(log: BucketedLog, function: Callable[[Log], Any]) -> Callable[[Bucket], Any]:
    """`function` of a bucket's log as a function of the bucket, for processes that share the files."""
    return functools.partial(_load_and_call, log=log, function=function)


def _load_and_call(bucket: Bucket, log: BucketedLog, function: Callable[[Log], Any]) -> Any:
    return function(log.bucket(bucket))


def _between_users(path: Path, rows: int, bucket_events: int) -> list[int]:
    """Rows at which a user begins, about `bucket_events` apart, with 0 and `rows`."""
    user = pl.scan_parquet(path, glob=False).select("user_id").with_row_index("row")
    starts = user.filter(pl.col("user_id") != pl.col("user_id").shift()).select("row").collect(engine="streaming")
    firsts = np.append(0, starts["row"].to_numpy())
    wanted = np.searchsorted(firsts, np.arange(0, rows, bucket_events), side="right") - 1
    return [*np.unique(firsts[wanted]).tolist(), rows]
