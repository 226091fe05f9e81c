"""What a finished run trained, evaluated elsewhere: on another log, on other users, or beside another run's policies.

A run is named by its folder, `<runs>/<name>`; its manifest says which recipe it carried out and under which keys its
stages lie. Two uses:

`transfer_from`        the recipe trains nothing: its recommender, templates' roles, experience and policies are the
                       run's own finished stages, entered here under their own keys. Sections of the recipe that say how
                       they are asked must be the run's.
`evaluation.against`   the run's policies are further arms: asked as their own recipe asks them, with their own
                       experience, about this recipe's examples.

Adapters refuse another base by their card, and policies another prompt format (`stages.saved_policies.open_policy`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recsys.errors import InputError
from recsys.storage import read_json
from verbalize.config import build, plain
from verbalize.pipeline import STORE, Stage, folder_of
from verbalize.recipe import TRANSFERRED, Recipe
from verbalize.recipe_display import refuse_display
from verbalize.stages.experience import open_memory, showing
from verbalize.stages.saved_policies import SavedPolicy, trained_policies

BORROWED = ("recommender", "templates", "pool", "experience", "effects", "warm_start", "train")
ASKED_BY = ("experience", "train")
"""Stages that decide what another run's policy writes."""
_ELSEWHERE = frozenset({"device", "cache", "prompts_per_forward", "batch_size"})
"""Settings of where and how fast, which may differ from the run's."""


@dataclass(frozen=True)
class FinishedRun:
    """A run's recipe (as plain values, and built), and its finished stages: name -> folder."""

    folder: Path
    values: Mapping[str, Any]
    recipe: Recipe
    stages: Mapping[str, Path]


def finished_run(folder: Path | str) -> FinishedRun:
    """Read a run's manifest. Raises InputError where there is none, or the run was not trained."""
    folder = Path(folder)
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(
            str(folder),
            "holds no manifest.json, so it is no run that went as far as was asked of it",
            "carry out its recipe first (verbalize train RECIPE), or name another run's folder",
        )
    manifest = read_json(path)
    keys = {name: facts["key"] for name, facts in manifest["stages"].items()}
    if "train" not in keys:
        raise InputError(str(folder), "has not trained its policy", "carry it out up to train at least")
    stages = {name: folder_of(folder.parent / STORE, name, key) for name, key in keys.items()}
    return FinishedRun(folder, manifest["recipe"], build(Recipe, manifest["recipe"]), stages)


def borrowed(recipe: Recipe, stages: Sequence[Stage]) -> list[Stage]:
    """The same stages, those of `BORROWED` replaced by the finished ones of `recipe.transfer_from`.

    Raises InputError when a section of `TRANSFERRED` is not the run's, or a stage is missing there.
    """
    assert recipe.transfer_from is not None
    run = finished_run(recipe.transfer_from)
    for section in TRANSFERRED:
        _same(section, plain(getattr(recipe, section)), plain(getattr(run.recipe, section)), run)
    missing = [stage.name for stage in stages if stage.name in BORROWED and stage.name not in run.stages]
    if missing:
        raise InputError(f"run {run.folder.name}", f"has no finished stage {missing[0]}", "carry it out again")
    return [
        replace(stage, done_in=run.stages[stage.name], needs=()) if stage.name in BORROWED else stage
        for stage in stages
    ]


def identities(against: Mapping[str, str]) -> dict[str, Any]:
    """Arm -> what decides its texts: keys of the run's stages, and what its prompts show of its experience."""
    found = {}
    for name, folder in against.items():
        run = finished_run(folder)
        keys = {stage: run.stages[stage].name for stage in ASKED_BY if stage in run.stages}
        found[name] = {"stages": keys, **showing(run.recipe, training=False)}
    return found


def other_verbalizers(against: Mapping[str, str], examples: Path) -> Iterator[tuple[str, int, SavedPolicy]]:
    """(arm, seed, policy) for every policy of every other run, asked about the examples below `examples`."""
    for name, folder in against.items():
        run = finished_run(folder)
        refuse_display(run.recipe, f"evaluation.against.{name} = {folder}: a run")
        memory = open_memory(run.recipe, run.stages, examples)
        for seed, policy in trained_policies(run.recipe, run.stages["train"], name, memory):
            yield name, seed, policy


def _same(where: str, ours: Any, theirs: Any, run: FinishedRun) -> None:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in {**ours, **theirs}:
            if key not in _ELSEWHERE:
                _same(f"{where}.{key}", ours.get(key), theirs.get(key), run)
    elif ours != theirs:
        raise InputError(
            f"{where} = {ours!r} with transfer_from {run.folder}",
            f"that run was made with {theirs!r}, and what it trained means nothing under another",
            f"leave {where} out, or train with it",
        )
