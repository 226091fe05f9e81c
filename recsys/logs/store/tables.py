"""Reading and writing a store's tables: rows by user bucket, examples as layers of which the newest counts.

Examples and texts are written as what changed: a layer holds the new rows and lists the example ids of older layers
that it replaces or removes (`replaced`). Reading takes from each layer the rows that no newer layer lists. `keys`
say again whose each example is, so that an append opens no histories. Compaction folds a bucket's layers into one.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from recsys import contracts
from recsys.logs.store.manifest import DataFile, Manifest, checked, describe
from recsys.seeding import stable_hashes
from recsys.storage import read_parquet, write_parquet

ROWS_PER_FILE = 500_000
"""Consecutive days of a bucket share a file up to so many rows; a day is never divided."""
TEXT_SCHEMA = pl.Schema({"example_id": pl.String, "verbalizer": pl.String, "text": pl.String})
LAYERS = ("examples", "keys", "texts", "replaced")
_SCHEMAS = {
    "texts": TEXT_SCHEMA,
    "keys": pl.Schema({"example_id": pl.String, "user_id": pl.String}),
    "replaced": pl.Schema({"example_id": pl.String}),
}


def buckets_of(users: pl.Series, buckets: int) -> pl.DataFrame:
    """user_id and bucket (Int32) of each distinct user; the bucket depends on the id alone."""
    distinct = users.unique()
    places = (stable_hashes("bucket", values=distinct) % np.uint64(buckets)).astype(np.int32)
    return pl.DataFrame({"user_id": distinct, "bucket": places})


class Files:
    """The files of one generation under `root`. `seen` remembers which of them were compared with their checksums."""

    def __init__(self, root: Path, manifest: Manifest, seen: set[str]) -> None:
        self.root, self.manifest, self.seen = root, manifest, seen

    def path(self, name: str) -> Path:
        """A file's path, its content checked. Raises CorruptFileError, FileNotFoundError (overtaken by commits)."""
        return checked(self.root, name, self.manifest.files[name], self.seen)

    def events(self, buckets: Iterable[int], users: pl.Series | None = None) -> pl.DataFrame:
        """Delivered events of these buckets, of `users` only where given; in no order."""
        names = [name for bucket in buckets for name in self.manifest.of("events", bucket)]
        wanted = pl.lit(True) if users is None else pl.col("user_id").is_in(users.implode())
        return self._concat(names, "events", wanted)

    def of_items(self, items: list[str]) -> pl.DataFrame:
        """user_id and event_time of every delivered event of these items."""
        names = self.manifest.of("events") if items else {}
        return self._concat(names, "events", pl.col("item_id").is_in(items), ["user_id", "event_time"])

    def layers(self, kind: str, bucket: int) -> pl.DataFrame:
        """The rows of `kind` (examples, keys, texts) of a bucket that count, in no order."""
        replaced = {
            entry.generation: self._concat([name], "replaced", pl.lit(True))
            for name, entry in self.manifest.of("replaced", bucket).items()
        }
        parts, newest_first = [], sorted(self.manifest.of(kind, bucket).items(), key=lambda pair: -pair[1].generation)
        for name, entry in newest_first:
            rows = self._concat([name], kind, pl.lit(True))
            newer = [ids for generation, ids in replaced.items() if generation > entry.generation]
            parts.append(rows.join(pl.concat(newer), on="example_id", how="anti") if newer else rows)
        return pl.concat(parts) if parts else self._empty(kind, None)

    def table(self, kind: str) -> dict[str, pl.DataFrame]:
        """Whole tables of `kind` by name: items, and the tables of the reference."""
        names = self.manifest.of(kind)
        return {Path(name).stem.split(".")[0]: read_parquet(self.path(name)) for name in names}

    def _concat(
        self, names: Iterable[str], kind: str, wanted: pl.Expr, columns: list[str] | None = None
    ) -> pl.DataFrame:
        scans = []
        for name in names:
            scan = pl.scan_parquet(self.path(name)).filter(wanted)
            scans.append(scan if columns is None else scan.select(columns))
        if not scans:
            return self._empty(kind, columns)
        frame = pl.concat(scans, how="diagonal").collect()
        # Files of an older contract lack its newer columns.
        return frame if columns or kind in _SCHEMAS else contracts.conform(frame, kind)

    def _empty(self, kind: str, columns: list[str] | None) -> pl.DataFrame:
        frame = pl.DataFrame(schema=_SCHEMAS[kind]) if kind in _SCHEMAS else contracts.empty(kind)
        return frame.select(columns) if columns else frame


