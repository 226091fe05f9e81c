"""A recipe under `accelerate launch` with two processes on the CPU: one run, whose training both of them carry out."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Finished, Workshop
from optimize_helpers import launched
from tiny_run import recipe_of, run, write_recipe

from recsys.errors import InputError
from recsys.storage import read_json
from verbalize.cli import main
from verbalize.optimize.curriculum import STATE, Curriculum
from verbalize.optimize.curriculum_settings import CurriculumConfig
from verbalize.stages.samples import training_sample

PLAIN = ("recommender_training=null", "warm_start=null", "evaluation.untrained=[]")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_two_processes_train_one_policy_and_one_of_them_writes(
    workshop: Workshop, finished: Finished, tmp_path: Path
) -> None:
    recipe = write_recipe(workshop.values, tmp_path / "recipe.yaml")
    done = launched("-m", "verbalize.cli", "train", str(recipe), *PLAIN, "--runs", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr[-3000:]
    said = [line.split()[:2] for line in done.stdout.splitlines()]
    assert all(said.count([stage, "done"]) == 1 for stage in ("logs", "examples", "templates", "train")), done.stdout
    (place,) = (tmp_path / "runs" / "artefacts" / "train").glob("*/seed-0")
    assert read_json(place / "result.json")["steps"] == 2
    # What is recorded of a step stands there once, and a step is as large as that of one process: two whole groups, of
    # which each process rolled out one.
    alone = lines(finished.result.stages["train"] / "seed-0" / "curves.jsonl")
    assert [(row["kind"], row["step"]) for row in lines(place / "curves.jsonl")] == [
        (row["kind"], row["step"]) for row in alone
    ]
    for name in ("step-00000.jsonl", "step-00001.jsonl"):
        prompts = [row["example_id"] for row in lines(place / "rollouts" / name)]
        assert [len(list(group)) for _, group in groupby(prompts)] == [4, 4], name
    # Both processes have their random states in every checkpoint, so that resuming goes on as it would have.
    for checkpoint in place.glob("checkpoint-*"):
        assert {"complete.json", "rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in checkpoint.iterdir()}

    (place.parent / "done.json").unlink()  # as if killed before the stage's end
    with pytest.raises(InputError, match="begun with another number of processes"):
        run(workshop.values, tmp_path / "runs", *PLAIN, until="train")


def test_what_is_the_work_of_one_process_is_refused(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["runs", "--runs", str(tmp_path)]) == 2
    assert "verbalize runs with 2 processes: is the work of one process" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"dpo with 2 processes.*only GRPO.*without a launcher"):
        run(workshop.values, tmp_path, "dpo={}")


def test_two_processes_draw_one_curriculum_and_pay_slots_apart(workshop: Workshop, tmp_path: Path) -> None:
    """Each rolls out its places of the same draw, and learns of the other's: the state follows from all rollouts."""
    recipe = write_recipe(workshop.values, tmp_path / "recipe.yaml")
    asked = (*PLAIN, "train.curriculum.floor=0.2", "train.credit=slots", "seeds=[0]", "train.steps=3")
    done = launched("-m", "verbalize.cli", "train", str(recipe), *asked, "--runs", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr[-3000:]
    (place,) = (tmp_path / "runs" / "artefacts" / "train").glob("*/seed-0")
    (examples,) = (tmp_path / "runs" / "artefacts" / "examples").iterdir()
    ids = training_sample(recipe_of(workshop.values, *asked), examples)["example_id"].to_list()
    trained = [row for row in lines(place / "curves.jsonl") if row["kind"] == "train"]
    assert all(0 < row["slots.that_matter"] <= 1 and np.isfinite(row["loss"]) for row in trained)
    again = Curriculum([{"example_id": key} for key in ids], CurriculumConfig(floor=0.2), seed=0)
    for step in range(3):
        rows = lines(place / "rollouts" / f"step-{step:05d}.jsonl")
        drawn = again.draw(step, 2).indices.tolist()
        assert [row["example_id"] for row in rows[::4]] == [ids[index] for index in drawn]
        again.observe(drawn, np.array([row["reward"] for row in rows]).reshape(2, 4))
    kept = read_json(place / "checkpoint-3" / STATE)
    assert {name: pytest.approx(values, rel=1e-5, abs=1e-9) for name, values in again.state().items()} == kept
