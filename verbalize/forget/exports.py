"""Exports of runs that held a user: deleted where they lie among the runs, named where they lie elsewhere.

Folders of runs are ours to clean. A folder beside a paper is not: it may be under somebody's version control or sent on
already, so it is named for a person to delete, and named again, by its first place, where nothing lies there any more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from verbalize.forget.stages import Removed
from verbalize.report.exported import exports_of


@dataclass(frozen=True)
class Export:
    """A folder that quotes somebody and is not ours to delete; `present`: how many of the files written there still
    are."""

    folder: str
    present: int


def exports_left(runs: Path, used: Sequence[Path]) -> list[Export]:
    """Where exports of these runs went outside the folder of runs, or broke off before their files were noted; each
    folder once."""
    found: dict[Path, set[str]] = {}
    for run in used:
        for out, names in exports_of(run).items():
            if not _inside(out, runs) or not names:
                found.setdefault(out, set()).update(names)
    return [Export(str(out), _present(out, names)) for out, names in sorted(found.items())]


def delete_exports(runs: Path, used: Sequence[Path], dry_run: bool) -> Iterator[Removed]:
    """Delete the files that exports of these runs wrote below the folder of runs, and folders left empty."""
    gone: set[Path] = set()
    for run in used:
        for out, names in exports_of(run).items():
            files = [out / name for name in names if _inside(out, runs)]
            present = [path for path in files if path.is_file() and path not in gone]
            gone.update(present)
            if not dry_run:
                for path in present:
                    path.unlink()
                _delete_empty(out, files)
            if present:
                yield Removed(str(out), 0, f"{len(present)} exported files deleted: they quote histories")


def _inside(out: Path, runs: Path) -> bool:
    return out.is_relative_to(runs.resolve())


def _present(out: Path, names: set[str]) -> int:
    """How many of these files are there; where a kill left no names, whatever lies there counts."""
    return sum(path.is_file() for path in ([out / name for name in names] if names else out.rglob("*")))


def _delete_empty(out: Path, files: Sequence[Path]) -> None:
    """Folders of these files up to `out` that hold nothing any more, deepest first."""
    folders = {parent for path in files for parent in path.parents if parent.is_relative_to(out)}
    for folder in sorted(folders, key=lambda path: -len(path.parts)):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
