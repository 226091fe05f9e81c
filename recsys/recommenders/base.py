"""The protocol every recommender obeys: queries and slates in, scores out.

A query has both a text and a history. Text recommenders read only `text`, collaborative ones only `history`,
so one evaluation loop serves both and neither can peek at the other's input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Query:
    """What is known about one user at one cutoff.

    `history` holds item ids, oldest first, all strictly before the cutoff. `example_id` only seeds orders and ties.
    """

    example_id: str
    text: str
    history: tuple[str, ...] = ()


@runtime_checkable
class Recommender(Protocol):
    """Scores the candidates of a slate for a query; higher is better."""

    name: str

    def rank(self, queries: Sequence[Query], slates: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """B queries and B slates of item ids (sizes S_b may differ) -> B float64 arrays of shape (S_b,).

        Scores depend on the set of candidates at most, never on their order in the slate (modes that show the whole
        slate derive their own order from `example_id`). Unknown item ids raise InputError.
        """
        ...
