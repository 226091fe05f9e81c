"""What a library answers without being changed: its records, the nearest permitted ones, the lessons for a step."""

from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from recsys.errors import InputError
from verbalize.experience import snapshots
from verbalize.experience.admission import gate_open
from verbalize.experience.content import empty_content, read_content
from verbalize.experience.embedding import CachedEmbedder, Embedder, unit_vectors
from verbalize.experience.entries import KINDS, VIEWS, ZONES, Exclude, Experience, Hit
from verbalize.experience.evolution import Usage
from verbalize.experience.settings import ExperienceConfig
from verbalize.experience.snapshots import Version
from verbalize.experience.steps import StepExperience, retrieve_steps

Cutoffs = datetime | None | Sequence[datetime | None]
Exclusions = Exclude | None | Sequence[Exclude | None]
_ATTEMPTS = 20  # a reader overtaken by so many commits in a row gives up


class ReadableLibrary:
    """The reading half of `ExperienceLibrary`, which opens it and holds the lock of a writer."""

    def __init__(self, folder: Path, config: ExperienceConfig, embedder: Embedder | None, lock: IO[str] | None) -> None:
        self.folder, self.config = folder, config
        self._embed = CachedEmbedder(config.embedding, embedder)
        self._lock = lock
        self._pinned: int | None = None
        self._version = Version(0, 0, config.embedding, 0)
        self._content = empty_content(0, config.index)

    def __len__(self) -> int:
        return len(self._content.table)

    @property
    def version(self) -> int:
        return self._version.version

    @property
    def epoch(self) -> int:
        """Completed steps of evolution."""
        return self._content.epoch

    @property
    def writable(self) -> bool:
        """Whether this process holds the library's only pen."""
        return self._lock is not None

    @property
    def clusters(self) -> int:
        return len(self._content.pools)

    def entries(self, kind: str | None = None, zone: str | None = None) -> list[Experience]:
        """Records in order of admission."""
        _known_choice("kind", kind, KINDS)
        _known_choice("zone", zone, ZONES)
        living = [self._content.table.entries[row] for row in sorted(self._content.table.row_of.values())]
        return [e for e in living if kind in (None, e.kind) and zone in (None, e.zone)]

    def usage(self, entry_id: str) -> Usage:
        """Age and evidence of a lesson. Raises InputError for an id that is not there."""
        if entry_id not in self._content.table.row_of:
            raise InputError(f"id {entry_id!r}", "is not in the library", "list entries()")
        return self._content.usage.get(entry_id, Usage(self._content.epoch))

    def gate(self, epoch: int) -> bool:
        """Whether lessons may be injected at this training epoch."""
        return gate_open(epoch, len(self.entries("lesson")), self.config.clusters)

    def retrieve(
        self,
        queries: Sequence[str] | np.ndarray,
        k: int,
        before: Cutoffs,
        exclude: Exclusions,
        *,
        view: str = "key",
        kind: str | None = None,
        zone: str | None = None,
    ) -> list[list[Hit]]:
        """The k nearest permitted records of each of B queries (texts, or (B, D) unit vectors), best first.

        `before` (one for all or one each) hides records without a time or with one at or after it; `exclude` hides the
        query's own user and trajectories; None hides nothing. Equal similarities are ordered by a hash of the id. With
        a flat index the result is exact and the same one by one or batched; with a graph only the filters are exact.
        """
        _known_choice("view", view, VIEWS)
        _known_choice("kind", kind, KINDS)
        _known_choice("zone", zone, ZONES)
        cutoffs, excluded = _each(before, len(queries)), [e or Exclude() for e in _each(exclude, len(queries))]
        if not len(queries) or not len(self):
            return [[] for _ in range(len(queries))]
        found = self._content.table.search(view, self._vectors(queries), k, cutoffs, excluded, kind, zone)
        return [
            [Hit(self._content.table.entries[row], float(score)) for row, score in zip(rows, scores, strict=True)]
            for rows, scores in found
        ]

    def retrieve_steps(self, observations: Sequence[str], before: Cutoffs, exclude: Exclusions) -> list[StepExperience]:
        """Cluster, strategies and warnings for each of B observations (SLEA-RL); see `verbalize.experience.steps`.

        While writing, observations found clusters and fallbacks are linked; both are kept by the next commit.
        """
        n = len(observations)
        cutoffs, excluded = _each(before, n), [e or Exclude() for e in _each(exclude, n)]
        if not n:
            return []
        return retrieve_steps(
            self._content.table,
            self._content.pools,
            observations,
            self._vectors(observations),
            cutoffs,
            excluded,
            self.config.clusters,
            learn=self.writable,
        )

    def refresh(self) -> None:
        """Show a reader the newest version; only what is new is read, unless the files were rewritten."""
        if not self.writable and self._pinned is None:
            self._load()

    def _load(self) -> None:
        for _ in range(_ATTEMPTS):
            try:
                with snapshots.stable_reading(self.folder, self._pinned):
                    version = snapshots.read_version(self.folder, self._pinned)
                    if version.embedding != self.config.embedding:
                        raise InputError(
                            f"embedding {self.config.embedding!r}",
                            f"the library was made with {version.embedding!r}, and vectors of two models cannot be "
                            "compared",
                            f"set embedding: {version.embedding}, or make a library in another folder",
                        )
                    self._content = read_content(self.folder, version, self.config.index, self._version, self._content)
                    self._version = version
                return
            except FileNotFoundError:
                continue
        raise InputError(str(self.folder), "is rewritten faster than it can be read", "try again")

    def _vectors(self, queries: Sequence[str] | np.ndarray) -> np.ndarray:
        vectors = queries if isinstance(queries, np.ndarray) or not len(queries) else self._embed(queries)
        dimension = self._content.table.dimension
        if not len(queries):
            return np.zeros((0, dimension), dtype=np.float32)
        return unit_vectors(np.asarray(vectors), len(queries), dimension)


def _each(value: Any, n: int) -> list[Any]:
    """One value for all, or one each."""
    if not isinstance(value, Collection):
        return [value] * n
    if len(value) != n:
        raise InputError(f"{len(value)} values for {n} queries", "give one for all or one each", "check the lengths")
    return list(value)


def _known_choice(name: str, value: str | None, allowed: Sequence[str]) -> None:
    if value is not None and value not in allowed:
        raise InputError(f"{name} {value!r}", f"must be one of {', '.join(allowed)}", "choose one of them")
