"""Generations of a store: one small JSON file says which Parquet files are the store; replacing it is the commit.

Data files never change once named: a writer adds files, then replaces the manifest in one rename. So a reader that
holds a manifest reads one consistent state and waits for nobody, and a writer that dies leaves files that no manifest
names; the next writer collects them. Files of the generation before are kept until the commit after (`retired`), so a
slow reader is not overtaken by one append; one overtaken by two starts again from the present manifest.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, TypeVar

from recsys.errors import CorruptFileError, InputError
from recsys.locks import hold_lock
from recsys.storage import file_hash, read_json, write_json

MANIFEST = "manifest.json"
FORMAT = 1
T = TypeVar("T")


@dataclass(frozen=True)
class DataFile:
    """One immutable file. `kind` is events, items, reference, or one of `tables.LAYERS`; `generation` is the one that
    wrote it. Events files hold whole days, `first_day` to `last_day` (days since 1970)."""

    kind: str
    bytes: int
    sha256: str
    rows: int
    generation: int
    bucket: int = -1
    first_day: int = 0
    last_day: int = 0


@dataclass(frozen=True)
class Manifest:
    """The whole state of a store besides its files' contents.

    `titles` says where descriptions come from: "items" (tables of their own) or "events" (events carry them); "" before
    any arrived. `forgotten` holds keyed hashes of the users whose events are refused.
    """

    buckets: int
    salt: str
    generation: int = 0
    files: Mapping[str, DataFile] = field(default_factory=dict)
    retired: tuple[str, ...] = ()
    titles: str = ""
    deliveries: int = 0
    engaged: Mapping[str, Any] | None = None
    reference: Mapping[str, Any] | None = None
    forgotten: tuple[str, ...] = ()

    def of(self, kind: str, bucket: int | None = None) -> dict[str, DataFile]:
        """Files of a kind (and bucket), oldest generation first."""
        found = {
            name: entry
            for name, entry in self.files.items()
            if entry.kind == kind and (bucket is None or entry.bucket == bucket)
        }
        return dict(sorted(found.items(), key=lambda pair: (pair[1].generation, pair[0])))


def create(root: Path, buckets: int) -> Manifest:
    """The first generation of an empty store; an existing store is left as it is. Raises InputError where the folder
    holds something else."""
    if (root / MANIFEST).exists():
        return load(root)
    if buckets < 1:
        raise InputError(f"buckets {buckets}", "a store has at least one", "use 16, or more for hundreds of millions")
    foreign = sorted(path.name for path in root.iterdir() if not path.name.startswith(".")) if root.is_dir() else []
    if foreign:
        raise InputError(
            f"{root} with {foreign[:5]}", "is a folder of something else", "name an empty or a new folder for the store"
        )
    manifest = Manifest(buckets, secrets.token_hex(16))
    _write(root, manifest)
    return manifest


def load(root: Path) -> Manifest:
    """The present generation. Raises InputError where there is no store, CorruptFileError for an unreadable one."""
    path = root / MANIFEST
    if not path.exists():
        raise InputError(str(root), "holds no store", "name a store's folder, or append to a new one")
    remedy = "restore it from a backup; the store's data files alone do not say which of them count"
    try:
        values = read_json(path)
        if values.pop("format") != FORMAT:
            raise KeyError("format")
        values["files"] = {name: DataFile(**entry) for name, entry in values["files"].items()}
        lists: dict[str, Any] = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return Manifest(**{**values, **lists})
    except CorruptFileError as error:
        raise CorruptFileError(error.value, error.rule, remedy) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError(str(path), f"is not a manifest of format {FORMAT} ({error})", remedy) from error


def describe(path: Path, kind: str, rows: int, generation: int, **place: int) -> DataFile:
    """The entry of a file just written, which is flushed to the disk first: the manifest must not outlive it."""
    _flush(path)
    return DataFile(kind, path.stat().st_size, file_hash(path), rows, generation, **place)


def commit(root: Path, before: Manifest, after: Manifest, keep: bool = True) -> Manifest:
    """Make `after` the present generation; what it no longer names is kept until the next commit if `keep`."""
    gone = tuple(sorted(set(before.files) - set(after.files))) if keep else ()
    after = replace(after, generation=before.generation + 1, retired=gone)
    for folder in {(root / name).parent for name in set(after.files) - set(before.files)}:
        _flush(folder)
    _write(root, after)
    return after


def collect(root: Path, manifest: Manifest) -> list[str]:
    """Delete files that the manifest neither names nor keeps for readers of the generation before: what a killed writer
    left, or what a commit retired. Only the holder of the writer's lock may call this. Returns the names, sorted."""
    kept = {MANIFEST, ".lock", *manifest.files, *manifest.retired}
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    gone = sorted(name for name in found if name not in kept)
    for name in gone:
        found[name].unlink()
    return gone


def checked(root: Path, name: str, entry: DataFile, seen: set[str]) -> Path:
    """The file's path after comparing size and sha256 (once per `seen`). Raises CorruptFileError on a mismatch,
    FileNotFoundError when it is gone."""
    path = root / name
    size = path.stat().st_size
    if name not in seen:
        if size != entry.bytes or file_hash(path) != entry.sha256:
            raise CorruptFileError(
                str(path),
                "differs from what the manifest recorded when it was written",
                "restore the file from a backup, or build the store again from its deliveries",
            )
        seen.add(name)
    return path


def consistently(root: Path, read: Callable[[Manifest], T]) -> T:
    """`read` of the present manifest, again from the start where two commits overtook it.

    Raises CorruptFileError when a file that the present generation names is missing.
    """
    while True:
        manifest = load(root)
        try:
            return read(manifest)
        except FileNotFoundError as error:
            if load(root).generation == manifest.generation:
                raise CorruptFileError(
                    str(error.filename or error),
                    "is named by the store's manifest and missing",
                    "restore the file from a backup, or build the store again from its deliveries",
                ) from error


def alone(root: Path) -> IO[str]:
    """The writer's lock, held until the handle is closed. Raises InputError when another process has it."""
    busy, remedy = "another process is writing to this store", "wait for it; readers need not wait"
    return hold_lock(root, "a store", busy, remedy, "name a folder that can be written to")


def _write(root: Path, manifest: Manifest) -> None:
    write_json({"format": FORMAT, **asdict(manifest)}, root / MANIFEST)
    _flush(root)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
