"""What the slates of one day were drawn from: written from the definitions in ARCHITECTURE.md, not from the code that
draws them.

`recsys.logs.slates` draws; this says with which probability it draws what. The two share no code but the deciles, so
that the Bayes optimum also checks the slates: the tests draw many and compare.
"""

import numpy as np
import polars as pl

from recsys.logs.popularity import deciles
from recsys.logs.slates import SlateConfig
from recsys.simulator.slate_probability import (
    cell_log_probability,
    race_log_probability,
    uniform_log_probability,
)

POLICIES = ("uniform", "popularity", "matched")
DAY_US = 86_400_000_000
# (year bands, deciles) joined at each widening; None joins all.
_WIDENING = ((1, 1), (2, 1), (2, 2), (4, 2), (4, 5), (None, 5), (None, None))
_UNTOUCHED = 1e-9  # weight of an item without events under `popularity`: after all others


class SlateDraws:
    """The draw of negatives on one day. `items` is the catalogue (year), `counts` (N,) its events before that day."""

    def __init__(self, items: pl.DataFrame, counts: np.ndarray, drawn: SlateConfig) -> None:
        self.policy = drawn.policy
        self.weights = np.maximum(counts, _UNTOUCHED)
        years, decile = items["year"].to_numpy().astype(np.int64), deciles(counts)
        self.cells = []
        for bands, joined in _WIDENING if drawn.policy == "matched" else ():
            band = years // (drawn.year_band * bands) if bands else np.zeros_like(years)
            tenth = np.where(decile > 0, (decile - 1) // joined, -1) if joined else np.zeros_like(decile)
            self.cells.append(band * 16 + tenth)

    def log_probability(self, slate: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """(S,) log-probabilities of the other names, for each candidate as the target, up to a common term.

        `slate` (S,) item codes, all of them `allowed`; `allowed` (N,) marks what the account had not touched.
        """
        if self.policy == "uniform":
            return uniform_log_probability(len(slate))
        if self.policy == "popularity":
            others = allowed.copy()
            others[slate] = False
            return race_log_probability(self.weights[slate], float(self.weights[others].sum()))
        return cell_log_probability(slate, [self.pool(int(target), allowed, len(slate) - 1) for target in slate])

    def pool(self, target: int, allowed: np.ndarray, needed: int) -> np.ndarray:
        """Codes of the allowed items in the target's cell, widened until `needed` of them are there."""
        pool = np.empty(0, np.int64)
        for cell in self.cells:
            inside = allowed & (cell == cell[target])
            inside[target] = False
            pool = np.flatnonzero(inside)
            if len(pool) >= needed:
                break
        return pool


class Past:
    """What each account had touched before a moment, and how often everybody had touched each item."""

    def __init__(self, events: pl.DataFrame, codes: dict[str, int]) -> None:
        self.items = events["item_id"].replace_strict(codes, return_dtype=pl.Int64).to_numpy()
        self.times = events["event_time"].dt.epoch("us").to_numpy()
        spans = events.with_row_index("row").group_by("user_id").agg(pl.col("row").first(), pl.len())
        self.spans = {user: (row, row + size) for user, row, size in spans.iter_rows()}
        self.count = len(codes)

    def of(self, user: str, cutoff: int) -> np.ndarray:
        """Boolean (N,): touched by the account strictly before the cutoff (microseconds)."""
        start, end = self.spans[user]
        seen = np.zeros(self.count, bool)
        seen[self.items[start : start + int(np.searchsorted(self.times[start:end], cutoff, side="left"))]] = True
        return seen

    def counts_before(self, moment: int) -> np.ndarray:
        """Events of every item strictly before a moment (N,)."""
        return np.bincount(self.items[self.times < moment], minlength=self.count)
