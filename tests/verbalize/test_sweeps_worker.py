"""Carrying out a sweep: every trial exactly once whatever is killed, shared stages once, budgets, pruning."""

import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import optuna
import polars as pl
import pytest
from optuna.trial import TrialState
from sweep_files import BASELINE_SPACE, by_state, model_free_recipe, sweep_of, write_sweep
from tiny_run import Recorder

from recsys.errors import InputError
from recsys.storage import read_json
from verbalize import cli
from verbalize.sweeps.ownership import BEAT, ORIGIN, RETRY_OF, WORKER, Watch, admitted, place, reclaim, signature
from verbalize.sweeps.results import front_of, state_of, summary, write_results
from verbalize.sweeps.settings import load_sweep
from verbalize.sweeps.storage import JOURNAL, folder_of_sweep, open_study
from verbalize.sweeps.worker import TrialProgress, work

DEAD = {"machine": signature()["machine"], "pid": 2**22 + 1, "started": "1"}
AWAY = {"machine": "another", "pid": 1, "started": "1"}


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return model_free_recipe(tmp_path_factory.mktemp("sweeps"))


def command_of(sweep: Path, runs: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "verbalize.cli", "sweep", str(sweep), "--runs", str(runs), *more]


def read_only(journal: Path) -> dict[str, list[optuna.trial.FrozenTrial]]:
    """The journal's trials without its lock, which the stopped process may hold."""
    if not journal.exists():
        return {}
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    names = optuna.get_all_study_names(storage)
    return by_state(optuna.load_study(study_name=names[0], storage=storage)) if names else {}


def done_files(runs: Path, stage: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (runs / "artefacts" / stage).glob("*/done.json")}


def test_killed_outright_every_trial_is_done_exactly_once(values: dict[str, Any], tmp_path: Path) -> None:
    path, runs = write_sweep(tmp_path, values, budget={"trials": 8}), tmp_path / "runs"
    sweep = load_sweep(path)
    process = subprocess.Popen(command_of(path, runs), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    journal, deadline = folder_of_sweep(runs, sweep.config.name) / JOURNAL, time.monotonic() + 600
    while True:  # stop it, look whether it is in the middle of a trial, and if not let it go on
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"ended before it could be killed: {process.communicate()[1][-2000:]}")
        time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)
        states = read_only(journal)
        running = states.get("running", [])
        if len(states.get("complete", [])) >= 2 and running and WORKER in running[0].user_attrs and running[0].params:
            break
        process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed, before = running[0], {t.number: t.datetime_complete for t in states["complete"]}
    shared = done_files(runs, "logs") | done_files(runs, "examples")

    study = open_study(sweep, runs)
    work(sweep, study, runs, "verbalize sweep")
    after = by_state(study)
    assert {state: len(trials) for state, trials in after.items()} == {"complete": 8, "lost": 1}
    assert [trial.number for trial in after["lost"]] == [killed.number]
    again = [trial for trial in after["complete"] if trial.user_attrs.get(RETRY_OF) == killed.number]
    assert len(again) == 1 and again[0].user_attrs[ORIGIN] == killed.number
    assert killed.params.items() <= again[0].params.items()  # it may have been killed while it drew them
    origins = [trial.user_attrs.get(ORIGIN, trial.number) for trial in after["complete"]]
    assert sorted(set(origins)) == sorted(origins)
    for trial in after["complete"]:
        if trial.number in before:
            assert trial.datetime_complete == before[trial.number]
    for done, moment in shared.items():
        assert done.stat().st_mtime_ns == moment
    assert len(done_files(runs, "logs")) == 1 and len(done_files(runs, "examples")) <= 2
    work(sweep, study, runs, "verbalize sweep")  # the budget is spent: nothing more happens
    assert len(study.get_trials()) == 9


def joined_work(path: Path, runs: Path, barrier: Barrier) -> None:
    """A worker that carries out its first trial when the other has one too, so that neither takes the whole budget."""
    waits = iter([lambda: barrier.wait(timeout=300)])
    sweep = load_sweep(path)
    work(sweep, open_study(sweep, runs), runs, "verbalize sweep", None, lambda line: next(waits, str)())


def test_two_processes_share_a_budget(values: dict[str, Any], tmp_path: Path) -> None:
    path, runs, context = write_sweep(tmp_path, values, budget={"trials": 7}), tmp_path / "runs", get_context("spawn")
    barrier = context.Barrier(2)
    workers = [context.Process(target=joined_work, args=(path, runs, barrier)) for _ in range(2)]
    for process in workers:
        process.start()
    for process in workers:
        process.join(300)
    assert [process.exitcode for process in workers] == [0, 0]
    trials = open_study(load_sweep(path), runs).get_trials()
    assert {trial.user_attrs[WORKER]["pid"] for trial in trials} == {process.pid for process in workers}
    assert [trial.state for trial in trials].count(TrialState.COMPLETE) == 7
    assert len({str(trial.params) for trial in trials if trial.state == TrialState.COMPLETE}) == 7


