"""The experience library: retrieve, admit, evolve, forget; persistent, versioned, one writer and any number of readers.

    with ExperienceLibrary.open(folder, ExperienceConfig()) as library:
        library.admit([trajectory(...), lesson(...)])
        hits = library.retrieve(["put a clean mug on the shelf"], 2, before=None, exclude=Exclude(sources=["game-7"]))

Every `admit`, `evolve`, `forget` and `rollback` commits a version before it returns (`snapshots.py`). A library opened
with `read_only=True`, as evaluation does, keeps the version it opened until `refresh`, and refuses every change. What
retrieval may show is decided by the caller for every query: `before` and `exclude` have no default.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from recsys.errors import InputError
from verbalize.experience import snapshots
from verbalize.experience.admission import gate_open
from verbalize.experience.content import compacted, empty_content, read_content, write_content
from verbalize.experience.embedding import CachedEmbedder, Embedder, unit_vectors
from verbalize.experience.entries import KINDS, VIEWS, ZONES, Exclude, Experience, Hit
from verbalize.experience.evolution import Episode, EvolutionReport, Extract, Usage, next_evolution
from verbalize.experience.settings import ExperienceConfig
from verbalize.experience.snapshots import Version
from verbalize.experience.steps import StepExperience, retrieve_steps

Cutoffs = datetime | None | Sequence[datetime | None]
Exclusions = Exclude | None | Sequence[Exclude | None]
_ATTEMPTS = 20  # a reader overtaken by so many commits in a row gives up


@dataclass(frozen=True)
class Admitted:
    """Ids that entered, and how many records were there already."""

    ids: tuple[str, ...]
    known: int


class ExperienceLibrary:
    """Make it with `open`. Not for use by several threads at once."""

    def __init__(self, folder: Path, config: ExperienceConfig, embedder: Embedder | None, lock: IO[str] | None) -> None:
        self.folder, self.config = folder, config
        self._embed = CachedEmbedder(config.embedding, embedder)
        self._lock = lock
        self._pinned: int | None = None
        self._version = Version(0, 0, config.embedding, 0)
        self._content = empty_content(0, config.index)

    @classmethod
    def open(
        cls,
        folder: Path | str,
        config: ExperienceConfig | None = None,
        embedder: Embedder | None = None,
        *,
        read_only: bool = False,
        version: int | None = None,
    ) -> "ExperienceLibrary":
        """Open or, when writing, make a library.

        `embedder` (texts -> unit vectors) stands for the model that `config.embedding` names. `version` opens an older
        snapshot, read-only. Raises InputError when another process writes, the model differs from the one the library
        was made with, or there is no library to read; CorruptFileError when a file is damaged.
        """
        folder, config = Path(folder), config or ExperienceConfig()
        if version is not None and not read_only:
            raise InputError(
                f"version {version} opened for writing",
                "only the current version can be written to",
                "open with read_only=True, or call rollback(version)",
            )
        lock = None if read_only else snapshots.hold_writer_lock(folder)
        library = cls(folder, config, embedder, lock)
        library._pinned = version
        try:
            if not read_only and not snapshots.exists(folder):
                library._create()
            else:
                library._load()
                if lock is not None:
                    library._delete_old()  # what a killed writer left, also in the middle of forgetting
        except BaseException:
            library.close()
            raise
        return library

    def __enter__(self) -> "ExperienceLibrary":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another process write. Clusters and links since the last commit are dropped."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

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
            learn=self._lock is not None,
        )

    def admit(self, entries: Sequence[Experience], vectors: dict[str, np.ndarray] | None = None) -> Admitted:
        """Add records unconditionally and commit; known ids are left as they are. Indexes grow, none is built again.

        `vectors`, {"key": (N, D), "text": (N, D)}, saves the embedding.
        """
        self._writable()
        places = {
            e.id: place for place, e in reversed(list(enumerate(entries))) if e.id not in self._content.table.row_of
        }
        rows = sorted(places.values())
        new = [entries[row] for row in rows]
        if vectors is None:
            given = {view: self._vectors([e.view(view) for e in new]) for view in VIEWS}
        else:
            given = {
                view: unit_vectors(vectors[view], len(entries), self._content.table.dimension)[rows] for view in VIEWS
            }
        if new:
            self._append(new, given)
            self._content.usage.update((e.id, Usage(self._content.epoch)) for e in new if e.kind == "lesson")
            self.commit()
        return Admitted(tuple(e.id for e in new), len(entries) - len(new))

    def evolve(self, episodes: Sequence[Episode], extract: Extract) -> EvolutionReport:
        """One step of evolution from a batch of finished episodes, committed as one version."""
        self._writable()
        step = next_evolution(
            episodes,
            extract,
            self._content.table,
            self._content.usage,
            self._content.epoch,
            self._vectors,
            self.config.admission,
        )
        self._content.table.remove(step.evicted)
        self._content.pools.unlink(step.evicted)
        self._append(step.admitted, step.vectors)
        self._content.usage = step.usage
        self._content.epoch += 1
        self.commit()
        return step.report

    def forget(self, user: str) -> int:
        """Remove every record and prototype that a user's data went into, from memory and from every file, all older
        versions included; the number of records removed. Readers that are open keep what they hold until `refresh`.
        """
        self._writable()
        names = [e.id for e in self.entries() if user in e.users]
        self._content.table.remove(names)
        self._content.pools.unlink(names)
        self._content.pools = self._content.pools.without_user(user)
        for name in names:
            self._content.usage.pop(name, None)
        self._embed.forget()
        self._compact()
        self._version = write_content(self.folder, self._content, self._version, self.version + 1)
        self._delete_old()
        return len(names)

    def rollback(self, version: int) -> None:
        """Continue from an older version: its content becomes the newest version (a resumed training run)."""
        self._writable()
        old = snapshots.read_version(self.folder, version)
        snapshots.commit(self.folder, replace(old, version=self.version + 1, oldest=self._version.oldest))
        self._load()

    def refresh(self) -> None:
        """Show a reader the newest version; only what is new is read, unless the files were rewritten."""
        if self._lock is None and self._pinned is None:
            self._load()

    def commit(self) -> None:
        """Write what is new and make it the current version. Only needed to keep clusters between evolutions."""
        self._writable()
        table, config = self._content.table, self.config
        if (
            table.n_rows - len(table) > config.compact_dead * table.n_rows
            or max(len(self._version.entries), len(self._version.clusters)) >= config.compact_segments
        ):
            self._compact()
        self._version = write_content(self.folder, self._content, self._version, self._version.oldest)
        self._delete_old()

    def _create(self) -> None:
        dimension = self._embed(["dimension"]).shape[1]
        self._version = Version(0, 0, self.config.embedding, dimension)
        self._content = empty_content(dimension, self.config.index)
        self.commit()

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

    def _compact(self) -> None:
        """Renumber; the next commit then writes all living rows and all clusters, into one segment each."""
        self._content = compacted(self._content, self.config.index)
        self._version = replace(self._version, entries=(), clusters=())

    def _delete_old(self) -> None:
        known = snapshots.kept_versions(self.folder)
        wanted = [v for v in known if self._version.oldest <= v <= self.version]
        snapshots.collect_garbage(self.folder, wanted[-self.config.keep_versions :])

    def _append(self, entries: Sequence[Experience], vectors: dict[str, np.ndarray]) -> None:
        self._content.table.append(entries, vectors)
        places = [place for place, e in enumerate(entries) if e.kind == "lesson"]
        if places:
            clusters = self._content.pools.locate(vectors["key"][places], self.config.clusters.delta)
            for place, cluster in zip(places, clusters, strict=True):
                if cluster >= 0:
                    self._content.pools.link(int(cluster), [entries[place].id])

    def _vectors(self, queries: Sequence[str] | np.ndarray) -> np.ndarray:
        vectors = queries if isinstance(queries, np.ndarray) or not len(queries) else self._embed(queries)
        dimension = self._content.table.dimension
        if not len(queries):
            return np.zeros((0, dimension), dtype=np.float32)
        return unit_vectors(np.asarray(vectors), len(queries), dimension)

    def _writable(self) -> None:
        if self._lock is None:
            raise InputError(
                f"a change of {self.folder}",
                "the library is open for reading only",
                "open it without read_only; evaluation must not change it",
            )


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
