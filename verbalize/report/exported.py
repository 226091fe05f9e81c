"""Where exports of a run went: a small list in the run's own folder, so that forgetting a user can find them.

An export quotes histories and lies wherever its maker wanted it; nothing else leads from a run to it. The folder is
noted before the first file is written, the files afterwards, so a killed export is known as well.
"""

from collections.abc import Iterable
from pathlib import Path

from recsys.storage import read_json, write_json

RECORD = "exports.json"
"""In a run's folder: each folder exported to -> the files written there, relative to it. No ids."""


def note(run: Path, out: Path, files: Iterable[Path] = ()) -> None:
    """Add `files` (below `out`) to what is known of exports of this run to `out`."""
    known, out = exports_of(run), out.resolve()
    names = {path.resolve().relative_to(out).as_posix() for path in files}
    known[out] = sorted({*known.get(out, []), *names})
    write_json({str(folder): known[folder] for folder in known}, run / RECORD)


def exports_of(run: Path) -> dict[Path, list[str]]:
    """The folders that exports of a run went to, each with the names of the files written there."""
    path = run / RECORD
    return {Path(folder): names for folder, names in read_json(path).items()} if path.exists() else {}
