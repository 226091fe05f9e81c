"""Versions of a library on disk: whatever was committed stays whole, however a process ends.

    manifest.json              the current version and the sha256 of its file; replacing it *is* the commit
    versions/00000007.json     one version: its segments and its state, each file with its sha256
    segments/entries-00000007.{parquet,key.npy,text.npy}   records added by version 7, never changed after
    segments/clusters-00000007.{parquet,npy}               observation clusters founded by version 7
    segments/state-00000007.json                           removed rows, links, statistics

A commit writes only what is new and the small state, so its cost does not grow with the library. A process killed
before the manifest is replaced leaves unreferenced files, which the next writer deletes. Files older than the kept
versions are deleted too; a reader that loses one while opening starts again with the newer manifest, and one that has
opened holds everything in memory. Nothing is forced onto the disk (fsync): after a power cut the checksums tell, and an
earlier version can be opened.
"""

import contextlib
import hashlib
import io
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl

from recsys.errors import CorruptFileError, InputError
from recsys.locks import hold_lock
from recsys.storage import read_json, replacing, write_json

FORMAT = 1
MANIFEST = "manifest.json"
_REMEDY = "open an earlier version of the library, or restore the folder from a copy"


@dataclass(frozen=True)
class Segment:
    """Files written together, by suffix: rows of a table and arrays of the same length."""

    name: str
    rows: int
    files: Mapping[str, str]
    """Suffix -> sha256."""


@dataclass(frozen=True)
class Version:
    """One committed state."""

    version: int
    oldest: int
    """No version before this one may be kept: a user was forgotten."""
    embedding: str
    dimension: int
    entries: tuple[Segment, ...] = ()
    clusters: tuple[Segment, ...] = ()
    state: Segment = Segment("", 0, {})
    format: int = FORMAT

    def segments(self) -> tuple[Segment, ...]:
        return (*self.entries, *self.clusters, self.state)


def hold_writer_lock(folder: Path) -> IO[str]:
    """The handle that makes this process the only writer until it is closed."""
    busy, remedy = "another process is writing this library", "wait for it, or open with read_only=True"
    return hold_lock(folder, "a library", busy, remedy, "give a folder that can be written to")


def exists(folder: Path) -> bool:
    """Whether a library lies here; False where one can be made.

    Raises CorruptFileError when a library lost its manifest, InputError when the folder holds other things: making a
    library deletes what it does not know.
    """
    if (folder / MANIFEST).is_file():
        return True
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = sorted(n for n in names - {".lock", "versions", "segments"} if not n.startswith(f".{MANIFEST}."))
    if others:
        raise InputError(
            str(folder), f"is no library and not empty: it holds {others[0]!r}", "choose a new or empty folder"
        )
    # A writer killed while making the library leaves at most an uncommitted version 1.
    made = [path.name for path in (folder / "segments").glob("[!.]*")] if "segments" in names else []
    if max(kept_versions(folder), default=0) > 1 or set(made) - {"state-00000001.json"}:
        raise CorruptFileError(
            str(folder / MANIFEST), "is missing, but the library's other files are there", "restore it from a copy"
        )
    return False


def current_version(folder: Path) -> int:
    """Raises CorruptFileError when the manifest is not one."""
    return int(_manifest(folder)["version"])


def read_version(folder: Path, number: int | None = None) -> Version:
    """A version, by default the current one. Raises InputError for one not kept, CorruptFileError when damaged."""
    manifest = _manifest(folder)
    wanted = manifest["version"] if number is None else number
    path = _version_path(folder, wanted)
    if number is not None and (wanted > manifest["version"] or not path.is_file()):
        kept = [v for v in kept_versions(folder) if v <= manifest["version"]]
        raise InputError(
            f"version {number} of {folder}", f"is not kept; kept are {kept}", "choose one of them, or the current one"
        )
    data = _verified(path, manifest["sha256"] if wanted == manifest["version"] else None)
    try:
        body = json.loads(data)
        if _digest(json.dumps(body["body"], sort_keys=True).encode()) != body["sha256"]:
            raise ValueError("checksum")
        value = body["body"]
        if value["format"] != FORMAT:
            raise InputError(
                f"{folder} in format {value['format']}",
                f"this code reads format {FORMAT}",
                "use the code that wrote it",
            )
        groups = {name: tuple(Segment(**s) for s in value[name]) for name in ("entries", "clusters")}
        return Version(**value | groups | {"state": Segment(**value["state"])})
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(str(path), f"is not a version of a library ({error})", _REMEDY) from error


