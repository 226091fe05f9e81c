"""Who and when: users by hash into train, validation and test; time by T1 < T2.

Train-users' targets lie before T1, validation-users' in [T1, T2), test-users' from T2 on. A user's split depends on the
user's id alone, so that no other seed, filter or data update can move a user across.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.seeding import stable_hashes

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = pl.Series("split", [*SPLITS, None], pl.String)


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
    return SPLIT_NAMES.gather(split_codes(users, config)).alias("split")


def split_codes(users: pl.Series, config: SplitConfig) -> np.ndarray:
    """The place in SPLITS of each user's split, (U,) int64; 3 for users beyond the shares."""
    shares = (config.train, config.validation, config.test)
    if min(shares) < 0 or sum(shares) > 1 + 1e-9:
        raise InputError(
            f"split shares {shares}",
            "must not be negative and sum to at most 1",
            "correct split.train, .validation, .test",
        )
    edges = np.array([shares[0], shares[0] + shares[1], sum(shares)])
    places = stable_hashes("split", values=users).astype(np.float64) / 2**64
    return np.searchsorted(edges, places, side="right")


def split_times(event_times: pl.Series, config: SplitConfig) -> tuple[dt.datetime, dt.datetime]:
    """T1 and T2. Raises InputError when they are not in order or not readable."""

    def at(share: float) -> dt.datetime:
        value = event_times.quantile(share, interpolation="lower")
        assert isinstance(value, dt.datetime)
        return value

    return split_times_at(at, config)


def split_times_at(at: Callable[[float], dt.datetime], config: SplitConfig) -> tuple[dt.datetime, dt.datetime]:
    """`split_times` of a log that is not at hand: `at` gives the time of the event at a share of all events."""
    first, second = (
        _moment(text, at, name)
        for text, name in ((config.train_until, "train_until"), (config.validate_until, "validate_until"))
    )
    if first > second or (first == second and config.validation > 0):
        raise InputError(
            f"split times {first.isoformat()} and {second.isoformat()}",
            "the first must lie before the second",
            "correct split.train_until and split.validate_until",
        )
    return first, second


def in_window(splits: np.ndarray, times: np.ndarray, window: tuple[dt.datetime, dt.datetime]) -> np.ndarray:
    """Boolean (B,): whether a target at `times` (B,) int64 microseconds lies in the window of its user's split code."""
    first, second = (int(pl.Series([moment]).dt.epoch("us")[0]) for moment in window)
    low = np.array([np.iinfo(np.int64).min, first, second, 0])[splits]
    high = np.array([first, second, np.iinfo(np.int64).max, 0])[splits]
    return (times >= low) & (times < high)


def _moment(text: str, at: Callable[[float], dt.datetime], name: str) -> dt.datetime:
    try:
        if text.strip().endswith("%"):
            share = float(text.strip()[:-1]) / 100
            if not 0 <= share <= 1:
                raise ValueError
            return at(share)
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"split.{name} {text!r}",
            "is neither a time nor a share of the events",
            'write "1998-01-15T00:00:00Z" or "60%"',
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
