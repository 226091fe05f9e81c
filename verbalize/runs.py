"""A run: a recipe carried out in a folder of its own, over a store of stage artefacts shared by all runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import IO

from recsys.locks import hold_lock
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


def _only_one(folder: Path) -> IO[str]:
    """The run's lock, held until the handle is closed."""
    busy, elsewhere = "another process is running this recipe", "give another folder: --runs FOLDER"
    return hold_lock(folder, "a run", busy, f"wait for it, or {elsewhere}", elsewhere)
