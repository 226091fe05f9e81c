"""Content baselines without a language model: how far one gets by release years or genres alone.

A text arm that does not beat them has shown the recommender the years or the genres, not understood the user. An item
without a year is given the median year of the items seen so far; without genres it overlaps with nothing. An empty
history scores every candidate 0.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

import numpy as np
import polars as pl

from recsys.recommenders.collaborative import Catalogue, HistoryRecommender, check_before


@dataclass(frozen=True)
class Content:
    """Fields of the catalogue as arrays in catalogue order: `genres` (D, K) of 0 and 1, `years` (D,), no gaps."""

    genres: np.ndarray
    years: np.ndarray

    @classmethod
    def of(cls, items: pl.DataFrame, catalogue: Catalogue, events: pl.DataFrame) -> Self:
        """Genres and years; gaps get the median year of the items that occur in `events` (none: of all)."""
        ordered = items.sort("item_id")
        lists = ordered["genres"].to_list() if "genres" in ordered.columns else [None] * len(catalogue)
        names = sorted({genre for genres in lists for genre in genres or ()})
        column = {name: index for index, name in enumerate(names)}
        matrix = np.zeros((len(catalogue), len(names)))
        for row, genres in enumerate(lists):
            matrix[row, [column[genre] for genre in genres or ()]] = 1.0
        if "year" not in ordered.columns:
            return cls(matrix, np.zeros(len(catalogue)))
        seen = ordered.filter(pl.col("item_id").is_in(events["item_id"].unique().to_list()))["year"].drop_nulls()
        fill = (seen if len(seen) else ordered["year"].drop_nulls()).median()
        return cls(
            matrix,
            ordered["year"].cast(pl.Float64).fill_null(fill if isinstance(fill, (int, float)) else 0.0).to_numpy(),
        )


def genre_overlap(genres: np.ndarray, history: np.ndarray, slate: np.ndarray) -> np.ndarray:
    """Mean Jaccard similarity |g_c ∩ g_h| / |g_c ∪ g_h| over the history, (S,); an empty union counts 0."""
    if not len(history):
        return np.zeros(len(slate))
    shared = genres[slate] @ genres[history].T  # (S, H)
    union = genres[slate].sum(axis=1)[:, None] + genres[history].sum(axis=1)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0).mean(axis=1)


def genre_cosine(genres: np.ndarray, history: np.ndarray, slate: np.ndarray) -> np.ndarray:
    """Cosine between a candidate's genres and the history's genre counts, (S,); 0 where either is empty."""
    profile = genres[history].sum(axis=0)  # (K,)
    norms = np.linalg.norm(genres[slate], axis=1) * np.linalg.norm(profile)
    products = genres[slate] @ profile
    return np.divide(products, norms, out=np.zeros(len(slate)), where=norms > 0)


def year_distance(years: np.ndarray, history: np.ndarray, slate: np.ndarray, *, recent: bool = False) -> np.ndarray:
    """Years between a candidate and the history's median year (`recent`: its last item's year), (S,)."""
    if not len(history):
        return np.zeros(len(slate))
    reference = years[history[-1]] if recent else np.median(years[history])
    return np.abs(years[slate] - reference)


class ContentRecommender(HistoryRecommender):
    """Base of the two: holds the catalogue's fields."""

    def __init__(self, catalogue: Catalogue, content: Content) -> None:
        super().__init__(catalogue)
        self.content = content

    @classmethod
    def fit(cls, events: pl.DataFrame, items: pl.DataFrame, *, before: datetime) -> Self:
        """`events` (strictly before `before`, InputError otherwise) only decide which items' years fill gaps."""
        check_before(events, before)
        catalogue = Catalogue(items["item_id"].to_list())
        return cls(catalogue, Content.of(items, catalogue, events))


class YearDistance(ContentRecommender):
    """Minus the distance to the median release year of the history."""

    name = "year_distance"

    def score(self, history: np.ndarray, slate: np.ndarray) -> np.ndarray:
        return -year_distance(self.content.years, history, slate)


class GenreOverlap(ContentRecommender):
    """Mean genre Jaccard similarity with the history."""

    name = "genre_overlap"

    def score(self, history: np.ndarray, slate: np.ndarray) -> np.ndarray:
        return genre_overlap(self.content.genres, history, slate)
