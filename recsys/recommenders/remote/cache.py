"""Answers kept by content, and what they cost: one SQLite file that processes share and that survives a kill whole.

An answer is written the moment it arrives, since it was paid for. Nothing is ever invalidated: a changed prompt, model,
endpoint or setting has another key. The first answer to a question stays, so that a repeated run reads what the first
one used, which a server (batching, updates) does not promise. The file holds hashes of questions, never the questions.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import CorruptFileError
from recsys.recommenders.remote.answers import Answer

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spent (account TEXT PRIMARY KEY, calls INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0, completion_tokens INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Spent:
    """Calls made and tokens read and written."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class AnswerCache:
    """key -> Answer and account -> Spent; without a path, in memory. `hits` and `misses` count lookups.

    Raises CorruptFileError when `path` exists and is not such a file.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.hits = self.misses = 0
        self.path = ":memory:" if path is None else str(path)
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            # One thread at a time: requests run in another thread only while their caller waits for it.
            self._database = sqlite3.connect(self.path, timeout=60, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            raise self._corrupt(f"is not a usable file of answers ({error})") from error

    def get(self, key: bytes) -> Answer | None:
        """The stored answer or None."""
        row = self._database.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        self.hits, self.misses = self.hits + (row is not None), self.misses + (row is None)
        if row is None:
            return None
        try:
            return Answer.loads(row[0])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._corrupt(f"holds an answer that cannot be read ({error})") from error

    def put(self, key: bytes, answer: Answer) -> None:
        """Store an answer at once; the first one of a key stays."""
        self._database.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, answer.dumps()))

    def spend(self, account: str, spent: Spent) -> None:
        """Add to what an account has spent."""
        self._database.execute(
            "INSERT INTO spent VALUES (?, ?, ?, ?) ON CONFLICT (account) DO UPDATE SET calls = calls + excluded.calls, "
            "prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
            "completion_tokens = completion_tokens + excluded.completion_tokens",
            (account, spent.calls, spent.prompt_tokens, spent.completion_tokens),
        )

    def spent(self, account: str) -> Spent:
        """What an account has spent, over all processes that share the file."""
        query = "SELECT calls, prompt_tokens, completion_tokens FROM spent WHERE account = ?"
        row = self._database.execute(query, (account,)).fetchone()
        return Spent(*row) if row else Spent()

    def _corrupt(self, rule: str) -> CorruptFileError:
        return CorruptFileError(self.path, rule, "delete the file; its answers are then asked (and paid) for again")
