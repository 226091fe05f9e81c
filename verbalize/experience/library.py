"""The experience library: retrieve, admit, evolve, forget; persistent, versioned, one writer and any number of readers.

    with ExperienceLibrary.open(folder, ExperienceConfig()) as library:
        library.admit([trajectory(...), lesson(...)])
        hits = library.retrieve(["put a clean mug on the shelf"], 2, before=None, exclude=Exclude(sources=["game-7"]))

Every `admit`, `evolve`, `forget` and `rollback` commits a version before it returns (`snapshots.py`). A library opened
with `read_only=True`, as evaluation does, keeps the version it opened until `refresh`, and refuses every change. What
retrieval may show is decided by the caller for every query: `before` and `exclude` have no default.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from recsys.errors import InputError
from verbalize.experience import snapshots
from verbalize.experience.content import compacted, empty_content, write_content
from verbalize.experience.embedding import Embedder, unit_vectors
from verbalize.experience.entries import VIEWS, Experience
from verbalize.experience.evolution import Episode, EvolutionReport, Extract, Usage, next_evolution
from verbalize.experience.reading import ReadableLibrary
from verbalize.experience.settings import ExperienceConfig
from verbalize.experience.snapshots import Version


@dataclass(frozen=True)
class Admitted:
    """Ids that entered, and how many records were there already."""

    ids: tuple[str, ...]
    known: int


class ExperienceLibrary(ReadableLibrary):
    """Make it with `open`. Not for use by several threads at once."""

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

    def _writable(self) -> None:
        if not self.writable:
            raise InputError(
                f"a change of {self.folder}",
                "the library is open for reading only",
                "open it without read_only; evaluation must not change it",
            )
