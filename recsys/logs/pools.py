"""Which items a slate's negatives may be drawn from: untouched and available ones, and of those the policy's."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.logs.popularity import deciles
from recsys.logs.tables import Log

# (year bands joined, deciles joined) per widening step of `matched`; 0 joins all.
_STEPS = ((1, 1), (2, 1), (2, 2), (4, 2), (4, 5), (0, 5), (0, 0))


@dataclass(frozen=True)
class ItemVectors:
    """One row of `matrix` (N, D) per id. They must come from content, or from events before every cutoff that they
    serve."""

    item_ids: tuple[str, ...]
    matrix: np.ndarray = field(repr=False)


class Past:
    """Who had touched what, and what was available, before a moment."""

    def __init__(self, log: Log, items: pl.DataFrame) -> None:
        codes = log.codes
        self.items, self.times, self.starts = codes.items, codes.times, codes.starts
        self.users = pl.DataFrame({"user_id": codes.users}).with_row_index("code")
        since = items["available_from"].dt.epoch("us")
        self.since = None if since.null_count() == len(items) else since.fill_null(np.iinfo(np.int64).min).to_numpy()
        self.everything = np.ones(len(items), bool)

    def spans_before(self, users: pl.Series, cutoffs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(first rows, end rows) of each user's events before each cutoff, (B,); empty for an unknown user."""
        found = pl.DataFrame({"user_id": users}).join(self.users, on="user_id", how="left", maintain_order="left")
        code = found["code"].fill_null(len(self.users)).to_numpy()
        spans = np.append(self.starts, self.starts[-1])
        starts, low, high = spans[code], spans[code], spans[code + 1]
        while (open_ := low < high).any():  # a binary search of all at once
            middle = (low + high) // 2
            earlier = open_ & (self.times[np.where(open_, middle, 0)] < cutoffs)
            low, high = np.where(earlier, middle + 1, low), np.where(open_ & ~earlier, middle, high)
        return starts, low

    def allowed(self, start: int, end: int, cutoff: int) -> np.ndarray:
        """Boolean (items,): available strictly before the cutoff and not touched in the rows [start, end)."""
        allowed = self.everything.copy() if self.since is None else self.since < cutoff
        allowed[self.items[start:end]] = False
        return allowed


class Matcher:
    """Items of the target's release-year band and popularity decile on one day."""

    def __init__(self, items: pl.DataFrame, counts: np.ndarray | None, year_band: int) -> None:
        self.years, self.year_band = items["year"].fill_null(-1).to_numpy().astype(np.int64), year_band
        self.bands: dict[int, np.ndarray] = {}
        if counts is not None:
            self.on_day(counts)

    def on_day(self, counts: np.ndarray) -> None:
        """Take the popularity of another day: events of every item before it."""
        self.deciles = deciles(counts)
        self.cells: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def pool(self, target: int, allowed: np.ndarray, needed: int) -> tuple[np.ndarray, int]:
        """Allowed items of the target's cell at the first step that holds enough of them, and the number of that
        step."""
        pool = np.empty(0, np.int64)
        for step in range(len(_STEPS)):
            members = self._members(step, target)
            pool = members[allowed[members]]
            if len(pool) >= needed:
                return pool, step
        return pool, len(_STEPS) - 1

    def _members(self, step: int, target: int) -> np.ndarray:
        """Items of the target's cell, ascending."""
        if step not in self.cells:
            bands, joined = _STEPS[step]
            # Unknown years and untouched items keep cells of their own until all are joined.
            band = self.bands.get(bands)
            if band is None:
                width = self.year_band * bands
                band = np.where(self.years < 0, -1, self.years // width) if bands else np.zeros_like(self.years)
                self.bands[bands] = band
            decile = (
                np.where(self.deciles > 0, (self.deciles - 1) // joined, -1) if joined else np.zeros_like(self.deciles)
            )
            cell = ((band + 1) * 16 + decile + 1).astype(np.uint16)
            self.cells[step] = (cell, np.argsort(cell, kind="stable"), np.append(0, np.cumsum(np.bincount(cell))))
        cell, members, ends = self.cells[step]
        wanted = cell[target]
        return members[ends[wanted] : ends[wanted + 1]]


class Retrieval:
    """Items nearest to the mean of the history's vectors (cosine)."""

    def __init__(self, examples: pl.DataFrame, items: pl.DataFrame, vectors: ItemVectors) -> None:
        places = {item: place for place, item in enumerate(vectors.item_ids)}
        missing = [item for item in items["item_id"] if item not in places]
        if missing:
            raise InputError(
                f"item {missing[0]!r} and {len(missing) - 1} more",
                "have no vector",
                "embed the whole catalogue before drawing `retrieved` slates",
            )
        matrix = np.asarray(vectors.matrix, np.float64)[[places[item] for item in items["item_id"]]]
        self.matrix = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)  # (N, D)
        codes = {item: code for code, item in enumerate(items["item_id"])}
        self.histories = [
            [codes[item] for item in ids]
            for ids in examples["history"].list.eval(pl.element().struct.field("item_id")).to_list()
        ]

    def pool(self, place: int, allowed: np.ndarray, size: int) -> np.ndarray:
        scores = self.matrix @ self.matrix[self.histories[place]].mean(axis=0)
        candidates = np.flatnonzero(allowed)
        nearest = np.argsort(-scores[candidates], kind="stable")[:size]
        return np.sort(candidates[nearest])
