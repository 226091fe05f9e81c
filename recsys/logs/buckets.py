"""A raw log of any size made canonical within bounded memory: in buckets of whole users, on disk.

The raw events pass by once to find ranges of users with about equally many events (`user_ranges`), and once more to be
dealt out, each row to the files of its user's range. Then each bucket is canonicalised on its own, for nothing in
`canonicalise` looks across users but the catalogue, which is made first. The result is the canonical log, row for row:
the buckets one behind another.
"""

import functools
import shutil
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from recsys import contracts
from recsys.errors import InputError
from recsys.logs.batches import BATCH_ROWS, batches, derived_catalogue
from recsys.logs.bucketed_log import BUCKET_EVENTS, BucketedLog, buckets_in
from recsys.logs.codes import distinct
from recsys.logs.engines import Run
from recsys.logs.events import canonical_events, refuse_empty
from recsys.logs.items import clean_items
from recsys.logs.tables import PassingLog, RawLog
from recsys.logs.user_ranges import cut_users, named, range_of
from recsys.storage import read_json, read_parquet, write_json, write_parquet

EVENTS, PARTS = "events", "parts"
_DEALT = "dealt.json"
_MOST_BUCKETS = 65_535


def canonicalise_bucketed(
    raw: PassingLog,
    folder: Path | str,
    run: Run | None = None,
    bucket_events: int = BUCKET_EVENTS,
    batch_rows: int = BATCH_ROWS,
) -> BucketedLog:
    """`canonicalise` in bounded memory: about that of `batch_rows` raw rows, then of one bucket's events, always with
    the catalogue. Writes FOLDER/events/NNNNN.parquet.

    The events are read twice, three times where they carry the catalogue. FOLDER/parts holds the work, and afterwards
    counts only: a call with the same arguments goes on from the bucket that a killed one had reached. Every process of
    `run` must reach the folder. Raises InputError when nothing remains, and for a folder that holds events of others.
    """
    folder = Path(folder)
    _check(folder, bucket_events)
    counts: dict[str, int] = {}
    given = derived_catalogue(raw, batch_rows) if raw.items is None else raw.items
    items, untitled = clean_items(given, counts)
    dealt = _dealt(raw, folder, bucket_events, batch_rows)
    task = functools.partial(_canonical_bucket, events=raw.schema, items=items, untitled=untitled)
    numbers = [(str(folder), number) for number in range(dealt["buckets"])]
    counts |= summed((run or Run())(task, numbers))
    counts |= {"events_read": dealt["rows"], "items_kept": len(items)}
    refuse_empty(counts)
    return BucketedLog(buckets_in(folder / EVENTS, bucket_events), items, raw.engaged, None, raw.counts | counts)


def summed(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counts of parts, added up by name.

    >>> summed([{"read": 2}, {"read": 3, "dropped": 1}])
    {'read': 5, 'dropped': 1}
    """
    total: dict[str, int] = {}
    for part in parts:
        total |= {name: total.get(name, 0) + count for name, count in part.items()}
    return total


def _dealt(raw: PassingLog, folder: Path, bucket_events: int, batch_rows: int) -> dict[str, int]:
    """Deal the rows out, unless a killed call has; how many rows and buckets there are."""
    note = folder / PARTS / _DEALT
    if not note.exists():
        shutil.rmtree(folder / PARTS, ignore_errors=True)
        ids = (batch["user_id"] for batch in batches(raw, ["user_id"], batch_rows))
        cuts, rows = cut_users(ids, bucket_events)
        if len(cuts) >= _MOST_BUCKETS:
            raise InputError(
                f"{rows} events in buckets of {bucket_events}",
                f"are more than {_MOST_BUCKETS} buckets",
                "use larger buckets",
            )
        _deal(raw, folder, cuts, batch_rows)
        write_json({"rows": rows, "buckets": len(cuts) + 1}, note)
    found: dict[str, int] = read_json(note)
    return found


def _deal(raw: PassingLog, folder: Path, cuts: pl.Series, batch_rows: int) -> None:
    """Write each row to the files of its user's range, keeping the order of rows."""
    columns = [name for name in contracts.schema("events") if name in raw.schema]
    for number, batch in enumerate(batches(raw, columns, batch_rows)):
        codes, table = distinct(batch["user_id"])
        places = range_of(named(table), cuts).gather(codes).fill_null(0).alias("_bucket")
        dealt = batch.with_columns(places).partition_by("_bucket", as_dict=True, include_key=False)
        for (bucket,), part in dealt.items():
            write_parquet(part, _raw(folder, int(str(bucket))) / f"{number:06d}.parquet")


def _canonical_bucket(
    place: tuple[str, int], events: pl.Schema, items: pl.DataFrame, untitled: pl.Series
) -> dict[str, int]:
    """Canonicalise one bucket's raw files into one file, unless a killed call has; what it dropped."""
    folder, number = Path(place[0]), place[1]
    note = folder / PARTS / f"{number:05d}.json"
    if not note.exists():
        dealt = sorted(_raw(folder, number).glob("*.parquet"))
        held = pl.concat([read_parquet(path) for path in dealt], rechunk=True) if dealt else pl.DataFrame(schema=events)
        log = canonical_events(held, items, untitled, {}, RawLog(held.lazy(), items))
        write_parquet(log.events, folder / EVENTS / f"{number:05d}.parquet")
        write_json(log.counts, note)
    shutil.rmtree(_raw(folder, number), ignore_errors=True)
    found: dict[str, int] = read_json(note)
    return found


def _raw(folder: Path, number: int) -> Path:
    return folder / PARTS / "raw" / f"{number:05d}"


def _check(folder: Path, bucket_events: int) -> None:
    if bucket_events < 1:
        raise InputError(f"bucket_events {bucket_events}", "a bucket holds at least one event", "correct the number")
    if (folder / EVENTS).exists() and not (folder / PARTS).exists():
        raise InputError(str(folder / EVENTS), "is there already", "give a folder without one")
