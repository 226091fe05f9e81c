"""EASE^R (Steck 2019): the closed-form linear item-item model, a strong collaborative reference at this scale.

    B = argmin ||X - X B||² + λ ||B||²  subject to diag(B) = 0      B_ij = -P_ij / P_jj  for i ≠ j,  P = (XᵀX + λ I)⁻¹

A candidate's score is the sum of its column over the distinct items of the history. λ is chosen on validation by
the caller. Memory is D² numbers, three times over while inverting (float64: 24 D² bytes), so larger catalogues are
refused.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

import numpy as np
import polars as pl
from scipy import sparse

from recsys.errors import InputError
from recsys.recommenders.collaborative import Catalogue, HistoryRecommender, check_before, interaction_matrix


@dataclass(frozen=True)
class EaseConfig:
    """`l2` λ in pseudo-users; `dtype` float32 halves the memory; `max_items` is the largest catalogue that is tried."""

    l2: float = 250.0
    dtype: Literal["float32", "float64"] = "float64"
    max_items: int = 12_000


class Ease(HistoryRecommender):
    """Linear item-item scores from the closed form."""

    name = "ease"

    def __init__(self, catalogue: Catalogue, weights: np.ndarray) -> None:
        super().__init__(catalogue)
        self.weights = weights  # (D, D): row = item in the history, column = candidate

    @classmethod
    def fit(
        cls, events: pl.DataFrame, items: pl.DataFrame, *, before: datetime, config: EaseConfig | None = None
    ) -> Self:
        """Fit on `events`, all strictly before `before`. Raises InputError on later events and on too many items."""
        config = config or EaseConfig()
        check_before(events, before)
        if items.height > config.max_items:
            gigabytes = 3 * items.height**2 * np.dtype(config.dtype).itemsize / 1e9
            raise InputError(
                f"{items.height} items",
                f"EASE^R inverts a dense matrix of that side: {gigabytes:.1f} GB, "
                f"above the limit of {config.max_items} items",
                "use item-kNN, drop rare items, or raise max_items where memory allows",
            )
        catalogue = Catalogue(items["item_id"].to_list())
        return cls(catalogue, ease_weights(interaction_matrix(events, catalogue), config))

    def score(self, history: np.ndarray, slate: np.ndarray) -> np.ndarray:
        return self.weights[np.ix_(np.unique(history), slate)].sum(axis=0)


def ease_weights(interactions: sparse.csr_matrix, config: EaseConfig) -> np.ndarray:
    """(U, D) interactions -> (D, D) weights with a zero diagonal. Raises InputError unless λ > 0."""
    if config.l2 <= 0:
        raise InputError(
            f"l2 {config.l2}",
            "the Gram matrix of a catalogue with unseen items is singular without ridge",
            "set l2 > 0, typically 50 to 1000",
        )
    gram = (interactions.T @ interactions).toarray().astype(config.dtype)
    gram[np.diag_indices_from(gram)] += config.l2
    precision = np.linalg.inv(gram)
    weights = precision / -np.diag(precision)  # divides column j by -P_jj
    np.fill_diagonal(weights, 0.0)
    return weights
