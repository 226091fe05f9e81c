"""What the recommenders without a language model share: a catalogue index, the interaction matrix, one ranking loop.

They read `Query.history` only, never `Query.text`. Each is fitted on events strictly before its split's start;
`check_before` makes a later event an error instead of a leak.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import polars as pl
from scipy import sparse

from recsys.errors import InputError
from recsys.metrics import target_ranks
from recsys.recommenders.base import Query


class Catalogue:
    """Item ids and their positions 0..D-1, in sorted order so that a catalogue's row order changes nothing.

    >>> catalogue = Catalogue(["b", "a"])
    >>> catalogue.slate(["b"]).tolist(), catalogue.known(["a", "?"]).tolist()
    ([1], [0])
    """

    def __init__(self, item_ids: Sequence[str]) -> None:
        self.ids = tuple(sorted(item_ids))
        self.position = {item_id: index for index, item_id in enumerate(self.ids)}
        if len(self.position) != len(self.ids):
            raise InputError(
                f"{len(self.ids) - len(self.position)} repeated item ids",
                "a catalogue lists each item once",
                "remove the repeated rows of the items table",
            )

    def __len__(self) -> int:
        return len(self.ids)

    def slate(self, item_ids: Sequence[str]) -> np.ndarray:
        """S item ids -> (S,) positions. Raises InputError naming the first item that the catalogue lacks."""
        try:
            return np.fromiter((self.position[item_id] for item_id in item_ids), dtype=np.int64, count=len(item_ids))
        except KeyError as error:
            raise InputError(
                f"item {error.args[0]!r}",
                f"is in a slate but not in the catalogue of {len(self)} items",
                "fit the recommender on the items table the slates were drawn from",
            ) from None

    def known(self, item_ids: Sequence[str]) -> np.ndarray:
        """Positions of those ids that the catalogue knows, in order; the others are left out."""
        return np.array([self.position[item_id] for item_id in item_ids if item_id in self.position], dtype=np.int64)


class HistoryRecommender(ABC):
    """One loop for all recommenders that score a slate from the ids in a history.

    `ignored_history_items` counts history entries that the catalogue does not know, over all calls of `rank`.
    """

    name: str

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.ignored_history_items = 0

    @abstractmethod
    def score(self, history: np.ndarray, slate: np.ndarray) -> np.ndarray:
        """History positions (H,), oldest first, and slate positions (S,) -> scores (S,), higher is better."""

    def rank(self, queries: Sequence[Query], slates: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """See `Recommender.rank`. Unknown items raise InputError in a slate, are ignored and counted in a history."""
        if len(queries) != len(slates):
            raise InputError(
                f"{len(queries)} queries and {len(slates)} slates",
                "each query needs exactly one slate",
                "pass one slate per query",
            )
        scores = []
        for query, slate in zip(queries, slates, strict=True):
            history = self.catalogue.known(query.history)
            self.ignored_history_items += len(query.history) - len(history)
            scores.append(np.asarray(self.score(history, self.catalogue.slate(slate)), dtype=np.float64))
        return scores

    @property
    def item_ids(self) -> Sequence[str]:
        """All items, sorted."""
        return self.catalogue.ids

    def catalogue_ranks(
        self, queries: Sequence[Query], targets: Sequence[str], *, excluded: Sequence[Sequence[int] | np.ndarray]
    ) -> np.ndarray:
        """See `CatalogueRanker`: the whole catalogue is one long slate, of which what is excluded is taken away."""
        everything = np.arange(len(self.catalogue))
        scores, places = [], []
        for query, target, left_out in zip(queries, self.catalogue.slate(targets).tolist(), excluded, strict=True):
            counts = np.ones(len(everything), bool)
            counts[np.asarray(left_out, dtype=np.int64)] = False
            counts[target] = True
            row = np.asarray(self.score(self.catalogue.known(query.history), everything), dtype=np.float64)
            scores.append(row[counts])
            places.append(int(counts[:target].sum()))
        return target_ranks(scores, places, [query.example_id for query in queries])


def check_before(events: pl.DataFrame, before: datetime, what: str = "events") -> None:
    """Raise InputError when an event is not strictly before `before` (timezone-aware), the start of the split to be
    ranked.
    """
    late = events.filter(pl.col("event_time") >= before)
    if late.height:
        raise InputError(
            f"{late.height} {what} at or after {before.isoformat()} (latest {late['event_time'].max()!s})",
            "a recommender is fitted on events strictly before the split it ranks, or the future leaks",
            "filter the events to event_time < the split's start",
        )


def interaction_matrix(events: pl.DataFrame, catalogue: Catalogue) -> sparse.csr_matrix:
    """Binary users x items matrix (U, D), float64: 1 where the user has at least one event with the item.

    Raises InputError when an event's item is not in the catalogue.
    """
    pairs = events.select("user_id", "item_id").unique().sort("user_id", "item_id")
    columns = catalogue.slate(pairs["item_id"].to_list())
    rows = pairs["user_id"].rle_id().to_numpy().astype(np.int64)
    n_users = int(rows[-1]) + 1 if len(rows) else 0
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(n_users, len(catalogue)))


def history_item_ids(examples: pl.DataFrame) -> list[tuple[str, ...]]:
    """The item ids of each example's history, oldest first."""
    column = examples.select(pl.col("history").list.eval(pl.element().struct.field("item_id")))
    return [tuple(ids) for ids in column.to_series().to_list()]