def read_file(folder: Path, segment: Segment, suffix: str) -> bytes:
    """A segment's file, checked. Raises FileNotFoundError when gone, CorruptFileError when changed."""
    return _verified(folder / "segments" / f"{segment.name}.{suffix}", segment.files[suffix])


def read_table(folder: Path, segment: Segment) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(read_file(folder, segment, "parquet")))


def read_array(folder: Path, segment: Segment, suffix: str) -> np.ndarray:
    return np.load(io.BytesIO(read_file(folder, segment, suffix)), allow_pickle=False)  # type: ignore[no-any-return]


def write_segment(folder: Path, name: str, table: pl.DataFrame, arrays: Mapping[str, np.ndarray]) -> Segment:
    """Write a table and its arrays under `name`, which no kept version may use."""
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    files = {"parquet": buffer.getvalue()}
    for suffix, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)
        files[suffix] = buffer.getvalue()
    return _write_files(folder, name, len(table), files)


def write_state(folder: Path, name: str, state: Mapping[str, Any]) -> Segment:
    return _write_files(folder, name, 0, {"json": json.dumps(state, sort_keys=True).encode()})


def read_state(folder: Path, segment: Segment) -> dict[str, Any]:
    return dict(json.loads(read_file(folder, segment, "json")))


def commit(folder: Path, version: Version) -> None:
    """Make `version` the current one: its segments are on disk already."""
    body = asdict(version)
    wrapped = {"sha256": _digest(json.dumps(body, sort_keys=True).encode()), "body": body}
    data = (json.dumps(wrapped, sort_keys=True) + "\n").encode()
    with replacing(_version_path(folder, version.version)) as temporary:
        temporary.write_bytes(data)
    write_json({"format": FORMAT, "version": version.version, "sha256": _digest(data)}, folder / MANIFEST)


def collect_garbage(folder: Path, keep: Collection[int]) -> None:
    """Delete all versions but `keep` and every file that none of them needs. Only for the holder of the lock."""
    for path in (folder / "versions").iterdir():
        if path.suffix != ".json" or path.name.startswith(".") or int(path.stem) not in keep:
            path.unlink()
    needed = {
        f"{segment.name}.{suffix}"
        for number in keep
        for segment in read_version(folder, number).segments()
        for suffix in segment.files
    }
    if (folder / "segments").is_dir():
        for path in (folder / "segments").iterdir():
            if path.name not in needed:
                path.unlink()
    for path in folder.glob(f".{MANIFEST}.*"):  # a commit that was killed between writing and renaming
        path.unlink()


def kept_versions(folder: Path) -> list[int]:
    """Ascending; includes a version whose commit was interrupted."""
    return sorted(int(p.stem) for p in (folder / "versions").glob("[0-9]*.json"))


@contextlib.contextmanager
def stable_reading(folder: Path, number: int | None) -> Iterator[None]:
    """Around reading version `number` (None: the current one): a file that is missing is a CorruptFileError.

    Unless a writer deleted it, which happens only after committing something newer: then the FileNotFoundError of a
    reader of the current version passes, and the reader starts again; an older version is then no longer kept.
    """
    before = current_version(folder)
    try:
        yield
    except FileNotFoundError as error:
        if number is not None:
            read_version(folder, number)  # refuses when it is no longer kept
        if number is not None or current_version(folder) == before:
            raise CorruptFileError(str(error.filename), "is missing from the library", _REMEDY) from error
        raise


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(str(folder), "holds no experience library", "name a folder made by ExperienceLibrary.open")
    value = read_json(path)
    if not (isinstance(value, dict) and set(value) == {"format", "version", "sha256"} and value["version"] > 0):
        raise CorruptFileError(str(path), "names no version and checksum", _REMEDY)
    return value


def _version_path(folder: Path, number: int) -> Path:
    return folder / "versions" / f"{number:08d}.json"


def _write_files(folder: Path, name: str, rows: int, files: Mapping[str, bytes]) -> Segment:
    for suffix, data in files.items():
        with replacing(folder / "segments" / f"{name}.{suffix}") as temporary:
            temporary.write_bytes(data)
    return Segment(name, rows, {suffix: _digest(data) for suffix, data in files.items()})


def _verified(path: Path, digest: str | None) -> bytes:
    data = path.read_bytes()
    if digest is not None and _digest(data) != digest:
        raise CorruptFileError(str(path), "differs from its checksum", _REMEDY)
    return data


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
