"""Listing and comparing runs: what differs and nothing else, numbers equal to those of the tables, states of runs."""

import fcntl
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from conftest import Finished, Workshop
from tiny_run import run

from recsys.errors import InputError
from recsys.storage import read_json, read_parquet, write_json
from verbalize import cli
from verbalize.inventory import compare_runs, list_runs, list_sweeps


@pytest.fixture(scope="module")
def runs(workshop: Workshop, finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside the complete run, one that stopped after its examples."""
    folder = Path(shutil.copytree(finished.untouched, tmp_path_factory.mktemp("inventory") / "runs"))
    run(workshop.values, folder, "name=short", "examples.history_max=5", until="examples")
    return folder


def test_runs_are_listed_with_status_stages_and_numbers(runs: Path, finished: Finished) -> None:
    rows = {row["name"]: row for row in list_runs(runs)}
    assert (rows["tiny"]["status"], rows["short"]["status"]) == ("complete", "unfinished")
    assert {*rows["short"]["stages"]} == {"logs", "examples"} and len(rows["tiny"]["stages"]) == 9
    manifest = read_json(runs / "tiny" / "manifest.json")
    assert rows["tiny"]["seconds"] == pytest.approx(sum(s["seconds"] for s in manifest["stages"].values()), abs=0.1)
    decisions = read_parquet(finished.result.stages["evaluate"] / "decisions.parquet")
    ease = decisions.filter(pl.col("recommender") == "ease")
    assert rows["tiny"]["recall@1"]["history / ease"] == pytest.approx((ease["rank"] == 1).mean())
    assert rows["short"]["recall@1"] == {}
    with (runs / "short" / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert {row["name"]: row["status"] for row in list_runs(runs)}["short"] == "running"
    assert {row["name"]: row["status"] for row in list_runs(runs)}["short"] == "unfinished"


def test_a_comparison_shows_the_keys_that_differ_and_no_others(runs: Path) -> None:
    found = compare_runs(runs, ["tiny", "short"])
    assert found["configuration"] == {
        "name": {"tiny": "tiny", "short": "short"},
        "examples.history_max": {"tiny": 6, "short": 5},
    }
    assert set(found["metrics"]["history / logit"]) == {"tiny"} and found["training"]["short"] == {}
    assert "seed1/validation/reward" in found["training"]["tiny"]
    assert set(found["seconds"]["short"]) == {"logs", "examples"}
    for names in (["tiny"], ["tiny", "tiny"], ["tiny", "absent"]):
        with pytest.raises(InputError):
            compare_runs(runs, names)


def test_the_command_prints_text_and_json(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", "--runs", str(runs)]) == 0
    assert "complete" in capsys.readouterr().out
    assert cli.main(["runs", "list", "--runs", str(runs), "--json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)["runs"]} == {"tiny", "short"}
    assert cli.main(["runs", "compare", "tiny", "short", "--runs", str(runs)]) == 0
    shown = capsys.readouterr().out
    assert "history / ease" in shown and "examples.history_max" in shown and "train.steps" not in shown
    assert cli.main(["runs", "compare", "tiny", "--runs", str(runs)]) == 2
    assert cli.main(["runs", "--runs", str(tmp_path / "none")]) == 2
    assert "is no folder of runs" in capsys.readouterr().err


def test_sweeps_are_listed_from_their_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = [{"value": 0.4123, "params": {"arm": "ease"}}]
    found = {"sweep": "s", "objective": ["mrr"], "counts": {"complete": 3}, "best": best, "trials": []}
    write_json(found, tmp_path / "sweeps" / "s" / "sweep.json")
    assert list_sweeps(tmp_path) == [{"name": "s", "objective": ["mrr"], "counts": {"complete": 3}, "best": best[0]}]
    assert cli.main(["runs", "--runs", str(tmp_path)]) == 0
    assert "sweep s: 3 complete; best mrr 0.4123" in capsys.readouterr().out
