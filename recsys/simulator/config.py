"""Every rate of the simulator in one place, checked when it is made. Standard library only."""

import dataclasses
import datetime as dt
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recsys.errors import InputError

MEMBERS_MAX = 4


@dataclass(frozen=True)
class SimulatorConfig:
    """Shares lie in [0, 1]; each event, choice or household draws on its own.

    Each event of an account is, first of all,

        a preview           with probability `preview_rate`: an item by popularity alone, seen for seconds   (noise)
        an accidental play  with probability `accidental_rate`: any item, stopped within minutes             (noise)
        deliberate          otherwise: chosen by the member who is watching

    and a deliberate one is the next episode of her series in progress (`binge_rate` right after an episode, else
    `resume_rate`), or something the account finished before (`rewatch_rate` of what is left), or a new work by her
    taste. `generate` says how these follow each other.
    """

    users: int = 1000
    """Accounts. A household is one account: the log cannot tell its members apart."""
    seed: int = 0
    start: str = "2024-01-01"
    days: int = 180

    works: int = 600
    """Films and series."""
    series_share: float = 0.25
    episodes_min: int = 4
    episodes_max: int = 8
    two_genres: float = 0.5
    """Share of works with two genres."""
    lexical: float = 0.8
    """Probability that a word of a title comes from the work's own genre; otherwise it fits any genre."""
    popularity_skew: float = 0.8
    """The work of rank r has popularity r ** -skew."""

    members: tuple[float, ...] = (0.5, 0.3, 0.2)
    """Shares of households with 1, 2, ... members; each session belongs to one of them, all equally often."""
    taste_strength: float = 2.0
    """A new work is chosen with probability in proportion to exp(taste_strength · affinity) · popularity ** bias."""
    popularity_bias: float = 0.5
    drift: float = 0.3
    """Share of a member's taste (of its variance) that is replaced at a moment of her own within the middle of the
    log."""

    sessions_per_week: float = 3.0
    """About: the mean over accounts, before their spread."""
    activity_spread: float = 0.5
    """Standard deviation of an account's log activity."""
    session_continues: float = 0.6
    """Probability that a session has one more event after each."""
    events_max: int = 500
    """Of one account."""

    preview_rate: float = 0.15
    accidental_rate: float = 0.15
    binge_rate: float = 0.6
    resume_rate: float = 0.2
    rewatch_rate: float = 0.15
    abandon_rate: float = 0.1
    """Share of deliberate plays that end early: a low completion alone does not prove an accident."""
    start_anywhere: float = 0.2
    """Share of new series that are entered at a random episode instead of the first."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        for name in ("series_share", "two_genres", "lexical", "drift", "session_continues", "start_anywhere"):
            self._demand(name, 0 <= getattr(self, name) <= 1, "is a share in [0, 1]", "give a share")
        for name in ("preview_rate", "accidental_rate", "binge_rate", "resume_rate", "rewatch_rate", "abandon_rate"):
            self._demand(name, 0 <= getattr(self, name) <= 1, "is a share in [0, 1]", "give a share")
        self._demand(
            "accidental_rate",
            self.preview_rate + self.accidental_rate < 1,
            f"leaves no deliberate plays beside preview_rate {self.preview_rate}",
            "let them sum to less than 1",
        )
        for name in ("users", "days", "works", "episodes_min", "events_max"):
            self._demand(name, getattr(self, name) >= 1, "must be at least 1", "raise it")
        for name in ("taste_strength", "popularity_skew", "popularity_bias", "activity_spread"):
            self._demand(name, getattr(self, name) >= 0, "may not be negative", "set it to 0 or more")
        self._demand("sessions_per_week", self.sessions_per_week > 0, "must be positive", "raise it")
        self._demand("seed", self.seed >= 0, "may not be negative", "name another seed")
        self._demand("episodes_max", self.episodes_max >= self.episodes_min, "is below episodes_min", "raise it")
        self._demand(
            "members",
            1 <= len(self.members) <= MEMBERS_MAX and min(self.members) >= 0 and abs(sum(self.members) - 1) < 1e-9,
            f"must be at most {MEMBERS_MAX} shares that sum to 1",
            "for example [0.5, 0.3, 0.2]",
        )
        _ = self.start_time

    @property
    def start_time(self) -> dt.datetime:
        """Midnight UTC of the first day."""
        try:
            day = dt.date.fromisoformat(self.start)
        except ValueError as error:
            raise InputError(f"start {self.start!r}", "is not a date", 'write it like "2024-01-01"') from error
        return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)

    def _demand(self, name: str, holds: bool, rule: str, remedy: str) -> None:
        if not holds:
            raise InputError(f"simulator {name} = {getattr(self, name)!r}", rule, remedy)


def from_mapping(values: Mapping[str, Any]) -> SimulatorConfig:
    """The configuration written as plain values (a recipe's `source.inline`, a folder's `simulator.json`).

    Raises InputError for an unknown key, naming the nearest, and for a value of another type.
    """
    fields = {field.name: field for field in dataclasses.fields(SimulatorConfig)}
    filled: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(fields)}"
            raise InputError(f"simulator {name}", "unknown key", hint)
        kind = type(fields[name].default)
        if kind is str and isinstance(value, dt.date):
            value = value.isoformat()
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if kind is tuple and isinstance(value, list | tuple) and all(isinstance(one, int | float) for one in value):
            value = tuple(float(one) for one in value)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"simulator {name} = {value!r}", f"is not {kind.__name__}", f"give {kind.__name__}")
        filled[name] = value
    return SimulatorConfig(**filled)
