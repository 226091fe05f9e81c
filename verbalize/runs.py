"""A run: a recipe carried out in a folder of its own, over a store of stage artefacts shared by all runs.

Under `accelerate launch` or torchrun the first process carries it out, with lock, files and report; the others wait,
and take their share of the rollouts when it comes to the training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from recsys.errors import InputError
from recsys.locks import hold_lock
from recsys.storage import write_json, write_text
from verbalize.config import plain
from verbalize.pipeline import STORE, Context, Progress, Stage, manifest, run_stages
from verbalize.processes import leads, leave, process_count, share
from verbalize.recipe import Recipe

SHARED = "train"
"""The stage that several processes carry out together."""


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
    Started in several processes, all of them call it; those that help return an empty result.
    """
    from verbalize.report.provenance import hardware, revision, today, versions
    from verbalize.stages import stages_of
    from verbalize.stages.claims import record

    folder = Path(runs) / recipe.name
    stages = stages_of(recipe, command)
    if process_count() > 1:
        _check_method(recipe)
    if not leads():
        _help(stages)
        return RunResult(folder, {}, "")
    with _only_one(folder):
        folders = run_stages(_led(stages), Path(runs) / STORE, progress, until)
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
    share(None)  # the helpers may go
    leave()
    return RunResult(folder, folders, console)


def _only_one(folder: Path) -> IO[str]:
    """The run's lock, held until the handle is closed."""
    busy, elsewhere = "another process is running this recipe", "give another folder: --runs FOLDER"
    return hold_lock(folder, "a run", busy, f"wait for it, or {elsewhere}", elsewhere)


def _check_method(recipe: Recipe) -> None:
    """Raises InputError for a training that only one process can do."""
    method = "dpo" if recipe.dpo else "gepa" if recipe.gepa else None
    if method:
        raise InputError(
            f"{method} with {process_count()} processes",
            "only GRPO shares its rollouts between processes",
            "run this recipe without a launcher",
        )


def _led(stages: Sequence[Stage]) -> list[Stage]:
    """The stages as the leader runs them: what is shared calls the helpers first."""

    def calling(stage: Stage) -> Callable[[Context], Mapping[str, Any]]:
        def run(context: Context) -> Mapping[str, Any]:
            share((context.folder, dict(context.inputs)))
            return stage.run(context)

        return run

    return [replace(stage, run=calling(stage)) if stage.name == SHARED else stage for stage in stages]


def _help(stages: Sequence[Stage]) -> None:
    """What the other processes do: run the shared stage when the leader calls, until it lets them go."""
    shared = next(stage for stage in stages if stage.name == SHARED)
    none: tuple[Path, dict[str, Path]] | None = None
    while (call := share(none)) is not None:
        shared.run(Context(*call))
    leave()
