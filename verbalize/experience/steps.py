"""What a step of an episode is shown (SLEA-RL): the pools of the observation's cluster, or else near lessons.

For each observation: join or found a cluster, take the best permitted strategies and warnings of its pools; where a
pool holds none, take the library's lessons at observations more similar than delta, and link them to the cluster.

Deviation: an observation with a cutoff (histories of users) never consults clusters, whose prototypes and links come
from all times; it takes the near permitted lessons directly, so nothing later than its cutoff can touch the result.
Links made by a batch take effect after it, so the order within a batch does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from verbalize.experience.clusters import top_of_pool
from verbalize.experience.entries import ZONES, Exclude, Hit
from verbalize.experience.pools import ClusterPools, Prototype
from verbalize.experience.search import exact_similarities
from verbalize.experience.settings import ClusterConfig
from verbalize.experience.table import EntryTable

_NEAREST = 64  # lessons considered, and linked, when a pool is empty


@dataclass(frozen=True)
class StepExperience:
    """`cluster` is the number by which step advantages group observations; −1 when none is near or founded."""

    cluster: int
    strategies: tuple[Hit, ...]
    warnings: tuple[Hit, ...]

    @property
    def ids(self) -> frozenset[str]:
        """Of everything shown: what `Episode.used` collects."""
        return frozenset(hit.entry.id for hit in (*self.strategies, *self.warnings))


def retrieve_steps(
    table: EntryTable,
    pools: ClusterPools,
    observations: Sequence[str],
    vectors: np.ndarray,
    before: Sequence[datetime | None],
    exclude: Sequence[Exclude],
    config: ClusterConfig,
    learn: bool,
) -> list[StepExperience]:
    """B observations with vectors (B, D). With `learn`, `pools` is changed: clusters are founded, owned by the users
    and sources that the observation excludes (its own), and fallbacks linked.
    """
    if learn:
        seen = [
            Prototype(text, tuple(sorted(own.users)), tuple(sorted(own.sources)))
            for text, own in zip(observations, exclude, strict=True)
        ]
        labels = pools.observe(seen, vectors, config.delta)
    else:
        labels = pools.locate(vectors, config.delta)
    shown: dict[str, list[tuple[Hit, ...]]] = {}
    links: list[tuple[int, list[str]]] = []
    for zone, k in zip(ZONES, (config.strategies, config.warnings), strict=True):
        rows = [
            _pool(table, pools, int(label), zone, cutoff, own) if cutoff is None else np.zeros(0, np.int64)
            for label, cutoff, own in zip(labels, before, exclude, strict=True)
        ]
        empty = [place for place, found in enumerate(rows) if not len(found)]
        near = table.search(
            "key",
            vectors[empty],
            _NEAREST,
            [before[i] for i in empty],
            [exclude[i] for i in empty],
            kind="lesson",
            zone=zone,
        )
        for place, (found, similarities) in zip(empty, near, strict=True):
            rows[place] = found[similarities > config.delta]
            if learn and before[place] is None:
                links.append((int(labels[place]), [table.entries[row].id for row in rows[place]]))
        shown[zone] = [_best(table, found, vectors[place], k, config) for place, found in enumerate(rows)]
    for cluster, ids in links:
        if ids:
            pools.link(cluster, ids)
    return [
        StepExperience(int(label), strategies, warnings)
        for label, strategies, warnings in zip(labels, shown["strategy"], shown["warning"], strict=True)
    ]


def _pool(
    table: EntryTable, pools: ClusterPools, cluster: int, zone: str, before: datetime | None, own: Exclude
) -> np.ndarray:
    """Rows of the permitted lessons of one zone that are linked to a cluster."""
    rows = np.array(
        [table.row_of[name] for name in pools.links.get(cluster, ()) if table.entries[table.row_of[name]].zone == zone],
        dtype=np.int64,
    )
    return rows[table.allowed(rows[None], [before], [own])[0]] if len(rows) else rows


def _best(table: EntryTable, rows: np.ndarray, vector: np.ndarray, k: int, config: ClusterConfig) -> tuple[Hit, ...]:
    if not len(rows) or k < 1:
        return ()
    similarities = exact_similarities(table.vectors["key"].view, rows[None], vector[None])[0]
    scores = [table.entries[row].score for row in rows]
    order = top_of_pool(scores, similarities, table.ties[rows], k, config.rank_by)
    return tuple(Hit(table.entries[rows[i]], float(similarities[i])) for i in order)
