"""A log in buckets of whole users, on disk: canonicalised within bounded memory, whatever its size.

Users are dealt to buckets by a stable hash of their cleaned id. The raw events pass by once, in batches, each row going
to its bucket's files; then each bucket is canonicalised on its own, for nothing in `canonicalise` looks across users
but the catalogue, which is made first. The result is the canonical log, row for row, in another order of users.
"""

import functools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from recsys import contracts
from recsys.errors import InputError
from recsys.logs.codes import distinct
from recsys.logs.engaged import EngagedConfig
from recsys.logs.events import canonical_events, refuse_empty
from recsys.logs.items import clean_items, derived_items
from recsys.logs.popularity import Popularity, added, popularity
from recsys.logs.tables import Log, RawLog
from recsys.logs.text import clean
from recsys.seeding import stable_hashes
from recsys.storage import read_parquet, write_parquet

Given = TypeVar("Given")
Made = TypeVar("Made")
BATCH_ROWS = 2_000_000  # raw rows held at once while they are dealt


class Run:
    """How one function meets many arguments: an engine. This one takes them one after the other, in this process."""

    def __call__(self, function: Callable[[Given], Made], arguments: Iterable[Given]) -> Iterator[Made]:
        """Results in the order of the arguments."""
        return map(function, arguments)


@dataclass(frozen=True)
class BucketedLog:
    """A canonical log whose events lie in one Parquet file per bucket: whole users, ordered as in a `Log`.

    `popularity` is that of all buckets together. `counts`, `items` and `engaged` are as in a `Log`.
    """

    paths: tuple[str, ...]
    items: pl.DataFrame = field(repr=False)
    popularity: Popularity = field(repr=False)
    counts: dict[str, int]
    engaged: EngagedConfig | None = None

    def bucket(self, path: str) -> Log:
        """The log of one bucket's users."""
        return Log(read_parquet(path), self.items, engaged=self.engaged)


def canonicalise_bucketed(
    raw: RawLog, folder: Path | str, buckets: int, run: Run | None = None, batch_rows: int = BATCH_ROWS
) -> BucketedLog:
    """`canonicalise` in bounded memory: about that of `batch_rows` raw rows, then of one bucket's events.

    `raw.events` should be a scan: it is read in batches, once (twice where it carries the catalogue). `folder` must be
    empty or new, and reachable by every process of `run`. Raises InputError when nothing remains.
    """
    _check(raw, Path(folder), buckets)
    folder = Path(folder)
    counts: dict[str, int] = {}
    items, untitled = clean_items(_catalogue(raw, batch_rows) if raw.items is None else raw.items, counts)
    folders = [folder / "raw" / f"{number:05d}" for number in range(buckets)]
    read = _deal(raw.events, folders, batch_rows)
    task = functools.partial(_canonical_bucket, events=raw.events.collect_schema(), items=items, untitled=untitled)
    outputs = [str(folder / "events" / f"{number:05d}.parquet") for number in range(buckets)]
    done = list((run or Run())(task, list(zip(map(str, folders), outputs, strict=True))))
    shutil.rmtree(folder / "raw", ignore_errors=True)
    total = summed([part for part, _ in done])
    counts = {**counts, **total, "events_read": read, "items_kept": len(items)}
    refuse_empty(counts)
    return BucketedLog(tuple(outputs), items, added([part for _, part in done]), counts, raw.engaged)


def split_users(log: Log, buckets: int) -> list[Log]:
    """A log in memory as logs of some of its users each, all with the whole catalogue; a bucket without users is left
    out."""
    codes = log.codes
    places = bucket_of(codes.users, buckets)
    parts = []
    for number in range(buckets):
        mine = places == number
        if mine.any():
            events = log.events.filter(pl.Series(np.repeat(mine, codes.lengths)))
            part = replace(log, events=events, counts={}, known=None)
            if log.impressions is not None:
                users = codes.users.filter(pl.Series(mine))
                part = replace(part, impressions=log.impressions.filter(pl.col("user_id").is_in(users.implode())))
            parts.append(part)
    return parts


