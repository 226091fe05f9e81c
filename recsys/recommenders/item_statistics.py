"""Popularity and mean rating of items *as of any moment*: nothing at or after that moment is counted."""

import numpy as np
import polars as pl

from recsys.recommenders.collaborative import Catalogue


class ItemStatistics:
    """Event counts and rating sums per item that can be asked at a time. Holds O(events) numbers; a query is a
    binary search.
    """

    def __init__(self, events: pl.DataFrame, catalogue: Catalogue) -> None:
        items = catalogue.slate(events["item_id"].to_list())
        times = events["event_time"].to_physical().to_numpy()
        ratings = (events["rating"].to_numpy() if "rating" in events.columns else np.full(len(items), np.nan)).astype(
            float
        )
        order = np.lexsort((times, items))
        self._moments = np.sort(times)  # (E,)
        # One sorted integer orders by item, then by time: its place among `_keys` is the number of events before it.
        self._span = len(times) + 1
        self._keys = items[order] * self._span + np.searchsorted(self._moments, times[order])
        self._n_items = len(catalogue)
        rated = ~np.isnan(ratings)
        self._rated = np.concatenate([[0], np.cumsum(rated[order])])
        self._rating_sum = np.concatenate([[0.0], np.cumsum(np.where(rated, ratings, 0.0)[order])])
        by_time = np.argsort(times, kind="stable")
        self._all_rated = np.concatenate([[0], np.cumsum(rated[by_time])])
        self._all_sum = np.concatenate([[0.0], np.cumsum(np.where(rated, ratings, 0.0)[by_time])])

    def log_popularity(self, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        """log((events of the item + 1) / (events of all items + D)) strictly before each time; both inputs (N,).

        A share, so that values at an early and at a late moment compare. Times are microseconds since 1970.
        """
        first, last = self._range(items, times)
        return np.log((last - first + 1) / (np.searchsorted(self._moments, times) + self._n_items))

    def mean_rating(self, items: np.ndarray, times: np.ndarray, prior: float) -> np.ndarray:
        """Mean rating strictly before each time, shrunk towards the mean over all items by `prior` pseudo-ratings;
        no rating: 0.
        """
        first, last = self._range(items, times)
        place = np.searchsorted(self._moments, times)
        overall = self._all_sum[place] / np.maximum(self._all_rated[place], 1)
        count, total = self._rated[last] - self._rated[first], self._rating_sum[last] - self._rating_sum[first]
        return (total + prior * overall) / np.maximum(count + prior, 1e-12)

    def _range(self, items: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places in item-then-time order of each item's first event and of its first event at or after each time."""
        moment = np.searchsorted(self._moments, times)
        return np.searchsorted(self._keys, items * self._span), np.searchsorted(self._keys, items * self._span + moment)
