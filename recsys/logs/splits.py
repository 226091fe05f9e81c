"""Who and when: users by hash into train, validation and test; time by T1 < T2.

Train-users' targets lie before T1, validation-users' in [T1, T2), test-users' from T2 on. A user's split depends on the
user's id alone, so that no other seed, filter or data update can move a user across.
"""

import datetime as dt
from dataclasses import dataclass

import polars as pl

from recsys.errors import InputError
from recsys.seeding import unit_hash

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitConfig:
    """Shares of users (they sum to at most 1; the rest of the users goes unused) and the two times.

    A time is ISO text ("1998-01-15T00:00:00Z") or a share of all events ("60%": the time of the event at that place).
    Percentages move when the log grows, so a recipe that is compared over time should state dates.
    """

    train: float = 0.3
    validation: float = 0.1
    test: float = 0.6
    train_until: str = "50%"
    validate_until: str = "60%"


def user_splits(users: pl.Series, config: SplitConfig) -> pl.Series:
    """The split of each (distinct) user; null for users beyond the shares."""
    shares = (config.train, config.validation, config.test)
    if min(shares) < 0 or sum(shares) > 1 + 1e-9:
        raise InputError(
            f"split shares {shares}",
            "must not be negative and sum to at most 1",
            "correct split.train, .validation, .test",
        )
    edges = (shares[0], shares[0] + shares[1], sum(shares))
    names: list[str | None] = []
    for user in users:
        place = unit_hash("split", user)
        names.append(next((name for name, edge in zip(SPLITS, edges, strict=True) if place < edge), None))
    return pl.Series("split", names, pl.String)


def split_times(event_times: pl.Series, config: SplitConfig) -> tuple[dt.datetime, dt.datetime]:
    """T1 and T2. Raises InputError when they are not in order or not readable."""
    first, second = (
        _moment(text, event_times, name)
        for text, name in ((config.train_until, "train_until"), (config.validate_until, "validate_until"))
    )
    if first > second or (first == second and config.validation > 0):
        raise InputError(
            f"split times {first.isoformat()} and {second.isoformat()}",
            "the first must lie before the second",
            "correct split.train_until and split.validate_until",
        )
    return first, second


def target_split(user_split: pl.Expr, time: pl.Expr, times: tuple[dt.datetime, dt.datetime]) -> pl.Expr:
    """The split of a target: its user's, if its time lies in that split's window; else null."""
    first, second = times
    inside = (
        ((user_split == "train") & (time < first))
        | ((user_split == "validation") & (time >= first) & (time < second))
        | ((user_split == "test") & (time >= second))
    )
    return pl.when(inside).then(user_split)


def _moment(text: str, event_times: pl.Series, name: str) -> dt.datetime:
    try:
        if text.strip().endswith("%"):
            share = float(text.strip()[:-1]) / 100
            if not 0 <= share <= 1:
                raise ValueError
            value = event_times.quantile(share, interpolation="lower")
            assert isinstance(value, dt.datetime)
            return value
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"split.{name} {text!r}",
            "is neither a time nor a share of the events",
            'write "1998-01-15T00:00:00Z" or "60%"',
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
