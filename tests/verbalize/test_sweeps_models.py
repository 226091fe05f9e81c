"""Sweeps of what reads or writes texts: pruned inside training, Pareto fronts, and the final look at test users."""

import json
from pathlib import Path

import optuna
import polars as pl
import pytest
from conftest import Finished, Workshop
from optuna.trial import TrialState
from sweep_files import by_state, sweep_of, write_sweep

from recsys.looks import LooksRegister
from recsys.storage import read_json, read_parquet
from verbalize import cli
from verbalize.report.ledger import load_claims, recompute
from verbalize.sweeps.results import front_of, summary
from verbalize.sweeps.settings import load_sweep
from verbalize.sweeps.storage import folder_of_sweep, open_study
from verbalize.sweeps.worker import work


def test_training_is_pruned_inside_and_shares_all_that_came_before(
    workshop: Workshop, store_copy: Path, tmp_path: Path
) -> None:
    sweep = sweep_of(
        tmp_path,
        workshop.values,
        overrides={"seeds": [0], "evaluation.claims": []},
        space={"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}},
        objective={"metric": "mrr", "arm": "learned"},
        pruner={"min_steps": 1, "reduction": 2},
        budget={"trials": 2},
    )
    study = open_study(sweep, store_copy)
    study.add_trial(  # one that no other can reach: it had a perfect ranking after the first step
        optuna.create_trial(
            params={"train.learning_rate": 1e-3},
            distributions={"train.learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)},
            value=1.0,
            intermediate_values={0: 1.0, 1: 1.0},
            system_attrs={"completed_rung_0": 1.0},
        )
    )
    before = set((store_copy / "artefacts").glob("*/*/done.json"))
    work(sweep, study, store_copy, "verbalize sweep")
    pruned = study.get_trials()[1]
    assert pruned.state == TrialState.PRUNED and sorted(pruned.intermediate_values) == [0, 1]
    assert set((store_copy / "artefacts").glob("*/*/done.json")) == before  # it ended in training, and nothing else ran
    (unfinished,) = (f for f in (store_copy / "artefacts" / "train").iterdir() if not (f / "done.json").exists())
    curves = [json.loads(line) for line in (unfinished / "seed-0" / "curves.jsonl").read_text().splitlines()]
    assert max(record["step"] for record in curves) == 1 < workshop.values["train"]["steps"]
    calls = summary(sweep, study)["trials"][1]["recommender_calls"]
    assert 0 < calls <= (2 * 2 * 4 + 3 * 6) * 2


def test_several_objectives_give_the_pareto_front(
    workshop: Workshop, finished: Finished, store_copy: Path, tmp_path: Path
) -> None:
    templates = ["titles", "titles_metadata", "concatenation", "drop_all"]
    sweep = sweep_of(
        tmp_path,
        workshop.values,
        overrides={"evaluation.claims": []},
        space={"arm": {"type": "categorical", "choices": templates}},
        objective={"metric": "mrr", "arm": "titles", "costs": ["tokens", "seconds"]},
        sampler={"kind": "grid"},
        budget={"trials": 4},
    )
    study = open_study(sweep, store_copy)
    work(sweep, study, store_copy, "verbalize sweep")
    rows = {row["params"]["arm"]: row for row in summary(sweep, study)["trials"]}
    texts = read_parquet(finished.result.stages["templates"] / "decisions.parquet")
    for arm, row in rows.items():
        ranks = texts.filter(pl.col("verbalizer") == arm)["rank"]
        assert row["value"] == pytest.approx((1 / ranks).mean())  # every example has the same number of slates
        assert row["recommender_calls"] == 0  # everything was scored before
    assert rows["drop_all"]["tokens"] == 0 < rows["titles"]["tokens"] < rows["concatenation"]["tokens"]
    points = {row["number"]: (row["value"], -row["tokens"], -row["seconds"]) for row in rows.values()}

    def beaten(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    expected = {n for n, point in points.items() if not any(beaten(point, other) for other in points.values())}
    assert {trial.number for trial in front_of(study)} == expected
    values = [trial.values[0] for trial in front_of(study)]
    assert values == sorted(values, reverse=True)


def test_test_users_stay_closed_until_final_and_are_opened_once(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register = tmp_path / "looks.json"
    overrides = {"evaluation.claims": [], "evaluation.register": str(register), "sample.test": None}
    path = write_sweep(tmp_path, workshop.values, overrides=overrides, budget={"trials": 5}, final={"seeds": [50]})
    runs, arguments = tmp_path / "runs", ["sweep", str(path), "--runs", str(tmp_path / "runs")]
    assert cli.main([*arguments, "--final"]) == 2 and "has no trials yet" in capsys.readouterr().err
    assert cli.main(arguments) == 0
    assert not register.exists() and not (folder_of_sweep(runs, "tiny-sweep") / "final").exists()
    assert "optimistic" in capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    assert cli.main([*arguments, "--final", "--json", "--record"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [look["claim_id"] for look in LooksRegister(register).entries()] == ["sweep.best_vs_default"]
    assert found["look"] == 1 and found["seeds"] == [50]
    best = max(trial.value for trial in by_state(open_study(load_sweep(path), runs))["complete"])
    assert found["validation"]["chosen_with"] == best
    test = found["test"]
    assert test["difference"] == pytest.approx(test["best"] - test["default"])
    assert test["low"] <= test["difference"] <= test["high"]
    assert found["optimism"] == pytest.approx(best - test["best"])
    examples = next((runs / "artefacts" / "examples").glob("*/examples.parquet"))
    assert test["n"] == len(read_parquet(examples).filter(pl.col("split") == "test"))
    claim = load_claims(tmp_path)["sweep.best_vs_default"]
    assert claim.value == pytest.approx(test["difference"], abs=1e-6)
    assert recompute(claim, tmp_path).value == pytest.approx(claim.value, abs=1e-6)
    assert read_json(folder_of_sweep(runs, "tiny-sweep") / "final.json") == found
    page = (folder_of_sweep(runs, "tiny-sweep") / "sweep.html").read_text(encoding="utf-8")
    assert "On test users" in page and f"{test['difference']:+.3f}".replace("-", "−") in page

    assert cli.main([*arguments, "--final"]) == 0  # the same configurations: a resumption
    assert LooksRegister(register).looks("sweep.best_vs_default") == 1
    shown = capsys.readouterr().out
    assert "validation, as chosen" in shown and "look 1 at test users" in shown
    trials = read_json(folder_of_sweep(runs, "tiny-sweep") / "sweep.json")["trials"]
    other = next(trial["number"] for trial in trials if trial["number"] != found["trial"])
    assert cli.main([*arguments, "--final", "--trial", str(other)]) == 0
    assert LooksRegister(register).looks("sweep.best_vs_default") == 2  # another configuration is another look


def test_the_final_comparison_of_learned_arms_retrains_with_fresh_seeds(
    workshop: Workshop, store_copy: Path, tmp_path: Path
) -> None:
    from verbalize.sweeps.final import final

    sweep = sweep_of(
        tmp_path,
        workshop.values,
        overrides={
            "seeds": [0],
            "evaluation.claims": [],
            "evaluation.register": str(tmp_path / "l.json"),
            "train.steps": 1,
        },
        space={"train.learning_rate": {"type": "categorical", "choices": [1e-3, 3e-2]}},
        objective={"metric": "recall@1", "arm": "learned"},
        sampler={"kind": "grid"},
        budget={"trials": 1},
        final={"seeds": [7, 8]},
    )
    study = open_study(sweep, store_copy)
    work(sweep, study, store_copy, "verbalize sweep")
    found = final(sweep, study, store_copy, "verbalize sweep --final")
    folder = next((folder_of_sweep(store_copy, "tiny-sweep") / "final").iterdir())
    texts = {side: sorted(p.name for p in (folder / side / "parts").glob("*.json")) for side in ("best", "default")}
    assert texts == {"best": ["texts-7.json", "texts-8.json"], "default": ["texts-7.json", "texts-8.json"]}
    assert found["test"]["n"] == 12 and 0 <= found["test"]["best"] <= 1