class Additions:
    """Files of the generation being made: written now, part of the store at the commit."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root, self.generation, self.buckets = root, manifest.generation + 1, manifest.buckets
        self.files: dict[str, DataFile] = {}

    def events(self, events: pl.DataFrame) -> None:
        """Write events by bucket and day."""
        for bucket, rows in _by_bucket(events, self.buckets):
            rows = rows.with_columns(pl.col("event_time").dt.epoch("d").cast(pl.Int32).alias("day"))
            for first, last, part in _day_ranges(rows.sort("day", "user_id", "event_time")):
                part = part.drop("day").sort("user_id", "event_time", "item_id")
                place = {"bucket": bucket, "first_day": first, "last_day": last}
                self._write(part, "events", f"b{bucket:04d}/d{first}-{last}", **place)

    def examples(self, examples: pl.DataFrame, texts: pl.DataFrame | None) -> None:
        """Write examples, and those of `texts` that are theirs, by bucket."""
        owners = examples.select(_SCHEMAS["keys"].names())
        for bucket, rows in _by_bucket(examples, self.buckets):
            self._write(rows, "examples", f"b{bucket:04d}/", bucket=bucket)
            self._write(rows.select(owners.columns), "keys", f"b{bucket:04d}/", bucket=bucket)
        if texts is not None:
            owned = texts.join(owners, on="example_id", maintain_order="left")
            for bucket, rows in _by_bucket(owned, self.buckets):
                self._write(rows.select(TEXT_SCHEMA.names()), "texts", f"b{bucket:04d}/", bucket=bucket)

    def replaced(self, ids: pl.DataFrame) -> None:
        """Note example ids (with their user_id) whose rows in older layers no longer count."""
        for bucket, rows in _by_bucket(ids, self.buckets):
            self._write(rows.select("example_id"), "replaced", f"b{bucket:04d}/", bucket=bucket)

    def table(self, frame: pl.DataFrame, kind: str, name: str) -> None:
        """Write a whole table."""
        self._write(frame, kind, f"{name}.")

    def _write(self, rows: pl.DataFrame, kind: str, place: str, **where: int) -> None:
        if rows.is_empty() and kind not in ("items", "reference"):
            return
        name = f"{kind}/{place}g{self.generation:06d}.parquet"
        write_parquet(rows, self.root / name)
        self.files[name] = describe(self.root / name, kind, len(rows), self.generation, **where)


def _by_bucket(rows: pl.DataFrame, buckets: int) -> Iterator[tuple[int, pl.DataFrame]]:
    """Rows of each bucket that has some, in the order of the buckets, each in the order given."""
    if rows.is_empty():
        return
    placed = rows.join(buckets_of(rows["user_id"], buckets), on="user_id", how="left", maintain_order="left")
    parts = placed.partition_by("bucket", as_dict=True, include_key=False)
    for (bucket,), part in sorted(parts.items()):
        yield int(bucket), part


def _day_ranges(rows: pl.DataFrame) -> Iterator[tuple[int, int, pl.DataFrame]]:
    """(first day, last day, rows) of consecutive whole days with at most `ROWS_PER_FILE` rows, a full day alone."""
    days = rows.group_by("day", maintain_order=True).len()
    start, first, size, last = 0, None, 0, 0
    for day, count in days.iter_rows():
        if first is not None and size + count > ROWS_PER_FILE:
            yield first, last, rows.slice(start, size)
            start, first, size = start + size, None, 0
        first = day if first is None else first
        last, size = day, size + count
    if first is not None:
        yield first, last, rows.slice(start, size)
