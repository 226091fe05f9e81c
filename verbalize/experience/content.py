"""Everything a version of the library holds, in memory, and its way to the files of `snapshots.py` and back."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from verbalize.experience import entries as records
from verbalize.experience import pools as clusters
from verbalize.experience import snapshots
from verbalize.experience.entries import VIEWS
from verbalize.experience.evolution import Usage
from verbalize.experience.pools import ClusterPools
from verbalize.experience.settings import IndexConfig
from verbalize.experience.snapshots import Segment, Version
from verbalize.experience.table import EntryTable


@dataclass
class Content:
    """Records, clusters, usage of the lessons, completed steps of evolution. Changed in place by the library."""

    table: EntryTable
    pools: ClusterPools
    usage: dict[str, Usage] = field(default_factory=dict)
    epoch: int = 0


def empty_content(dimension: int, config: IndexConfig) -> Content:
    return Content(EntryTable(dimension, config), ClusterPools(dimension))


def read_content(folder: Path, version: Version, config: IndexConfig, done: Version, content: Content) -> Content:
    """The content of `version`. When its files continue those of `done`, which `content` was read from, only the new
    ones are read and `content` grows; else all are. Reading comes before any change: a file may vanish under a reader.
    """
    skip = _common(version.entries, done.entries), _common(version.clusters, done.clusters)
    held = sum(s.rows for s in done.entries), sum(s.rows for s in done.clusters)
    extends = (
        version.dimension == done.dimension
        and skip == (len(done.entries), len(done.clusters))
        and held == (content.table.n_rows, len(content.pools))
    )
    entries = [
        (
            records.from_frame(snapshots.read_table(folder, s)),
            {view: snapshots.read_array(folder, s, f"{view}.npy") for view in VIEWS},
        )
        for s in version.entries[skip[0] if extends else 0 :]
    ]
    founded = [
        (clusters.from_frame(snapshots.read_table(folder, s)), snapshots.read_array(folder, s, "npy"))
        for s in version.clusters[skip[1] if extends else 0 :]
    ]
    state = snapshots.read_state(folder, version.state)
    if not extends:
        content = empty_content(version.dimension, config)
    for rows, vectors in entries:
        content.table.append(rows, vectors)
    for prototypes, array in founded:
        content.pools.append(prototypes, array)
    content.table.revive(except_rows=state["dead"])
    content.pools.links = {int(cluster): list(names) for cluster, names in state["links"].items()}
    content.usage = {name: Usage(*values) for name, values in state["usage"].items()}
    content.epoch = int(state["epoch"])
    return content


def write_content(folder: Path, content: Content, done: Version, oldest: int) -> Version:
    """Write what `done` lacks, commit it as the next version, and return that."""
    number = done.version + 1
    rows = slice(sum(s.rows for s in done.entries), None)
    founded = slice(sum(s.rows for s in done.clusters), None)
    segments, cluster_segments = done.entries, done.clusters
    if new := content.table.entries[rows]:
        arrays = {f"{view}.npy": content.table.vectors[view].view[rows] for view in VIEWS}
        table = records.to_frame(new)
        segments += (snapshots.write_segment(folder, f"entries-{number:08d}", table, arrays),)
    if prototypes := content.pools.prototypes[founded]:
        arrays, table = {"npy": content.pools.vectors[founded]}, clusters.to_frame(prototypes)
        cluster_segments += (snapshots.write_segment(folder, f"clusters-{number:08d}", table, arrays),)
    state = snapshots.write_state(folder, f"state-{number:08d}", _state(content))
    version = Version(number, oldest, done.embedding, content.table.dimension, segments, cluster_segments, state)
    snapshots.commit(folder, version)
    return version


def compacted(content: Content, config: IndexConfig) -> Content:
    """The same content with the living rows numbered anew and no other rows."""
    old, rows = content.table, sorted(content.table.row_of.values())
    table = EntryTable(old.dimension, config)
    table.append([old.entries[row] for row in rows], {view: old.vectors[view].view[rows] for view in VIEWS})
    return Content(table, content.pools, content.usage, content.epoch)


def _state(content: Content) -> dict[str, Any]:
    return {
        "epoch": content.epoch,
        "dead": [int(row) for row in np.flatnonzero(~content.table.alive)],
        "links": {str(cluster): names for cluster, names in content.pools.links.items()},
        "usage": {name: [u.born, u.uses, u.credit] for name, u in content.usage.items()},
    }


def _common(left: tuple[Segment, ...], right: tuple[Segment, ...]) -> int:
    """How many segments both begin with."""
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
