"""Compaction and forgetting: buckets written again, with the same rows or without some users'."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from recsys.logs.store.manifest import Manifest, collect, commit
from recsys.logs.store.tables import LAYERS, ROWS_PER_FILE, Additions, Files, buckets_of
from recsys.logs.store.writing import writing
from recsys.logs.text import clean
from recsys.seeding import stable_hash


def compact(root: Path, seen: set[str], min_files: int) -> int:
    """Fold the small files of every bucket that has at least `min_files` of a kind. Returns how many files fewer."""
    with writing(root, seen) as (before, files, additions):
        dropped: set[str] = set()
        for bucket in range(before.buckets):
            events = before.of("events", bucket)
            if sum(entry.rows < ROWS_PER_FILE // 2 for entry in events.values()) >= min_files:
                additions.events(files.events([bucket]))
                dropped |= set(events)
            if len(before.of("examples", bucket)) + len(before.of("replaced", bucket)) >= min_files:
                additions.examples(files.layers("examples", bucket), files.layers("texts", bucket))
                dropped |= {name for kind in LAYERS for name in before.of(kind, bucket)}
        if dropped:
            kept = {name: entry for name, entry in before.files.items() if name not in dropped}
            commit(root, before, replace(before, files=kept | additions.files))
        return len(dropped) - len(additions.files)


def forget(root: Path, seen: set[str], users: Sequence[str]) -> dict[str, int]:
    """Write the users' buckets again without them and delete every older file. Returns the rows removed by table."""
    with writing(root, seen) as (before, files, additions):
        ids = cleaned_ids(users)
        removed = rows_of(files, ids)
        dropped: set[str] = set()
        for bucket in _buckets(ids, before):
            dropped |= {name for name, entry in before.files.items() if entry.bucket == bucket}
            _write_without(bucket, ids, files, additions)
        kept = {name: entry for name, entry in before.files.items() if name not in dropped}
        known = tuple(sorted({*before.forgotten, *(keyed(before, user) for user in ids)}))
        after = commit(root, before, replace(before, files=kept | additions.files, forgotten=known), keep=False)
        # A kill here leaves files that no generation names; the next writer collects them, `forget` again included.
        collect(root, after)
        return removed


def rows_of(files: Files, ids: pl.Series) -> dict[str, int]:
    """Rows of these users by table."""
    buckets = _buckets(ids, files.manifest)
    if not buckets:
        return {"events": 0, "examples": 0, "texts": 0}
    examples = pl.concat([files.layers("keys", bucket) for bucket in buckets])
    examples = examples.filter(pl.col("user_id").is_in(ids.implode()))
    texts = pl.concat([files.layers("texts", bucket) for bucket in buckets])
    return {
        "events": len(files.events(buckets, ids)),
        "examples": len(examples),
        "texts": len(texts.join(examples, on="example_id", how="semi")),
    }


def not_forgotten(events: pl.DataFrame, manifest: Manifest, counts: dict[str, int]) -> pl.DataFrame:
    """A batch without the events of users who were forgotten, which are counted."""
    if not manifest.forgotten or "user_id" not in events.columns:
        return events
    users = events.select(pl.col("user_id").unique()).with_columns(clean(pl.col("user_id")).alias("id"))
    refused = [raw for raw, user in users.iter_rows() if user and keyed(manifest, user) in manifest.forgotten]
    kept = events.filter(~pl.col("user_id").is_in(refused).fill_null(False))
    counts["events_of_forgotten_users_dropped"] = len(events) - len(kept)
    return kept


def cleaned_ids(users: Sequence[str]) -> pl.Series:
    """Distinct ids as the store holds them."""
    ids = pl.DataFrame({"user_id": pl.Series(list(users), dtype=pl.String)}).select(clean(pl.col("user_id")))
    return ids["user_id"].drop_nulls().unique()


def keyed(manifest: Manifest, user: str) -> str:
    """What the store keeps of a forgotten id."""
    return f"{stable_hash('forgotten', manifest.salt, user):016x}"


def _buckets(ids: pl.Series, manifest: Manifest) -> list[int]:
    return sorted(set(buckets_of(ids, manifest.buckets)["bucket"]))


def _write_without(bucket: int, ids: pl.Series, files: Files, additions: Additions) -> None:
    others = ~pl.col("user_id").is_in(ids.implode())
    additions.events(files.events([bucket]).filter(others))
    additions.examples(files.layers("examples", bucket).filter(others), files.layers("texts", bucket))
