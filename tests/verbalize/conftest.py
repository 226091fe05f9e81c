"""One whole tiny run, shared by the tests that look at its different sides."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_run import Recorder, model_with_chat, recipe_values, run, write_log

from verbalize.runs import RunResult


@dataclass(frozen=True)
class Workshop:
    """A made-up log, a tiny model and the values of a recipe over both."""

    log: Path
    model: Path
    looks: Path
    values: dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A run carried out once without interruption, what it reported, and a copy of its folder that nobody works in."""

    runs: Path
    result: RunResult
    recorder: Recorder
    untouched: Path


@pytest.fixture(scope="session")
def workshop(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Shared; tests change its recipe by overrides only."""
    base = tmp_path_factory.mktemp("workshop")
    log, model = write_log(base / "log"), model_with_chat(tiny_model_dir, base / "tiny-lm")
    return Workshop(log, model, base / "looks.json", recipe_values(log, model, base))


@pytest.fixture(scope="session")
def finished(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The recipe on validation users. Shared: look, and run other recipes beside it; `store_copy` is for the rest."""
    runs, recorder = tmp_path_factory.mktemp("runs"), Recorder()
    result = run(workshop.values, runs, progress=recorder)
    return Finished(runs, result, recorder, Path(shutil.copytree(runs, tmp_path_factory.mktemp("kept") / "runs")))


@pytest.fixture
def store_copy(finished: Finished, tmp_path: Path) -> Path:
    """A runs folder of one's own in which everything is done already, and nothing else."""
    return Path(shutil.copytree(finished.untouched, tmp_path / "runs"))
