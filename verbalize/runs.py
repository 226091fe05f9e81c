"""A run: a recipe carried out in a folder of its own, over a store of stage artefacts shared by all runs."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import InputError
from recsys.storage import write_json, write_text
from verbalize.config import plain
from verbalize.pipeline import STORE, Progress, manifest, run_stages
from verbalize.recipe import Recipe


@dataclass(frozen=True)
class RunResult:
    """Where a run lies, its stages' folders, and the console report when it got that far."""

    folder: Path
    stages: dict[str, Path]
    console: str


def run_recipe(
    recipe: Recipe,
    runs: Path | str,
    command: str,
    progress: Progress | None = None,
    until: str | None = None,
    record_in: Path | None = None,
) -> RunResult:
    """Carry out what is not up to date; write manifest.json and, after the last stage, report.html into
    `<runs>/<name>`.

    `record_in` is the root of a repository whose ledger receives the recipe's claims and their evidence.

    Calling it again after any interruption resumes. Raises InputError when another process works on the same run.
    """
    from verbalize.report.provenance import hardware, revision, today, versions
    from verbalize.stages import stages_of
    from verbalize.stages.claims import record

    folder = Path(runs) / recipe.name
    stages = stages_of(recipe, command)
    with _only_one(folder):
        folders = run_stages(stages, Path(runs) / STORE, progress, until)
        provenance = {
            "command": command,
            "revision": revision(),
            "hardware": hardware(),
            "date": today(),
            "versions": versions(),
        }
        write_json(manifest(stages, Path(runs) / STORE, plain(recipe), provenance), folder / "manifest.json")
        console = ""
        if "report" in folders:
            console = (folders["report"] / "report.txt").read_text(encoding="utf-8")
            write_text((folders["report"] / "report.html").read_text(encoding="utf-8"), folder / "report.html")
            write_text(console, folder / "report.txt")
            if record_in is not None:
                record(folders["report"], record_in)
    return RunResult(folder, folders, console)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the run's lock; the operating system releases it however the process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(
            str(folder), f"cannot hold a run ({error.strerror})", "give a folder that can be written to: --runs FOLDER"
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                str(folder),
                "another process is running this recipe",
                "wait for it, or give another folder: --runs FOLDER",
            ) from error
        yield
