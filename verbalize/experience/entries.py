"""What the library holds: whole trajectories (ExpRAG) and step-level lessons (SLEA-RL), as one kind of record.

Each record has two texts and so two vectors, its *views*:

| view | trajectory | lesson |
|---|---|---|
| `key`  | the task description (static retrieval) | the observation it was learned at |
| `text` | what was said in the whole trajectory (dynamic retrieval) | the lesson itself (novelty) |

`users` and `sources` are everybody and every trajectory that a record was made from: they are what queries exclude and
what forgetting removes. `time` is the moment at which the record's outcome became known; a query with a cutoff sees
only records with a time strictly before it, hence none without a time.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import polars as pl

from recsys.errors import InputError
from recsys.seeding import stable_hash

KINDS = ("trajectory", "lesson")
LEVELS = ("principle", "pattern", "example")
ZONES = ("strategy", "warning")
VIEWS = ("key", "text")
SCHEMA: dict[str, Any] = {
    "id": pl.String,
    "kind": pl.String,
    "key": pl.String,
    "text": pl.String,
    "score": pl.Float64,
    "success": pl.Boolean,
    "family": pl.String,
    "users": pl.List(pl.String),
    "sources": pl.List(pl.String),
    "time": pl.Datetime("us", "UTC"),
    "level": pl.String,
    "zone": pl.String,
}


@dataclass(frozen=True)
class Experience:
    """One record. Make it with `trajectory` or `lesson`, which fill in what follows from the rest.

    An empty `id` becomes a hash of the content, so admitting the same record twice changes nothing.
    """

    kind: str
    key: str
    text: str
    score: float
    success: bool
    family: str = ""
    users: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    time: datetime | None = None
    level: str = ""
    zone: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        for value, allowed, name in (
            (self.kind, KINDS, "kind"),
            (self.level, LEVELS if self.kind == "lesson" else ("",), "level"),
            (self.zone, ZONES if self.kind == "lesson" else ("",), "zone"),
        ):
            if value not in allowed:
                raise InputError(f"{name} {value!r}", f"must be one of {', '.join(map(repr, allowed))}", "choose one")
        if not (self.key.strip() and self.text.strip()):
            raise InputError(
                f"experience with key {self.key!r} and text {self.text!r}",
                "neither may be empty: both are embedded",
                "give the task or observation as key, and what was learned as text",
            )
        if self.score != self.score or abs(self.score) == float("inf"):
            raise InputError(f"score {self.score}", "must be a finite number", "give the episode's reward")
        if self.time is not None and self.time.tzinfo is None:
            raise InputError(f"time {self.time}", "has no time zone", "give UTC times: datetime(..., tzinfo=UTC)")
        if self.time is not None:  # one moment, one id, one row
            object.__setattr__(self, "time", self.time.astimezone(UTC))
        if not self.id:
            content = [getattr(self, f.name) for f in fields(self) if f.name != "id"]
            object.__setattr__(self, "id", f"{stable_hash('experience', *content):016x}")

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat of a trajectory, oldest first."""
        if self.kind != "trajectory":
            raise InputError(f"{self.kind} {self.id}", "only a trajectory is a chat", "read its text")
        return list(json.loads(self.text))

    def view(self, name: str) -> str:
        """The text embedded for a view: of a trajectory's chat, what user and assistant said."""
        if name == "text" and self.kind == "trajectory":
            return "\n".join(m["content"] for m in self.messages if m["role"] != "system")
        return self.key if name == "key" else self.text


def trajectory(
    task: str,
    messages: Sequence[Mapping[str, str]],
    score: float,
    success: bool,
    *,
    source: str,
    user: str = "",
    family: str = "",
    time: datetime | None = None,
) -> Experience:
    """A whole episode as chat messages ({"role", "content"}). `source` names it, `user` is whose data it holds."""
    for message in messages:
        if set(message) != {"role", "content"} or message["role"] not in ("system", "user", "assistant"):
            raise InputError(
                f"message {dict(message)}",
                "a message has a role (system, user or assistant) and content, nothing else",
                "convert the trajectory to plain chat messages",
            )
    if not any(m["role"] != "system" and m["content"].strip() for m in messages):
        raise InputError(f"trajectory {source!r}", "holds no user or assistant text", "leave out empty episodes")
    text = json.dumps([dict(m) for m in messages], ensure_ascii=False)
    return Experience("trajectory", task, text, float(score), success, family, (user,) if user else (), (source,), time)


def lesson(
    observation: str,
    text: str,
    level: str,
    zone: str,
    score: float,
    *,
    sources: Sequence[str],
    users: Sequence[str] = (),
    family: str = "",
    time: datetime | None = None,
) -> Experience:
    """A step-level entry: what to do (`zone` strategy) or to avoid (warning) at an observation; `score` is the reward
    of the episode it comes from.
    """
    return Experience(
        "lesson",
        observation,
        text,
        float(score),
        zone == "strategy",
        family,
        tuple(sorted(set(users))),
        tuple(sorted(set(sources))),
        time,
        level,
        zone,
    )


@dataclass(frozen=True)
class Exclude:
    """Whose records a query must not see: its own user and its own trajectories."""

    users: Collection[str] = ()
    sources: Collection[str] = ()

    def __post_init__(self) -> None:
        for names in (self.users, self.sources):
            if isinstance(names, str):  # would be taken for its letters, and exclude nobody
                raise InputError(
                    f"exclude {names!r}", "users and sources are collections of names", f"give [{names!r}]"
                )


@dataclass(frozen=True)
class Hit:
    """A retrieved record and its similarity to the query, rounded to 6 decimals."""

    entry: Experience
    similarity: float


def owners(entry: Experience) -> tuple[str, ...]:
    """Users and sources in one name space, as `Exclude` is compared with them."""
    return tuple(f"user:{u}" for u in entry.users) + tuple(f"source:{s}" for s in entry.sources)


def to_frame(entries: Sequence[Experience]) -> pl.DataFrame:
    """Rows of SCHEMA, in order."""
    return pl.DataFrame(
        [{name: _plain(getattr(entry, name)) for name in SCHEMA} for entry in entries], schema=SCHEMA, orient="row"
    )


def from_frame(frame: pl.DataFrame) -> list[Experience]:
    """The inverse of `to_frame`."""
    return [
        Experience(**row | {"users": tuple(row["users"]), "sources": tuple(row["sources"])})
        for row in frame.iter_rows(named=True)
    ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
