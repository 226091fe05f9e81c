"""Whose rows a file holds, and the same file without them: Parquet, JSON, JSON lines and SQLite.

A row is somebody's when it names the user (`user_id`) or one of the user's examples (`example_id`: a hash of user, item
and time, so it leads back to whoever has the log). In JSON every object with such a key is a row, however deep it lies.
"""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import CorruptFileError
from recsys.storage import read_json, read_parquet, replacing, write_json, write_parquet, write_text

USER, EXAMPLE = "user_id", "example_id"
DATABASES = (".sqlite", ".sqlite3", ".db")
READABLE = (".parquet", ".json", ".jsonl", *DATABASES)


@dataclass(frozen=True)
class Subject:
    """Who is forgotten: ids of users, and of all their examples."""

    users: frozenset[str]
    examples: frozenset[str] = frozenset()

    def owns(self, row: Any) -> bool:
        """Whether a JSON object is a row of theirs."""
        named = ((USER, self.users), (EXAMPLE, self.examples))
        return isinstance(row, dict) and any(str(row[name]) in ids for name, ids in named if name in row)

    def condition(self, columns: list[str]) -> pl.Expr:
        """Whether a table's row is theirs."""
        named = ((USER, self.users), (EXAMPLE, self.examples))
        found = [pl.col(name).cast(pl.String).is_in(sorted(ids)) for name, ids in named if name in columns]
        return pl.any_horizontal(pl.lit(False), *found).fill_null(False)


def rows_of(path: Path, subject: Subject) -> int:
    """How many rows of a file are the subject's; 0 for a file of another kind."""
    if path.suffix == ".parquet":
        frame = read_parquet(path)
        return int(frame.select(subject.condition(frame.columns).sum()).item())
    if path.suffix == ".json":
        return _pruned(read_json(path), subject)[1]
    if path.suffix == ".jsonl":
        return sum(_pruned(line, subject)[1] for line in lines_of(path))
    if path.suffix in DATABASES:
        with _connected(path) as database:
            owned = _owned(database, subject)
            return sum(database.execute(f"SELECT count(*) {clause}", ids).fetchone()[0] for clause, ids in owned)
    return 0


def write_without(path: Path, subject: Subject, target: Path) -> None:
    """Write to `target` what `path` holds besides the subject's rows."""
    if path.suffix == ".parquet":
        frame = read_parquet(path)
        write_parquet(frame.filter(~subject.condition(frame.columns)), target)
    elif path.suffix == ".json":
        write_json(_pruned(read_json(path), subject)[0], target)
    elif path.suffix == ".jsonl":
        kept = [_pruned(line, subject)[0] for line in lines_of(path)]
        lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in kept if line is not None]
        write_text("".join(lines), target)
    else:
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)
            with _connected(temporary) as database:
                for clause, ids in _owned(database, subject):
                    database.execute(f"DELETE {clause}", ids)
                database.commit()
                database.execute("VACUUM")  # deleted rows stay in free pages until then


def _pruned(value: Any, subject: Subject) -> tuple[Any, int]:
    """(the value without the subject's rows, how many there were); a row itself becomes None."""
    if subject.owns(value):
        return None, 1
    if isinstance(value, dict):
        parts = {key: _pruned(item, subject) for key, item in value.items()}
        gone = {key for key, item in value.items() if subject.owns(item)}
        return {key: part for key, (part, _) in parts.items() if key not in gone}, sum(n for _, n in parts.values())
    if isinstance(value, list):
        listed = [_pruned(item, subject) for item in value]
        kept = [part for item, (part, _) in zip(value, listed, strict=True) if not subject.owns(item)]
        return kept, sum(n for _, n in listed)
    return value, 0


def lines_of(path: Path) -> Iterator[Any]:
    """The objects of a JSON-lines file; a last line that a kill cut short is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines) - 1:
                return
            raise CorruptFileError(
                f"{path}, line {number + 1}", f"is not JSON ({error})", "mend or delete the line"
            ) from error


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    """The database, closed afterwards, with what its write-ahead log holds moved into the file."""
    database = sqlite3.connect(path, timeout=60)
    try:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        yield database
    except sqlite3.DatabaseError as error:
        raise CorruptFileError(
            str(path), f"is not a usable SQLite file ({error})", "delete the file if nothing needs it"
        ) from error
    finally:
        database.close()


def _owned(database: sqlite3.Connection, subject: Subject) -> list[tuple[str, list[str]]]:
    """("FROM table WHERE ...", parameters) of every table that names users or examples."""
    clauses = []
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        columns = {row[1] for row in database.execute(f'PRAGMA table_info("{table}")')}
        for name, ids in ((USER, subject.users), (EXAMPLE, subject.examples)):
            if name in columns and ids:
                wanted = ", ".join("?" * len(ids))
                clauses.append((f'FROM "{table}" WHERE CAST("{name}" AS TEXT) IN ({wanted})', sorted(ids)))
    return clauses
