"""Scores kept by content: the same model, prompt and answer give the same number, so it is computed once.

Keys are hashes of everything a score depends on; nothing is ever invalidated, a changed model simply has other keys.
With a path, scores live in an SQLite file that several processes may share and that survives a killed run whole.
"""

import hashlib
import sqlite3
from pathlib import Path

from recsys.errors import CorruptFileError

FLUSH_EVERY = 10_000  # unwritten scores at most: a killed run loses these and recomputes them


def content_key(*parts: str) -> bytes:
    """16 bytes that identify the parts, lengths included (("ab", "c") differs from ("a", "bc"))."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.digest()


class ScoreCache:
    """key -> float, in memory and optionally in a file. `hits` and `misses` count lookups.

    Raises CorruptFileError when `path` exists and is not such a file.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.hits = self.misses = 0
        self._memory: dict[bytes, float] = {}
        self._unwritten: dict[bytes, float] = {}
        self._database: sqlite3.Connection | None = None
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            try:
                self._database = sqlite3.connect(path, timeout=60)
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, value REAL) WITHOUT ROWID"
                )
            except sqlite3.DatabaseError as error:
                raise CorruptFileError(
                    str(path), f"is not a usable score cache ({error})", "delete the file; scores are computed again"
                ) from error

    def get(self, key: bytes) -> float | None:
        """The stored score or None."""
        value = self._memory.get(key)
        if value is None and self._database is not None:
            row = self._database.execute("SELECT value FROM scores WHERE key = ?", (key,)).fetchone()
            if row is not None:
                value = self._memory[key] = row[0]
        if value is None:
            self.misses += 1
        else:
            self.hits += 1
        return value

    def put(self, key: bytes, value: float) -> None:
        """Store a score; the first value of a key stays, so repeated runs read what the first one used."""
        if key not in self._memory:
            self._memory[key] = value
            if self._database is not None:
                self._unwritten[key] = value
                if len(self._unwritten) >= FLUSH_EVERY:
                    self.flush()

    def flush(self) -> None:
        """Write what is new to the file in one transaction."""
        if self._database is not None and self._unwritten:
            with self._database:
                self._database.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", self._unwritten.items())
            self._unwritten.clear()

    def close(self) -> None:
        """Flush and release the file."""
        self.flush()
        if self._database is not None:
            self._database.close()
            self._database = None
