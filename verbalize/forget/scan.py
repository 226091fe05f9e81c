"""Where an id still stands: every value of every Parquet, JSON, JSON-lines and SQLite file below some folders.

A value counts as the user wherever it stands under a name of users or examples (`user_id`, `users`, `example_id`, ...).
Short ids are also item ids or titles: equal texts under other names are told apart, by name, for a person to judge;
numbers count under the names of users only, or every count in a manifest would be somebody. Files of other kinds
(weights, pictures, pages) are not read; they are counted by suffix.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from recsys.storage import read_json, read_parquet
from verbalize.forget.rows import DATABASES, READABLE, Subject, lines_of

PERSONAL = frozenset({"user_id", "user", "users", "user_ids", "example_id", "example", "examples", "example_ids"})
NUMBERED = frozenset({"user_id", "user", "user_ids"})


@dataclass(frozen=True)
class Found:
    """`remaining` and `elsewhere`: "file: name" -> how many values. `unread`: suffix -> how many files."""

    remaining: dict[str, int] = field(default_factory=dict)
    elsewhere: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)


def scan(folders: Iterable[Path], subject: Subject) -> Found:
    """Look for the subject's ids in every file below the folders."""
    ids = subject.users | subject.examples
    remaining: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    for path in sorted({path for folder in folders for path in folder.rglob("*") if path.is_file()}):
        if path.suffix not in READABLE:
            unread[path.suffix or path.name] += 1
            continue
        for name, count in _values(path, ids):
            target = remaining if _last(name) in PERSONAL else elsewhere
            target[f"{path}: {name}"] += count
    return Found(dict(remaining), dict(elsewhere), dict(unread))


def _values(path: Path, ids: frozenset[str]) -> Iterator[tuple[str, int]]:
    """(name of the column or key, how many of its values are one of `ids`)."""
    if path.suffix == ".parquet":
        frame = read_parquet(path)
        for name in frame.columns:
            yield from _in_column(name, frame[name], ids)
    elif path.suffix in DATABASES:
        yield from _in_database(path, ids)
    else:
        for value in [read_json(path)] if path.suffix == ".json" else lines_of(path):
            yield from _in_json("", value, ids)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _in_column(name: str, values: pl.Series, ids: frozenset[str]) -> Iterator[tuple[str, int]]:
    if isinstance(values.dtype, pl.List):
        yield from _in_column(name, values.explode().drop_nulls(), ids)
    elif isinstance(values.dtype, pl.Struct):
        for field_ in values.struct.fields:
            yield from _in_column(f"{name}.{field_}", values.struct.field(field_), ids)
    elif values.dtype == pl.String or (values.dtype.is_integer() and _last(name) in NUMBERED):
        count = int(values.cast(pl.String).is_in(sorted(ids)).sum())
        if count:
            yield name, count


def _in_json(name: str, value: Any, ids: frozenset[str]) -> Iterator[tuple[str, int]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ids:
                yield f"{name or '(top)'}.(keys)", 1
            yield from _in_json(f"{name}.{key}".lstrip("."), item, ids)
    elif isinstance(value, list):
        for item in value:
            yield from _in_json(name, item, ids)
    elif (isinstance(value, str) or (isinstance(value, int) and _last(name) in NUMBERED)) and str(value) in ids:
        yield name or "(top)", 1
    elif isinstance(value, str) and value[:1] in "{[":
        try:  # JSON written into a value, such as a chat
            yield from _in_json(name, json.loads(value), ids)
        except json.JSONDecodeError:
            return


def _in_database(path: Path, ids: frozenset[str]) -> Iterator[tuple[str, int]]:
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for column in [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]:
                wanted = ", ".join("?" * len(ids))
                texts = "1" if column in NUMBERED else f"typeof(\"{column}\") = 'text'"
                query = f'SELECT count(*) FROM "{table}" WHERE {texts} AND CAST("{column}" AS TEXT) IN ({wanted})'
                count = database.execute(query, sorted(ids)).fetchone()[0]
                if count:
                    yield f"{table}.{column}", count
    finally:
        database.close()
