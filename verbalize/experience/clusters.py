"""Observation clusters (SLEA-RL): prototypes, who joins whom, and what a pool shows; pure functions on arrays.

Prototypes never move: a cluster is its first observation. So an observation's cluster does not depend on how many came
before it, and the prototype can be forgotten with the user it came from.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

_CHUNK = 256
_DIGITS = 6  # of a similarity: float32 products of unit vectors agree to about 1e-6 between kernels


def assign_clusters(prototypes: np.ndarray, observations: np.ndarray, delta: float) -> tuple[np.ndarray, list[int]]:
    """Labels (B,) of observations (B, D) against prototypes (C, D), and which observations found a new cluster.

    In order, each observation joins the nearest prototype if its similarity is at least `delta` (ties: the older), else
    founds cluster C, C + 1, ... with itself as prototype, which later ones may join.
    """
    labels = np.full(len(observations), -1, dtype=np.int64)
    founders: list[int] = []
    for start in range(0, len(observations), _CHUNK):
        part = observations[start : start + _CHUNK]
        known = _similarities(part, np.concatenate([prototypes, observations[founders]]))
        among = _similarities(part, part)
        new: list[int] = []
        for row in range(len(part)):
            both = np.concatenate([known[row], among[row, new]])
            nearest = int(both.argmax()) if len(both) else -1
            if nearest < 0 or both[nearest] < delta:
                nearest = len(both)
                new.append(row)
            labels[start + row] = nearest
        founders += [start + row for row in new]
    return labels, founders


def nearest_clusters(prototypes: np.ndarray, observations: np.ndarray, delta: float) -> np.ndarray:
    """Labels (B,) without founding: −1 where no prototype is at least `delta` similar."""
    if not len(prototypes):
        return np.full(len(observations), -1, dtype=np.int64)
    similar = _similarities(observations, prototypes)
    nearest = similar.argmax(1)
    return np.where(similar[np.arange(len(observations)), nearest] >= delta, nearest, -1)


def top_of_pool(
    scores: Sequence[float],
    similarities: Sequence[float],
    ties: Sequence[int],
    k: int,
    rank_by: Literal["score", "similarity"] = "score",
) -> list[int]:
    """Positions of the k best of a pool, by score and then similarity or the other way round, then by `ties`
    (ascending).
    """
    first, second = (scores, similarities) if rank_by == "score" else (similarities, scores)
    order = np.lexsort((np.asarray(ties, dtype=np.uint64), -np.asarray(second, float), -np.asarray(first, float)))
    return [int(i) for i in order[:k]]


def _similarities(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.round(np.asarray(left, np.float64) @ np.asarray(right, np.float64).T, _DIGITS)