def test_workers_share_the_stages(values: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, runs = write_sweep(tmp_path, values, budget={"trials": 7}), tmp_path / "runs"
    assert cli.main(["sweep", str(path), "--runs", str(runs), "--workers", "2", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["counts"] == {"complete": 7} and [len(found["best"]), found["objective"]] == [1, ["mrr"]]
    study = open_study(load_sweep(path), runs)
    assert os.getpid() not in {trial.user_attrs[WORKER]["pid"] for trial in study.get_trials()}
    assert len({str(trial.params) for trial in study.get_trials()}) == 7
    assert len(done_files(runs, "logs")) == 1 and len(done_files(runs, "examples")) == 2
    drawn = [pl.read_parquet(path) for path in (runs / "artefacts" / "examples").glob("*/slates.parquet")]
    assert drawn[0].equals(drawn[1])  # longer histories do not move the slates, so the trials compare
    assert found["best"][0]["value"] == max(trial["value"] for trial in found["trials"])
    assert (folder_of_sweep(runs, "tiny-sweep") / "sweep.html").read_text().startswith("<!doctype html>")


def test_taken_up_again_it_proposes_what_it_would_have(values: dict[str, Any], tmp_path: Path) -> None:
    """Model-based draws included: 7 trials at once, and 3 and then 4."""
    at_once = sweep_of(tmp_path, values, budget={"trials": 7})
    whole = open_study(at_once, tmp_path / "a")
    work(at_once, whole, tmp_path / "a", "verbalize sweep")
    for trials in (3, 7):
        part = sweep_of(tmp_path, values, budget={"trials": trials})
        work(part, open_study(part, tmp_path / "b"), tmp_path / "b", "verbalize sweep")
    halves = open_study(at_once, tmp_path / "b")
    assert [t.params for t in whole.get_trials()] == [t.params for t in halves.get_trials()]
    assert [t.values for t in whole.get_trials()] == [t.values for t in halves.get_trials()]
    assert len({str(t.params) for t in whole.get_trials()}) == 7


def test_a_grid_visits_every_point_once_and_stops(values: dict[str, Any], tmp_path: Path) -> None:
    space = {
        "arm": {"type": "categorical", "choices": ["item_knn", "popularity"]},
        "baselines.item_knn.neighbours": {"type": "int", "low": 2, "high": 6, "step": 2, "when": {"arm": "item_knn"}},
    }
    sweep = sweep_of(tmp_path, values, space=space, sampler={"kind": "grid"}, budget={"trials": 50})
    study = open_study(sweep, tmp_path / "runs")
    work(sweep, study, tmp_path / "runs", "verbalize sweep")
    points = [trial.params for trial in study.get_trials()]
    expected = [{"arm": "item_knn", "baselines.item_knn.neighbours": k} for k in (2, 4, 6)] + [{"arm": "popularity"}]
    assert sorted(points, key=str) == sorted(expected, key=str)


def test_budgets_of_time_and_of_calls_end_a_sweep(values: dict[str, Any], tmp_path: Path) -> None:
    one = 6 * 2  # selection examples x slates: what the first trial of a baseline reads
    for name, budget, trials in (
        ("calls", {"trials": 9, "recommender_calls": one + 1}, 2),
        ("time", {"seconds": 1e-9}, 0),
    ):
        sweep = sweep_of(tmp_path, values, name=name, budget=budget)
        study = open_study(sweep, tmp_path / "runs")
        work(sweep, study, tmp_path / "runs", "verbalize sweep")
        assert len(study.get_trials()) == trials
        assert summary(sweep, study)["recommender_calls"] == trials * one


def test_another_space_under_the_same_name_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    first = sweep_of(tmp_path, values)
    open_study(first, tmp_path / "runs")
    longer = sweep_of(tmp_path, values, budget={"trials": 60}, lost_after_s=5)
    open_study(longer, tmp_path / "runs")
    for changes in (
        {"space": {"baselines.ease.l2": BASELINE_SPACE["baselines.ease.l2"] | {"when": {}}}},
        {"objective": {"metric": "recall@1", "arm": "ease"}},
        {"overrides": {"sample.selection": 5, "evaluation.claims": []}},
    ):
        with pytest.raises(InputError, match="another space, objective or recipe"):
            open_study(sweep_of(tmp_path, values, **changes), tmp_path / "runs")


def test_a_configuration_that_cannot_run_is_recorded_and_counts(values: dict[str, Any], tmp_path: Path) -> None:
    """EASE^R refuses a catalogue above max_items, which no check of the configuration alone can know."""
    space = {"baselines.ease.max_items": {"type": "categorical", "choices": [10, 1000]}}
    sweep = sweep_of(
        tmp_path, values, space=space, objective={"arm": "ease"}, sampler={"kind": "grid"}, budget={"trials": 2}
    )
    study = open_study(sweep, tmp_path / "runs")
    work(sweep, study, tmp_path / "runs", "verbalize sweep")
    found = write_results(sweep, study, tmp_path / "runs")
    assert found["counts"] == {"complete": 1, "failed": 1}
    failed = next(row for row in found["trials"] if row["state"] == "failed")
    assert failed["params"] == {"baselines.ease.max_items": 10} and "limit of 10 items" in failed["error"]
    assert read_json(folder_of_sweep(tmp_path / "runs", "tiny-sweep") / "sweep.json") == found


def memory_study() -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))


def test_dead_and_silent_workers_lose_their_trials_and_live_ones_do_not() -> None:
    study, watch = memory_study(), Watch(lost_after_s=60)
    dead, mine, away, unsigned = (study.ask() for _ in range(4))
    for trial, owner in ((dead, DEAD), (mine, signature()), (away, AWAY)):
        trial.set_user_attr(WORKER, owner)

    def lost(now: float) -> list[int]:
        return [trial.number for trial in study.get_trials() if watch.lost(trial, now)]

    assert lost(1000.0) == [dead.number]
    assert lost(1011.0) == [dead.number, unsigned.number]
    away.set_user_attr(BEAT, 1)  # a sign of life, at whatever time that machine thinks it is
    assert lost(1061.0) == [dead.number, unsigned.number]
    assert lost(1120.0) == [dead.number, unsigned.number]
    assert lost(1122.0) == [dead.number, away.number, unsigned.number]


def test_a_lost_trial_is_queued_once_with_its_parameters_and_not_for_ever() -> None:
    study, watch = memory_study(), Watch(60)
    for attempt in range(6):
        trial = study.ask()
        trial.set_user_attr(WORKER, DEAD)
        drawn = trial.suggest_float("x", 0, 1)
        assert attempt == 0 or drawn == study.trials[0].params["x"] or trial.number > 3
        for _ in range(3):  # several workers look at the same time
            reclaim(study, watch)
    lost = [trial for trial in study.get_trials() if state_of(trial) == "lost"]
    attempts = [trial for trial in lost if trial.user_attrs.get(ORIGIN, trial.number) == 0]
    assert len(attempts) == 4 and len({trial.params["x"] for trial in attempts}) == 1
    assert [trial.user_attrs.get(RETRY_OF) for trial in attempts] == [None, 0, 1, 2]


def test_of_two_successors_the_first_runs_and_the_budget_is_exact() -> None:
    study = memory_study()
    first, second, third = (study.ask() for _ in range(3))
    for number in (0, 0):  # two workers queued the same lost trial at the same moment
        study.add_trial(optuna.create_trial(state=TrialState.WAITING, user_attrs={RETRY_OF: number, ORIGIN: 0}))
    trials = study.get_trials()
    assert [admitted(trials, trial, budget=2) for trial in trials] == [True, True, False, True, False]
    assert [place(trials, trial) for trial in trials] == [0, 1, 2, 0, 0]
    assert [first.number, second.number, third.number] == [0, 1, 2]


def test_successive_halving_ends_a_trial_that_trains_worse_than_the_others() -> None:
    class Beating:
        class taken:
            is_set = staticmethod(lambda: False)

    study = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=2)
    )
    curves = {0: [0.1, 0.4, 0.5, 0.6], 1: [0.1, 0.3, 0.4, 0.5], 2: [0.0, 0.5, 0.6, 0.7]}
    ended = {}
    for number, curve in curves.items():
        trial, inner = study.ask(), Recorder()
        observer = TrialProgress(trial, inner, Beating(), "seed0/validation/component.hit")  # type: ignore[arg-type]
        try:
            for step, value in enumerate(curve, start=1):
                observer.step("train", step, 4)
                observer.measured("train", step, {"seed0/train/reward": 9.0})
                observer.measured("train", step, {"seed0/validation/component.hit": value})
            study.tell(trial, curve[-1])
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        ended[number] = inner.steps[-1][1]
    assert ended == {0: 4, 1: 2, 2: 4}  # the second was worse than the first at step 2, the third better
    assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert front_of(study)[0].number == 2
