"""Popularity: the number of distinct users who touched an item before the split's start. The floor of all arms."""

from datetime import datetime
from typing import Self

import numpy as np
import polars as pl

from recsys.recommenders.collaborative import Catalogue, HistoryRecommender, check_before, interaction_matrix


class Popularity(HistoryRecommender):
    """Scores a candidate by its number of users; reads neither text nor history."""

    name = "popularity"

    def __init__(self, catalogue: Catalogue, users_per_item: np.ndarray) -> None:
        super().__init__(catalogue)
        self.users_per_item = users_per_item  # (D,)

    @classmethod
    def fit(cls, events: pl.DataFrame, items: pl.DataFrame, *, before: datetime) -> Self:
        """Count users in `events`, all strictly before `before` (InputError otherwise)."""
        check_before(events, before)
        catalogue = Catalogue(items["item_id"].to_list())
        return cls(catalogue, np.asarray(interaction_matrix(events, catalogue).sum(axis=0)).ravel())

    def score(self, history: np.ndarray, slate: np.ndarray) -> np.ndarray:
        return self.users_per_item[slate]
