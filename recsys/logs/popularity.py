"""How often each item had been touched before the start of a given UTC day.

A slate's weights come from this snapshot of its cutoff's day: nothing at or after the cutoff is in it, whatever the
hour, and one table serves every example. It lags the cutoff by less than a day.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from recsys.logs.coded import DAY_US, Codes


@dataclass(frozen=True)
class Popularity:
    """Events by day and item: `counts` (E,) of them on `days` (E,) of `items` (E,), ordered by day and item, each pair
    once; `n_items` items in all. Its size grows with the days and the catalogue, not with the events."""

    days: np.ndarray
    items: np.ndarray
    counts: np.ndarray
    n_items: int

    def before(self, days: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (day, events of every item before it (n_items,)) for each of `days` (since 1970, ascending); each a
        copy."""
        total = np.zeros(self.n_items, np.int64)
        done = 0
        for day, end in zip(days, np.searchsorted(self.days, days, side="left"), strict=True):
            np.add.at(total, self.items[done:end], self.counts[done:end])
            done = int(end)
            yield int(day), total.copy()

    def by_day(self) -> tuple[np.ndarray, np.ndarray]:
        """(days with events, events on each)."""
        days, places = np.unique(self.days, return_inverse=True)
        return days, np.bincount(places, self.counts, len(days)).astype(np.int64)


def popularity(codes: Codes, n_items: int) -> Popularity:
    """Events by day and item. Cost: one sort of integers."""
    days = codes.times // DAY_US
    first = int(days.min()) if len(days) else 0
    cells = (days - first).astype(np.uint64) * np.uint64(n_items) + codes.items
    return _table(cells, None, first, n_items)


def added(parts: Sequence[Popularity]) -> Popularity:
    """The popularity of a log whose parts have these."""
    n_items, first = parts[0].n_items, min((int(part.days[0]) for part in parts if len(part.days)), default=0)
    days = np.concatenate([part.days for part in parts])
    cells = (days - first).astype(np.uint64) * np.uint64(n_items) + np.concatenate([part.items for part in parts])
    return _table(cells, np.concatenate([part.counts for part in parts]), first, n_items)


def _table(cells: np.ndarray, counts: np.ndarray | None, first: int, n_items: int) -> Popularity:
    """Cells (day - first) * n_items + item, each with a count (1 where None), summed."""
    if counts is None:
        found, sums = np.unique(cells, return_counts=True)
    else:
        found, places = np.unique(cells, return_inverse=True)
        sums = np.bincount(places, counts, len(found)).astype(np.int64)
    days = (found // np.uint64(n_items)).astype(np.int64) + first
    return Popularity(days, (found % np.uint64(n_items)).astype(np.uint32), sums, n_items)


def deciles(counts: np.ndarray) -> np.ndarray:
    """Popularity decile per item, 1 (least) to 10 among items touched at all; 0 for untouched ones. Equal counts share
    a decile.

    >>> deciles(np.array([0, 1, 2, 3, 3])).tolist()
    [0, 1, 3, 6, 6]
    """
    order = np.argsort(counts)
    ordered = counts[order]
    touched = int(np.searchsorted(ordered, 0, side="right"))
    # The place of a count among the touched ones is that of the first item that has it.
    firsts = np.ones(len(ordered), bool)
    firsts[1:] = ordered[1:] != ordered[:-1]
    place = np.maximum.accumulate(np.where(firsts, np.arange(len(ordered)), 0)) - touched
    found = np.zeros(len(counts), np.int64)
    found[order[touched:]] = 1 + 10 * place[touched:] // max(len(ordered) - touched, 1)
    return found
