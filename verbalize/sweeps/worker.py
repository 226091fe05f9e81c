"""The loop of one worker: take a trial, run its stages, tell its number; until the budget is spent and nothing runs.

A worker may be killed at any point. It keeps nothing that others need: trials are in the storage, stages in the store.
One that finds nothing left to begin waits for the others' trials and takes over those whose worker dies.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from recsys.errors import AssetError, CorruptFileError, InputError
from verbalize.pipeline import STORE, Progress, Silent
from verbalize.recipe import Recipe
from verbalize.sweeps.measure import LEARNED_METRICS, last_stage, measure, prepare, recommender_calls
from verbalize.sweeps.ownership import ERROR, REFUSED, Heartbeat, Watch, admitted, place, proposed, reclaim
from verbalize.sweeps.sampling import suggest
from verbalize.sweeps.settings import Sweep
from verbalize.sweeps.space import grid

POLL_S = 0.5
VALUE, TOKENS, SECONDS, CALLS, ARM_USED = "value", "tokens", "seconds", "recommender_calls", "arm"
Announce = Callable[[str], None]


class TakenOver(Exception):
    """Others took this trial for lost and do it again; what was done here lies in the store and serves them."""


def work(
    sweep: Sweep,
    study: optuna.Study,
    runs: Path | str,
    command: str,
    progress: Progress | None = None,
    announce: Announce = lambda line: None,
) -> None:
    """Carry out trials until the budget is spent and none is running.

    Raises what is wrong with the machine or the data (AssetError, CorruptFileError, anything unforeseen). A
    configuration that cannot be run (another InputError, out of memory) is recorded as failed.
    """
    store, watch, began = Path(runs) / STORE, Watch(sweep.config.lost_after_s), time.monotonic()
    limit = most_trials(sweep)
    while True:
        reclaim(study, watch)
        trials = study.get_trials(deepcopy=False)
        waiting = any(trial.state == TrialState.WAITING for trial in trials)
        spent = sum(int(trial.user_attrs.get(CALLS, 0)) for trial in trials)
        out_of_time = sweep.config.budget.seconds is not None and time.monotonic() - began > sweep.config.budget.seconds
        out_of_calls = spent >= (sweep.config.budget.recommender_calls or float("inf"))
        if out_of_time:
            return
        if not waiting and (out_of_calls or sum(map(proposed, trials)) >= limit):
            if not any(trial.state == TrialState.RUNNING for trial in trials):
                return
            time.sleep(POLL_S)
            continue
        _one(sweep, study, store, command, progress or Silent(), announce, limit)


def most_trials(sweep: Sweep) -> int:
    """The budget's trials; a grid has no more than its points."""
    budget = sweep.config.budget.trials
    return min(budget, len(grid(sweep.config.space))) if sweep.config.sampler.kind == "grid" else budget


def tracked_recipe(sweep: Sweep, params: Mapping[str, Any], label: str) -> Recipe:
    """The recipe under these parameters; in wandb it belongs to the sweep's group. Tracking is in no stage's key."""
    recipe = sweep.recipe(params)
    tracking = recipe.tracking
    group, name = tracking.group or sweep.config.name, tracking.name or label
    return replace(recipe, tracking=replace(tracking, group=group, name=name))


def _one(
    sweep: Sweep,
    study: optuna.Study,
    store: Path,
    command: str,
    progress: Progress,
    announce: Announce,
    limit: int,
) -> None:
    trial = study.ask()
    with Heartbeat(trial, sweep.config.lost_after_s) as heartbeat:
        try:
            trials = study.get_trials(deepcopy=False)
            mine = next(other for other in trials if other.number == trial.number)
            if not admitted(trials, mine, limit):
                trial.set_user_attr(REFUSED, "beyond the budget, or done already")
                study.tell(trial, state=TrialState.FAIL)
                return
            params = suggest(trial, sweep.config.space)
            shown = ", ".join(f"{name}={_short(value)}" for name, value in params.items())
            announce(f"trial {trial.number:<4} {place(trials, mine) + 1}/{limit}  {shown}")
            told = _carry_out(sweep, study, trial, params, store, command, progress, heartbeat)
            announce(f"trial {trial.number:<4} {told}")
        except (TakenOver, UpdateFinishedTrialError):
            announce(f"trial {trial.number:<4} was taken over by another worker")


def _carry_out(
    sweep: Sweep,
    study: optuna.Study,
    trial: optuna.Trial,
    params: Mapping[str, Any],
    store: Path,
    command: str,
    progress: Progress,
    heartbeat: Heartbeat,
) -> str:
    """Run and tell. Returns the outcome in words."""
    objective, arm = sweep.config.objective, sweep.arm(params)
    recipe = sweep.recipe()
    observer = TrialProgress(trial, progress, heartbeat, "")
    try:
        recipe = tracked_recipe(sweep, params, f"trial-{trial.number}")
        if sweep.config.pruner:
            observer.watched = f"seed{recipe.seeds[0]}/validation/component.{LEARNED_METRICS[objective.metric]}"
        folders = prepare(recipe, arm, store, command, observer)
        found = measure(recipe, arm, objective.metric, folders, "tokens" in objective.costs)
    except optuna.TrialPruned:
        trial.set_user_attr(CALLS, recommender_calls(recipe, observer.ran, {}))
        study.tell(trial, state=TrialState.PRUNED)
        return f"pruned at step {observer.last_step}"
    except (AssetError, CorruptFileError, TakenOver, UpdateFinishedTrialError):
        raise
    except Exception as error:
        trial.set_user_attr(ERROR, f"{type(error).__name__}: {error}")
        study.tell(trial, state=TrialState.FAIL)
        if isinstance(error, InputError | MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return f"failed: {error}"
        raise
    calls = found.rankings + recommender_calls(recipe, observer.ran, folders)
    facts = {VALUE: found.value, TOKENS: found.tokens, SECONDS: found.seconds, CALLS: calls, ARM_USED: arm}
    for name, value in facts.items():
        trial.set_user_attr(name, value)
    study.tell(trial, found.values(objective))
    costs = "".join(f", {getattr(found, cost):.4g} {cost}" for cost in objective.costs)
    return f"{objective.metric} {found.value:.4f}{costs}  (until {last_stage(arm)})"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class TrialProgress:
    """Passes progress on, remembers which stages ran here, and asks the pruner whenever training was validated."""

    def __init__(self, trial: optuna.Trial, inner: Progress, heartbeat: Heartbeat, watched: str) -> None:
        self.trial, self.inner, self.heartbeat, self.watched = trial, inner, heartbeat, watched
        self.ran: dict[str, float] = {}
        """Stage -> share carried out here."""
        self.last_step = 0
        self._reported = set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def stage(self, name: str, state: str, detail: str = "") -> None:
        if state in ("starts", "resumes"):
            self.ran[name] = 0.0
        elif state == "done":
            self.ran[name] = 1.0
        if state != "up to date":  # most stages of most trials
            self.inner.stage(name, state, detail)

    def step(self, name: str, done: int, total: int, detail: str = "") -> None:
        if self.heartbeat.taken.is_set():
            raise TakenOver
        if name in self.ran:
            self.ran[name] = done / max(total, 1)
        self.inner.step(name, done, total, detail)

    def measured(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Raises optuna.TrialPruned when successive halving ends the trial here."""
        if self.watched not in values:
            return
        self.last_step = step
        if step not in self._reported:  # a trial taken over may pass a step that its first worker reported
            self._reported.add(step)
            self.trial.report(values[self.watched], step)
        if self.trial.should_prune():
            raise optuna.TrialPruned
