"""Item-kNN: cosine similarity of binary item columns, shrunk towards zero where few users support it, k neighbours
kept.

    sim(i, j) = |U_i ∩ U_j| / (sqrt(|U_i| |U_j|) + shrinkage)    score(c) = Σ over h in history ∩ N_k(c) of sim(c, h)

After Sarwar et al. (2001), with the additive shrinkage of Ferrari Dacrema et al. (2019). Similarities are computed
in row blocks, so memory is O(block x D + D k), never D².
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

import numpy as np
import polars as pl
from scipy import sparse

from recsys.recommenders.collaborative import Catalogue, HistoryRecommender, check_before, interaction_matrix

_BLOCK = 1024


@dataclass(frozen=True)
class ItemKNNConfig:
    """`neighbours` k kept per item; `shrinkage` in pseudo-users: larger distrusts rare items more."""

    neighbours: int = 100
    shrinkage: float = 10.0


class ItemKNN(HistoryRecommender):
    """Sums the similarities between a candidate and the distinct items of the history."""

    name = "item_knn"

    def __init__(self, catalogue: Catalogue, similarity: sparse.csr_matrix) -> None:
        super().__init__(catalogue)
        self.similarity = similarity  # (D, D), at most k entries a row, zero diagonal

    @classmethod
    def fit(
        cls, events: pl.DataFrame, items: pl.DataFrame, *, before: datetime, config: ItemKNNConfig | None = None
    ) -> Self:
        """Fit on `events`, all strictly before `before` (InputError otherwise)."""
        check_before(events, before)
        catalogue = Catalogue(items["item_id"].to_list())
        return cls(catalogue, neighbour_similarity(interaction_matrix(events, catalogue), config or ItemKNNConfig()))

    def score(self, history: np.ndarray, slate: np.ndarray) -> np.ndarray:
        return np.asarray(self.similarity[slate][:, np.unique(history)].sum(axis=1)).ravel()


def neighbour_similarity(interactions: sparse.csr_matrix, config: ItemKNNConfig) -> sparse.csr_matrix:
    """(U, D) binary interactions -> (D, D) shrunk cosine similarities, the k largest of each row, zero diagonal.

    Equal similarities at the k-th place are kept in the order of item ids, so the result is deterministic.
    """
    columns = interactions.tocsc()
    norms = np.sqrt(np.asarray(columns.sum(axis=0)).ravel())  # (D,)
    n_items = columns.shape[1]
    blocks = []
    for start in range(0, n_items, _BLOCK):
        stop = min(start + _BLOCK, n_items)
        shared = (columns[:, start:stop].T @ columns).toarray()  # (block, D) users in common
        scale = norms[start:stop, None] * norms[None, :] + config.shrinkage
        similarity = np.divide(shared, scale, out=np.zeros_like(shared), where=shared > 0)
        similarity[np.arange(stop - start), np.arange(start, stop)] = 0.0
        if config.neighbours < n_items:
            dropped = np.argsort(-similarity, axis=1, kind="stable")[:, config.neighbours :]
            np.put_along_axis(similarity, dropped, 0.0, axis=1)
        blocks.append(sparse.csr_matrix(similarity))
    return sparse.vstack(blocks, format="csr")
