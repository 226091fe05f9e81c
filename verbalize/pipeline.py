"""Stages and their artefacts: what runs, what is up to date, what resumes.

A stage's folder is named by a key: the hash of the stage's own configuration, of its version and of the keys of the
stages it needs. So a folder never holds results of two configurations, equal work is shared between runs, and a
changed option runs again exactly what depends on it. A folder without `done.json` is unfinished: the same command
enters it again and the stage continues from the parts it finds there. Nothing here knows what the stages do.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from recsys.errors import CorruptFileError, InputError
from recsys.storage import file_hash, read_json, write_json

logger = logging.getLogger(__name__)

DONE = "done.json"
STORE = "artefacts"


class Progress(Protocol):
    """Receives what happens; the command line prints it, tests collect it."""

    def stage(self, name: str, state: str, detail: str = "") -> None: ...

    def step(self, name: str, done: int, total: int, detail: str = "") -> None: ...


@runtime_checkable
class Listener(Progress, Protocol):
    """A progress that also takes the numbers a stage measures on its way, such as validation during training."""

    def measured(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Named as trackers name them. May raise to end the stage there, which can be entered again."""


class Silent:
    """The progress of a library call: none."""

    def stage(self, name: str, state: str, detail: str = "") -> None:
        logger.info("%s %s %s", name, state, detail)

    def step(self, name: str, done: int, total: int, detail: str = "") -> None:
        logger.debug("%s %d/%d %s", name, done, total, detail)


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    `config` is all it depends on besides its inputs (plain values only); `run(context)` writes into `context.folder`
    and returns facts worth recording (counts, numbers; plain values). Raise `version` when the code changes what it
    writes. `done_in` is the finished folder of the same stage of another run: it is used as it is, under its own key.
    """

    name: str
    run: Callable[["Context"], Mapping[str, Any]]
    config: Any
    needs: tuple[str, ...] = ()
    version: int = 1
    done_in: Path | None = None


@dataclass(frozen=True)
class Context:
    """What a running stage sees: its own folder and the folders of the stages it needs."""

    folder: Path
    inputs: Mapping[str, Path]
    progress: Progress = field(default_factory=Silent)


def stage_keys(stages: Sequence[Stage]) -> dict[str, str]:
    """Stage name -> key (16 hexadecimal digits), in the given order.

    Raises InputError when a stage needs one that does not come before it.
    """
    keys: dict[str, str] = {}
    for stage in stages:
        for need in stage.needs:
            if need not in keys:
                raise InputError(
                    f"stage {stage.name}", f"needs {need}, which does not come before it", "reorder the stages"
                )
        parts = [stage.name, stage.version, stage.config, [keys[need] for need in stage.needs]]
        own = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        keys[stage.name] = stage.done_in.name if stage.done_in else own
    return keys


def folder_of(store: Path, stage: str, key: str) -> Path:
    """Where a stage's artefacts lie: `<store>/<stage>/<key>`."""
    return store / stage / key


def is_done(folder: Path) -> bool:
    """True when the stage finished and every file it wrote still has its size.

    Raises CorruptFileError naming the file when one is missing or was cut short since.
    """
    if not (folder / DONE).exists():
        return False
    for name, facts in read_json(folder / DONE)["files"].items():
        path = folder / name
        if not path.exists() or path.stat().st_size != facts["bytes"]:
            raise CorruptFileError(
                str(path),
                "is missing or not of the size recorded when its stage finished",
                f"delete {folder}; the same command makes it again",
            )
    return True


def run_stages(
    stages: Sequence[Stage], store: Path, progress: Progress | None = None, until: str | None = None
) -> dict[str, Path]:
    """Run what is not up to date, in order, up to and including `until`. Returns stage name -> folder."""
    progress = progress or Silent()
    keys = stage_keys(stages)
    if until is not None and until not in keys:
        raise InputError(f"stage {until!r}", f"is none of {list(keys)}", "name one of these")
    folders: dict[str, Path] = {}
    for stage in stages:
        folder = stage.done_in or folder_of(store, stage.name, keys[stage.name])
        folders[stage.name] = folder
        if is_done(folder):
            progress.stage(stage.name, "up to date")
        elif stage.done_in:
            raise InputError(
                f"stage {stage.name} in {folder}",
                "is another run's and not finished",
                "carry that run's recipe out again, which finishes it",
            )
        else:
            progress.stage(stage.name, "resumes" if folder.exists() else "starts")
            with _alone(folder, partial(progress.stage, stage.name, "waits", "for another run of this stage")):
                if not is_done(folder):  # another run may have shared its work while we waited
                    _run_one(stage, Context(folder, {need: folders[need] for need in stage.needs}, progress))
        if stage.name == until:
            break
    return folders


def manifest(stages: Sequence[Stage], store: Path, recipe: Any, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is made of: recipe, code revision, hardware, and every finished stage's key, facts and file hashes."""
    keys = stage_keys(stages)
    folders = {stage.name: stage.done_in or folder_of(store, stage.name, keys[stage.name]) for stage in stages}
    done = {
        name: read_json(folder / DONE) | {"key": keys[name]}
        for name, folder in folders.items()
        if (folder / DONE).exists()
    }
    return {"recipe": recipe, "stages": done, **provenance}


@contextlib.contextmanager
def _alone(folder: Path, waits: Callable[[], None]) -> Iterator[None]:
    """Wait, having said so, until no other process works in this stage's folder; the lock goes with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _run_one(stage: Stage, context: Context) -> None:
    started = time.monotonic()
    resumed = any(not path.name.startswith(".") for path in context.folder.iterdir())
    facts = dict(stage.run(context))
    files = {
        str(path.relative_to(context.folder)): {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        for path in sorted(context.folder.rglob("*"))
        if path.is_file() and "parts" not in path.relative_to(context.folder).parts and not path.name.startswith(".")
    }
    seconds = round(time.monotonic() - started, 1)
    write_json(
        {
            "stage": stage.name,
            "config": stage.config,
            "facts": facts,
            "files": files,
            "seconds": seconds,
            "resumed": resumed,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        context.folder / DONE,
    )
    context.progress.stage(stage.name, "done", f"{seconds:.0f} s")
