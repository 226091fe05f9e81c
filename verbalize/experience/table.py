"""The records of a library in memory: columns for filtering, vectors of both views, and an index per view."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from recsys.errors import InputError
from recsys.seeding import stable_hash
from verbalize.experience.entries import KINDS, VIEWS, ZONES, Exclude, Experience, owners
from verbalize.experience.index import GrowingMatrix, VectorIndex
from verbalize.experience.search import FilteredSearch
from verbalize.experience.settings import IndexConfig

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = np.iinfo(np.int64).max  # time of a record without one, and the cutoff of a query without one
_NOBODY = -1


class EntryTable:
    """Append-only rows; a removed record stays as a masked row until the library is compacted."""

    def __init__(self, dimension: int, config: IndexConfig) -> None:
        self.config = config
        self.entries: list[Experience] = []
        self.row_of: dict[str, int] = {}
        self.vectors = {view: GrowingMatrix(dimension) for view in VIEWS}
        self.dimension = dimension
        self._columns = GrowingMatrix(3, np.int64)  # time, kind, zone
        self._alive = GrowingMatrix(1, np.bool_)
        self._ties = GrowingMatrix(1, np.uint64)
        self._owners = GrowingMatrix(1, np.int32)
        self._codes: dict[str, int] = {}
        self._indexes: dict[str, VectorIndex] = {}

    def __len__(self) -> int:
        """Records that have not been removed."""
        return len(self.row_of)

    @property
    def n_rows(self) -> int:
        return len(self.entries)

    @property
    def alive(self) -> np.ndarray:
        return self._alive.view[:, 0]

    @property
    def ties(self) -> np.ndarray:
        """(N,) order of equal similarities: a hash of the id, so it does not depend on the order of admission."""
        return self._ties.view[:, 0]

    def append(self, entries: Sequence[Experience], vectors: dict[str, np.ndarray]) -> None:
        """Add rows; `vectors` holds (N, D) unit vectors per view. Existing indexes grow, none is built again."""
        start = self.n_rows
        names = [owners(entry) for entry in entries]
        width = max([1, *map(len, names)])
        if width > self._owners.view.shape[1]:
            wider = GrowingMatrix(width, np.int32)
            old = self._owners.view
            wider.append(np.pad(old, ((0, 0), (0, width - old.shape[1])), constant_values=_NOBODY))
            self._owners = wider
        codes = np.full((len(entries), self._owners.view.shape[1]), _NOBODY, dtype=np.int32)
        for row, owned in enumerate(names):
            codes[row, : len(owned)] = [self._codes.setdefault(name, len(self._codes)) for name in owned]
        columns = [(moment(e.time), KINDS.index(e.kind), ZONES.index(e.zone) if e.zone else -1) for e in entries]
        self.entries += entries
        self.row_of.update((entry.id, start + row) for row, entry in enumerate(entries))
        self._owners.append(codes)
        self._columns.append(np.array(columns, dtype=np.int64).reshape(-1, 3))
        self._alive.append(np.ones((len(entries), 1), dtype=bool))
        self._ties.append(np.array([[stable_hash("tie", e.id)] for e in entries], dtype=np.uint64).reshape(-1, 1))
        for view in VIEWS:
            self.vectors[view].append(vectors[view])
        for view, index in self._indexes.items():
            index.add(vectors[view])

    def remove(self, ids: Collection[str]) -> list[int]:
        """Mask records; their rows are returned."""
        rows = [self.row_of.pop(name) for name in ids]
        self.alive[rows] = False
        return rows

    def revive(self, except_rows: Sequence[int]) -> None:
        """Mask exactly these rows."""
        self.alive[:] = True
        self.alive[list(except_rows)] = False
        self.row_of = {self.entries[row].id: int(row) for row in np.flatnonzero(self.alive)}

    def search(
        self,
        view: str,
        queries: np.ndarray,
        k: int,
        before: Sequence[datetime | None],
        exclude: Sequence[Exclude],
        kind: str | None = None,
        zone: str | None = None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per query, (rows, similarities) of its k nearest records that it may see."""
        permitted = self.alive.copy()
        for place, value, choices in ((1, kind, KINDS), (2, zone, ZONES)):
            if value is not None:
                permitted &= self._columns.view[:, place] == choices.index(value)
        if not permitted.any():
            return [(np.zeros(0, np.int64), np.zeros(0))] * len(queries)
        return FilteredSearch(
            self.index(view),
            self.vectors[view].view,
            self.ties,
            queries,
            k,
            permitted,
            lambda places, rows: self.allowed(rows, [before[i] for i in places], [exclude[i] for i in places]),
        ).run()

    def allowed(self, rows: np.ndarray, before: Sequence[datetime | None], exclude: Sequence[Exclude]) -> np.ndarray:
        """Which of the rows (B, M) each of B queries may see: known strictly before its cutoff, and not its own."""
        # A query without a cutoff also sees records without a time, hence the comparison with two bounds.
        cutoff = np.array([moment(b) for b in before], dtype=np.int64)[:, None]
        seen = (cutoff == _NEVER) | (self._columns.view[rows, 0] < cutoff)
        unwanted = [self._codes_of(e) for e in exclude]
        width = max([0, *map(len, unwanted)])
        if width:
            table = np.full((len(unwanted), width), _NOBODY - 1, dtype=np.int32)  # matches no owner
            for place, codes in enumerate(unwanted):
                table[place, : len(codes)] = codes
            owned = self._owners.view[rows]  # (B, M, W)
            for place in range(width):
                seen &= ~(owned == table[:, place, None, None]).any(-1)
        return seen

    def index(self, view: str) -> VectorIndex:
        """Built on first use of a view, kept up to date after."""
        if view not in self._indexes:
            index = VectorIndex(self.dimension, self.config)
            index.add(self.vectors[view].view)
            self._indexes[view] = index
        return self._indexes[view]

    def _codes_of(self, exclude: Exclude) -> list[int]:
        names = [f"user:{u}" for u in exclude.users] + [f"source:{s}" for s in exclude.sources]
        return [self._codes[name] for name in names if name in self._codes]


def moment(time: datetime | None) -> int:
    """Microseconds since 1970, exact; records and queries without a time are at the end of time."""
    if time is None:
        return int(_NEVER)
    if time.tzinfo is None:
        raise InputError(f"time {time}", "has no time zone", "give UTC times: datetime(..., tzinfo=UTC)")
    return (time - _EPOCH) // timedelta(microseconds=1)
