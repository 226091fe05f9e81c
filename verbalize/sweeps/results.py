"""What a sweep found, as plain data, as text, and as files beside its trials."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from recsys.errors import InputError
from recsys.storage import read_json, write_json, write_text
from verbalize.sweeps.ownership import ERROR, REFUSED, RETRY_OF, is_lost
from verbalize.sweeps.sampling import chosen
from verbalize.sweeps.settings import Sweep
from verbalize.sweeps.storage import folder_of_sweep
from verbalize.sweeps.worker import CALLS, SECONDS, TOKENS, VALUE

RESULTS = "sweep.json"
REPORT = "sweep.html"
FINAL = "final.json"
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def state_of(trial: FrozenTrial) -> str:
    """complete, pruned, running, waiting, failed (the configuration cannot run), lost (done again) or refused."""
    if trial.state == TrialState.FAIL:
        return "lost" if is_lost(trial) else "refused" if REFUSED in trial.user_attrs else "failed"
    return STATES[trial.state]


def summary(sweep: Sweep, study: optuna.Study) -> dict[str, Any]:
    """Plain values: the trials, how many of which state, the best or the Pareto front with the command that runs it."""
    trials = study.get_trials(deepcopy=False)
    rows = [_row(sweep, trial) for trial in trials]
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    front = front_of(study)
    return {
        "sweep": sweep.config.name,
        "recipe": str(sweep.recipe_path),
        "objective": [sweep.config.objective.metric, *sweep.config.objective.costs],
        "counts": counts,
        "recommender_calls": sum(row["recommender_calls"] for row in rows),
        "best": [_row(sweep, trial) | {"command": sweep.command(chosen(trial, sweep.config.space))} for trial in front],
        "trials": rows,
    }


def front_of(study: optuna.Study) -> list[FrozenTrial]:
    """The trials no other beats in everything; with one objective the first best. Highest metric first."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not done:
        return []
    best = list(study.best_trials)
    if len(study.directions) == 1:
        return [min(best, key=lambda trial: trial.number)]
    return sorted(best, key=lambda trial: (-trial.values[0], *trial.values[1:], trial.number))


def pick(study: optuna.Study, number: int | None) -> FrozenTrial:
    """The complete trial of that number, or the best: highest metric, then cheapest. InputError where there is none."""
    front = front_of(study)
    if number is None:
        if not front:
            raise InputError(f"sweep {study.study_name}", "has no complete trial", "run it without --final first")
        return front[0]
    done = {trial.number: trial for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}
    if number not in done:
        raise InputError(
            f"--trial {number}", "is no complete trial", f"complete: {', '.join(map(str, done)) or 'none'}"
        )
    return done[number]


def text(found: Mapping[str, Any]) -> str:
    """The summary for people."""
    counts = ", ".join(f"{number} {state}" for state, number in sorted(found["counts"].items()))
    lines = [f"sweep {found['sweep']}: {counts or 'no trials'}"]
    lines.append("on the validation users who select, so the best of many tries is optimistic:")
    for row in found["best"]:
        values = ", ".join(f"{name} {row[name]:.4g}" for name in ("value", *found["objective"][1:]))
        lines.append(f"  trial {row['number']:<4} {values.replace('value', found['objective'][0], 1)}")
        lines.append(f"    {row['command']}")
    if not found["best"]:
        lines.append("  no trial is complete yet")
    for row in found["trials"]:
        if row["state"] == "failed":
            lines.append(f"  trial {row['number']:<4} failed: {row['error']}")
    return "\n".join(lines)


def write_results(sweep: Sweep, study: optuna.Study, runs: Path | str) -> dict[str, Any]:
    """Write sweep.json and sweep.html (which shows final.json) into the sweep's folder; returns the summary."""
    from verbalize.report.optuna_trials import table_of_study
    from verbalize.report.sweep import sweep_report
    from verbalize.report.trials import Objective

    found = summary(sweep, study)
    folder = folder_of_sweep(runs, sweep.config.name)
    write_json(found, folder / RESULTS)
    objective = sweep.config.objective
    objectives = [Objective(objective.metric), *(Objective(cost, maximise=False) for cost in objective.costs)]
    compared = read_json(folder / FINAL) if (folder / FINAL).exists() else None
    write_text(sweep_report(table_of_study(study, objectives), compared), folder / REPORT)
    return found


def _row(sweep: Sweep, trial: FrozenTrial) -> dict[str, Any]:
    facts = trial.user_attrs
    return {
        "number": trial.number,
        "state": state_of(trial),
        "params": chosen(trial, sweep.config.space),
        "value": facts.get(VALUE),
        "tokens": facts.get(TOKENS),
        "seconds": facts.get(SECONDS),
        "recommender_calls": int(facts.get(CALLS, 0)),
        "again": facts.get(RETRY_OF),
        "error": facts.get(ERROR),
        "took_s": trial.duration.total_seconds() if trial.duration else None,
    }
