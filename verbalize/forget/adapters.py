"""Which adapters learned from somebody's examples: weights cannot forget a user, so they are named.

A run's manifest holds its recipe and the keys of its stages; the samples that its stages trained on are drawn again
from the examples table, by the same functions. Rollouts, where they were kept, say exactly which examples
reinforcement learning met. A policy that started from an adapter inherits what that learned.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import InputError
from recsys.storage import read_json
from verbalize.config import build
from verbalize.forget.rows import Subject, lines_of
from verbalize.pipeline import STORE
from verbalize.recipe import Recipe
from verbalize.stages import samples

TRAINING = ("recommender", "warm_start", "train")


@dataclass(frozen=True)
class Trained:
    """An adapter's folder and what ties it to the subject; `runs` that use it."""

    adapter: str
    why: str
    runs: tuple[str, ...]


def trained_on(runs: Path, subject: Subject) -> list[Trained]:
    """Adapters below `runs` that learned, or may have learned, from the subject's examples."""
    why: dict[str, str] = {}
    users: dict[str, set[str]] = {}
    for path in sorted(runs.glob("*/manifest.json")):
        for adapter, reason in _of_run(path, runs / STORE, subject):
            why.setdefault(adapter, reason)
            users.setdefault(adapter, set()).add(path.parent.name)
    known = {adapter for path in runs.glob("*/manifest.json") for adapter in _adapters_of(path, runs / STORE)}
    for adapter in sorted(_adapters(runs / STORE) - known):
        why[adapter] = "no manifest says what it was trained on; it may be"
    return [Trained(adapter, why[adapter], tuple(sorted(users.get(adapter, ())))) for adapter in sorted(why)]


def _of_run(path: Path, artefacts: Path, subject: Subject) -> Iterator[tuple[str, str]]:
    manifest = read_json(path)
    if _trained_nothing(manifest):
        return
    inherited = ""
    for stage in TRAINING:
        if stage not in manifest["stages"]:
            continue
        folder = artefacts / stage / manifest["stages"][stage]["key"]
        reason = _reason(stage, folder, manifest, artefacts, subject) or (inherited if stage == "train" else "")
        if stage == "warm_start" and reason:
            inherited = "starts from a warm start that learned from them"
        if reason:
            yield from ((adapter, reason) for adapter in sorted(_adapters(folder)))


def _reason(stage: str, folder: Path, manifest: dict[str, Any], artefacts: Path, subject: Subject) -> str:
    rollouts = sorted(folder.glob("seed-*/rollouts/*.jsonl"))
    if stage == "train" and rollouts:
        met = sum(subject.owns(line) for path in rollouts for line in lines_of(path))
        return f"{met} rollouts of their examples" if met else ""
    examples = artefacts / "examples" / manifest["stages"]["examples"]["key"]
    try:
        recipe = build(Recipe, manifest["recipe"])
        sample = _sample(stage, recipe, examples)
    except (InputError, FileNotFoundError) as error:
        return f"cannot tell, it may be ({error})"
    count = sample.select(subject.condition(sample.columns).sum()).item()
    return f"{count} of its {len(sample)} training examples" if count else ""


def _sample(stage: str, recipe: Recipe, examples: Path) -> pl.DataFrame:
    if stage == "recommender" and recipe.recommender_training:
        sample, training = samples.recommender_sample(recipe, examples), recipe.recommender_training
        # With more targets than these it has met all of its users.
        return sample.head(training.examples) if training.targets_per_user is None else sample
    return samples.training_sample(recipe, examples)


def _adapters_of(path: Path, artefacts: Path) -> Iterator[str]:
    manifest = read_json(path)
    for stage in () if _trained_nothing(manifest) else TRAINING:
        if stage in manifest["stages"]:
            yield from _adapters(artefacts / stage / manifest["stages"][stage]["key"])


def _trained_nothing(manifest: dict[str, Any]) -> bool:
    """A run that evaluates what another one trained: its examples say nothing of those adapters."""
    return bool(manifest["recipe"].get("transfer_from"))


def _adapters(folder: Path) -> set[str]:
    """Folders of selected adapters; checkpoints on the way to them go with them."""
    found = {path.parent for path in folder.rglob("adapter_config.json")}
    return {str(path) for path in found if not any(part.startswith("checkpoint-") for part in path.parts)}
