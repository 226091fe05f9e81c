"""The canonical log in the folder of a logs stage: whole, for some users, or bucket by bucket.

Its events lie in `events.parquet`, or in the files of `events/` where they were written by bucket: the same rows in the
same order. Whoever reads a log here does not care which.
"""

from pathlib import Path

import polars as pl

from recsys.logs.bucketed_log import BUCKET_EVENTS, BucketedLog, buckets_in, event_files
from recsys.logs.engaged import EngagedConfig
from recsys.logs.tables import Log
from recsys.storage import read_json, read_parquet
from verbalize.config import build

EVENTS, BUCKETS, ITEMS = "events.parquet", "events", "items.parquet"
IMPRESSIONS, ENGAGED = "impressions.parquet", "engaged.json"


def scan_events(folder: Path) -> pl.LazyFrame:
    """All events, lazily, in order."""
    return pl.scan_parquet(_files(folder), glob=False)


def load_log(folder: Path, users: pl.Series | None = None) -> Log:
    """The canonical log a logs stage wrote; with `users`, the events and impressions of these alone, and the whole
    catalogue."""
    theirs = None if users is None else pl.col("user_id").is_in(users.unique().implode())
    parts = [read_parquet(path, where=theirs) for path in _files(folder)]
    events = parts[0] if len(parts) == 1 else pl.concat(parts, rechunk=True)
    shown = folder / IMPRESSIONS
    impressions = read_parquet(shown, where=theirs) if shown.is_file() else None
    return Log(events, read_parquet(folder / ITEMS), engaged=_engaged(folder), impressions=impressions)


def bucketed_log(folder: Path, tasks: int = 1) -> BucketedLog:
    """The same log in at least about `tasks` buckets."""
    events = scan_events(folder).select(pl.len()).collect().item()
    buckets = buckets_in(_events(folder), min(BUCKET_EVENTS, -(-events // tasks)))
    shown = str(folder / IMPRESSIONS) if (folder / IMPRESSIONS).is_file() else None
    return BucketedLog(buckets, read_parquet(folder / ITEMS), _engaged(folder), shown)


def _events(folder: Path) -> Path:
    return folder / BUCKETS if (folder / BUCKETS).is_dir() else folder / EVENTS


def _files(folder: Path) -> list[Path]:
    return event_files(_events(folder))


def _engaged(folder: Path) -> EngagedConfig | None:
    rule = read_json(folder / ENGAGED)
    return build(EngagedConfig, rule) if rule else None
