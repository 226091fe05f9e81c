"""A log's ids as integers, row by row: what the steps after `canonicalise` compute with instead of text.

Codes are derived from `events` and `items` and are never written: a log read back from Parquet makes them again.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.logs.codes import distinct, recoded, run_starts

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Codes:
    """N events of U users. `users` holds the U ids in the log's order; the events of user u are the rows
    [starts[u], starts[u + 1]), `starts` (U + 1,) int64. `items` (N,) uint32 is the row of the catalogue, `times` (N,)
    int64 microseconds since 1970."""

    users: pl.Series
    starts: np.ndarray
    items: np.ndarray
    times: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Events of each user, (U,) int64."""
        return np.diff(self.starts)

    def users_of(self, rows: np.ndarray) -> np.ndarray:
        """The user's code of each of these rows."""
        return np.searchsorted(self.starts, rows, side="right") - 1


def codes_of(events: pl.DataFrame, items: pl.DataFrame) -> Codes:
    """The codes of a canonical log. Raises InputError when the events are not ordered, or one has no item."""
    opens = (events["user_id"] != events["user_id"].shift()).fill_null(True)
    times = events["event_time"].to_physical().to_numpy()
    backwards = np.zeros(len(events), bool)
    backwards[1:] = (times[1:] < times[:-1]) & ~opens.to_numpy()[1:]
    users = events["user_id"].filter(opens)
    if backwards.any() or not (users > users.shift()).fill_null(True).all():
        raise InputError(
            "log.events", "must be ordered by user, time, item", "pass the log through recsys.logs.events.canonicalise"
        )
    things, table = distinct(events["item_id"])
    places = items.select("item_id").with_row_index("place")
    table = table.join(places, left_on="text", right_on="item_id", how="left", maintain_order="left")
    item = recoded(things, table, "place")
    if item.null_count():
        unknown = events.filter(item.is_null())
        raise InputError(
            f"{len(unknown)} events, e.g. of item {unknown['item_id'][0]!r}",
            "are of items that the catalogue lacks",
            "pass the log through recsys.logs.events.canonicalise",
        )
    return coded(users, opens.to_numpy(), item.to_numpy(), times)


def coded(users: pl.Series, opens: np.ndarray, items: np.ndarray, times: np.ndarray) -> Codes:
    """`Codes` from row-wise arrays; `opens` (N,) marks the first event of each user."""
    starts = np.append(np.flatnonzero(opens), len(opens))
    return Codes(users, starts, items.astype(np.uint32, copy=False), times)


def pasts(codes: Codes, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of these rows (ends, lengths): the events of the same user strictly before its time (ties are not) are
    the rows [end - length, end)."""
    ends = rows.copy()
    users = codes.users_of(rows)
    # A row that shares user and time with the row before starts where that one does; runs of ties are short and rare.
    new_time = run_starts(codes.times)
    new_time[codes.starts[:-1]] = True
    tied = ~new_time[rows]
    if tied.any():
        firsts = np.flatnonzero(new_time)
        ends[tied] = firsts[np.searchsorted(firsts, rows[tied], side="right") - 1]
    return ends, ends - codes.starts[users]
