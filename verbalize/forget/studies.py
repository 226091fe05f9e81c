"""Forgetting users in studies of agents that verbalize histories: `<runs>/agents/<study>`.

Such a study names its examples and their users in `examples.json`; its libraries hold lessons with users and times, its
cells are tables with a row per example, its adapters learned from the training examples. So

    a finished run     keeps its weights, which are named, and loses the lessons and prototypes of the users, older
                       versions included
    an unfinished one  that trains on them is dropped: it would go on from them
    tables and lists   lose their rows with all others that lie beside the store of artefacts

Afterwards the same study trains anew wherever it had trained on the users' examples.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from recsys.locks import hold_lock
from recsys.storage import read_json
from verbalize.forget.adapters import Trained
from verbalize.forget.keepers import LibraryKeeper
from verbalize.forget.rows import Subject
from verbalize.forget.stages import Removed

AGENTS, EXAMPLES = "agents", "examples.json"
RUNS, RESULT, LIBRARY, ADAPTER = "runs", "result.json", "library", "adapter"
TRAINED_ON = ("train", "development")


def studies_that_trained(runs: Path, subject: Subject) -> list[Trained]:
    """Adapters of studies below `runs` that learned from the subject's examples."""
    found = []
    for world in _worlds(runs):
        rows = read_json(world / EXAMPLES)
        count = sum(row["part"] == "train" and subject.owns(row) for row in rows)
        total = sum(row["part"] == "train" for row in rows)
        for adapter in sorted(world.glob(f"{RUNS}/*/{ADAPTER}")) if count else ():
            found.append(Trained(str(adapter), f"{count} of its {total} training examples", (world.parent.name,)))
    return found


def forget_in_studies(runs: Path, subject: Subject, dry_run: bool) -> list[Removed]:
    """Take the subject's lessons out of libraries and drop unfinished runs; says what was (or would be) removed. To be
    done before the rows of `examples.json` go. Raises InputError while a study is running."""
    removed: list[Removed] = []
    for world in _worlds(runs):
        with _alone(world.parent):
            trained = any(row["part"] in TRAINED_ON and subject.owns(row) for row in read_json(world / EXAMPLES))
            for folder in sorted(path for path in world.glob(f"{RUNS}/*") if path.is_dir()):
                removed += _in_run(folder, subject, trained, dry_run)
    return removed


def _in_run(folder: Path, subject: Subject, trained: bool, dry_run: bool) -> Iterator[Removed]:
    if not (folder / RESULT).exists():
        if trained:
            if not dry_run:
                shutil.rmtree(folder)
            yield Removed(str(folder), 0, "unfinished training dropped")
        return
    if (folder / LIBRARY).is_dir():
        keeper = LibraryKeeper(folder / LIBRARY)
        # Prototypes of observations may be left where no lesson is: a library of a study that trained on the users is
        # always asked.
        lessons = keeper.holds(subject.users)
        if not dry_run and (lessons or trained):
            keeper.forget(subject.users)
        if lessons:
            yield Removed(str(folder / LIBRARY), lessons, "lessons removed")


def _worlds(runs: Path) -> list[Path]:
    return sorted(path.parent for path in (runs / AGENTS).glob(f"*/*/{EXAMPLES}"))


def _alone(study: Path) -> contextlib.AbstractContextManager[object]:
    return hold_lock(study, "a study", "a study is running in this folder", "wait for it, then forget")