def bucket_of(users: pl.Series, buckets: int) -> np.ndarray:
    """The bucket of each user id, (U,) int64: a hash of the id alone."""
    return (stable_hashes("bucket", values=users) % np.uint64(buckets)).astype(np.int64)


def summed(parts: Sequence[dict[str, int]]) -> dict[str, int]:
    """Counts of parts, added up by name."""
    return {name: sum(part.get(name, 0) for part in parts) for name in dict.fromkeys(n for part in parts for n in part)}


def _canonical_bucket(
    paths: tuple[str, str], events: pl.Schema, items: pl.DataFrame, untitled: pl.Series
) -> tuple[dict[str, int], Popularity]:
    """Canonicalise one bucket's raw files into one file; what it dropped, and its popularity."""
    dealt = sorted(Path(paths[0]).glob("*.parquet"))
    held = pl.concat([read_parquet(path) for path in dealt], rechunk=True) if dealt else pl.DataFrame(schema=events)
    log = canonical_events(held, items, untitled, {}, RawLog(held.lazy(), items))
    write_parquet(log.events, paths[1])
    shutil.rmtree(paths[0], ignore_errors=True)
    return log.counts, popularity(log.codes, len(items))


def _deal(events: pl.LazyFrame, folders: list[Path], batch_rows: int) -> int:
    """Write each row to its user's bucket, keeping the order of rows; how many there were."""
    columns = [name for name in contracts.schema("events") if name in events.collect_schema()]
    for folder in folders:
        folder.mkdir(parents=True)
    read = 0
    for number, batch in enumerate(_batches(events.select(columns), batch_rows)):
        codes, table = distinct(batch["user_id"])
        names = table.select(clean(pl.col("text")).fill_null("")).to_series()  # no user: dropped later, and counted
        places = pl.Series("_bucket", bucket_of(names, len(folders)), pl.UInt16).gather(codes).fill_null(0)
        dealt = batch.with_columns(places).partition_by("_bucket", as_dict=True, include_key=False)
        for (bucket,), part in dealt.items():
            write_parquet(part, folders[int(str(bucket))] / f"{number:06d}.parquet")
        read += len(batch)
    return read


def _catalogue(raw: RawLog, batch_rows: int) -> pl.DataFrame:
    """`derived_items` of all batches: the first of the firsts."""
    held = [name for name in contracts.schema("items") if name in raw.events.collect_schema()]
    columns = [name for name in held if name != "available_from"]
    parts = [derived_items(batch) for batch in _batches(raw.events.select("event_time", *columns), batch_rows)]
    return derived_items(pl.concat(parts).rename({"available_from": "event_time"}))


def _batches(events: pl.LazyFrame, rows: int) -> Iterator[pl.DataFrame]:
    """At most `rows` rows at a time, in order; small batches of the source are joined."""
    held: list[pl.DataFrame] = []
    for batch in events.collect_batches(chunk_size=rows, maintain_order=True):
        held.append(batch)
        if sum(map(len, held)) >= rows:
            yield pl.concat(held, rechunk=True)
            held = []
    if held:
        yield pl.concat(held, rechunk=True)


def _check(raw: RawLog, folder: Path, buckets: int) -> None:
    if not 1 <= buckets <= 65_535:
        raise InputError(f"{buckets} buckets", "there are at least 1 and at most 65,535", "correct the number")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(str(folder), "holds files already", "give an empty or new folder")
    if raw.impressions is not None:
        raise InputError(
            "a source with impressions", "its slates are not kept by bucket", "canonicalise it in memory (engine local)"
        )


def loaded(log: BucketedLog, function: Callable[[Log], Any]) -> Callable[[str], Any]:
    """`function` of a bucket's log as a function of its path, for processes that share the files."""
    return functools.partial(_load_and_call, log=log, function=function)


def _load_and_call(path: str, log: BucketedLog, function: Callable[[Log], Any]) -> Any:
    return function(log.bucket(path))
