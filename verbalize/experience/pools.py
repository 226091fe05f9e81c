"""The library's observation clusters in memory: prototypes with their owners, and the lessons linked to each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from verbalize.experience.clusters import assign_clusters, nearest_clusters
from verbalize.experience.index import GrowingMatrix

SCHEMA: dict[str, Any] = {
    "observation": pl.String,
    "users": pl.List(pl.String),
    "sources": pl.List(pl.String),
}


@dataclass(frozen=True)
class Prototype:
    """A cluster's first observation and whose it was."""

    observation: str
    users: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


class ClusterPools:
    """A cluster's number is its place; numbers change only when a user is forgotten."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self.prototypes: list[Prototype] = []
        self._vectors = GrowingMatrix(dimension)
        self.links: dict[int, list[str]] = {}

    def __len__(self) -> int:
        return len(self.prototypes)

    @property
    def vectors(self) -> np.ndarray:
        """(C, D)."""
        return self._vectors.view

    def append(self, prototypes: Sequence[Prototype], vectors: np.ndarray) -> None:
        self.prototypes += prototypes
        self._vectors.append(vectors)

    def observe(self, observations: Sequence[Prototype], vectors: np.ndarray, delta: float) -> np.ndarray:
        """Labels (B,), founding clusters for observations that are near none."""
        labels, founders = assign_clusters(self.vectors, vectors, delta)
        self.append([observations[row] for row in founders], vectors[founders])
        return labels

    def locate(self, vectors: np.ndarray, delta: float) -> np.ndarray:
        """Labels (B,), −1 for observations that are near no cluster."""
        return nearest_clusters(self.vectors, vectors, delta)

    def link(self, cluster: int, ids: Sequence[str]) -> None:
        pool = self.links.setdefault(cluster, [])
        pool += [name for name in ids if name not in pool]

    def unlink(self, ids: Collection[str]) -> None:
        """Take lessons out of every pool."""
        gone = set(ids)
        self.links = {
            cluster: kept
            for cluster, pool in self.links.items()
            if (kept := [name for name in pool if name not in gone])
        }

    def without_user(self, user: str) -> "ClusterPools":
        """The same clusters but those founded by the user's observations, renumbered."""
        kept = [place for place, prototype in enumerate(self.prototypes) if user not in prototype.users]
        pools = ClusterPools(self._dimension)
        pools.append([self.prototypes[place] for place in kept], self.vectors[kept])
        pools.links = {new: self.links[old] for new, old in enumerate(kept) if old in self.links}
        return pools


def to_frame(prototypes: Sequence[Prototype]) -> pl.DataFrame:
    """Rows of SCHEMA, in order."""
    rows = [{"observation": p.observation, "users": list(p.users), "sources": list(p.sources)} for p in prototypes]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def from_frame(frame: pl.DataFrame) -> list[Prototype]:
    """The inverse of `to_frame`."""
    return [
        Prototype(row["observation"], tuple(row["users"]), tuple(row["sources"])) for row in frame.iter_rows(named=True)
    ]
