"""What the tests of sweeps share: a tiny recipe and a sweep over it as files, and the trials of a study by state."""

from pathlib import Path
from typing import Any

import optuna
import yaml
from tiny_run import recipe_values, write_log, write_recipe

from verbalize.sweeps.results import state_of
from verbalize.sweeps.settings import Sweep, load_sweep

BASELINE_SPACE: dict[str, Any] = {
    "arm": {"type": "categorical", "choices": ["item_knn", "ease"]},
    "examples.history_max": {"type": "categorical", "choices": [4, 6]},
    "baselines.item_knn.neighbours": {"type": "int", "low": 2, "high": 40, "log": True, "when": {"arm": "item_knn"}},
    "baselines.item_knn.shrinkage": {
        "type": "float",
        "low": 0.1,
        "high": 100,
        "log": True,
        "when": {"arm": "item_knn"},
    },
    "baselines.ease.l2": {"type": "float", "low": 1, "high": 1000, "log": True, "when": {"arm": "ease"}},
}


def model_free_recipe(folder: Path) -> dict[str, Any]:
    """A tiny recipe whose language model is never opened: its log lies in `folder`."""
    return recipe_values(write_log(folder / "log"), folder / "no-model", folder)


def sweep_values(**changes: Any) -> dict[str, Any]:
    """A sweep of collaborative recommenders: no language model, a trial takes a tenth of a second."""
    return {
        "name": "tiny-sweep",
        "recipe": "tiny.yaml",
        "overrides": {"evaluation.claims": [], "evaluation.untrained": []},
        "space": BASELINE_SPACE,
        "objective": {"metric": "mrr", "arm": "item_knn"},
        "sampler": {"startup": 4},
        "budget": {"trials": 6},
    } | changes


def write_sweep(folder: Path, recipe: dict[str, Any], **changes: Any) -> Path:
    """Both files in `folder`; returns the sweep's."""
    write_recipe(recipe, folder / "tiny.yaml")
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep_values(**changes)), encoding="utf-8")
    return path


def sweep_of(folder: Path, recipe: dict[str, Any], **changes: Any) -> Sweep:
    """As `write_sweep`, loaded."""
    return load_sweep(write_sweep(folder, recipe, **changes))


def by_state(study: optuna.Study) -> dict[str, list[optuna.trial.FrozenTrial]]:
    """State -> trials."""
    found: dict[str, list[optuna.trial.FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False):
        found.setdefault(state_of(trial), []).append(trial)
    return found
