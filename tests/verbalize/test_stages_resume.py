"""Interrupted anywhere, the same command ends as the uninterrupted run did: bytes of data, weights of policies."""

import json
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import Finished, Workshop
from safetensors.torch import load_file
from tiny_run import Interrupts, Recorder, hashes, run, write_recipe

TABLES = {
    "logs": ("events.parquet", "items.parquet"),
    "examples": ("examples.parquet", "slates.parquet"),
    "templates": ("decisions.parquet", "roles.json"),
    "pool": ("decisions.parquet",),
    "warm_start": ("loss.parquet",),
    "evaluate": ("decisions.parquet", "margins.parquet", "verbalizations.parquet", "plan.json"),
}


def assert_equal_runs(one: dict[str, Path], other: dict[str, Path]) -> None:
    """The same stages under the same keys; equal bytes of data and decisions; every kept policy equal to 1e-6."""
    assert {name: folder.name for name, folder in one.items()} == {name: folder.name for name, folder in other.items()}
    for stage, names in TABLES.items():
        assert hashes(one[stage], *names) == hashes(other[stage], *names), stage
    for seed in (0, 1):
        assert curves(one["train"], seed) == curves(other["train"], seed)
    weights = sorted(
        path.relative_to(one[stage])
        for stage in ("recommender", "warm_start", "train")
        for path in one[stage].rglob("*.safetensors")
        if "parts" not in path.parts and "checkpoint" not in str(path)
    )
    assert sum("policies" in path.parts for path in weights) == 6  # two seeds, steps 0, 1 and 2
    for stage in ("recommender", "warm_start", "train"):
        for path in weights:
            if (one[stage] / path).exists():
                first, second = load_file(one[stage] / path), load_file(other[stage] / path)
                assert first.keys() == second.keys()
                for name, value in first.items():
                    assert (value - second[name]).abs().max() <= 1e-6, f"{stage} {path} {name}"


def curves(folder: Path, seed: int) -> list[dict]:
    """What was logged, without how long it took."""
    lines = (folder / f"seed-{seed}" / "curves.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


def test_training_moves_the_policy_and_seeds_differ(finished: Finished) -> None:
    """Otherwise equality after a resumption would show nothing."""
    folder = finished.result.stages["train"]
    policies = [
        load_file(folder / f"seed-{seed}" / "policies" / f"step-{step:05d}.safetensors")
        for seed, step in ((0, 0), (0, 1), (0, 2), (1, 2))
    ]
    for first, second in pairwise(policies):
        assert max((first[name] - second[name]).abs().max() for name in first) > 1e-4


def test_interrupted_in_every_stage_it_ends_the_same(workshop: Workshop, finished: Finished, tmp_path: Path) -> None:
    moments = [("recommender", 2), ("templates", 2), ("pool", 3), ("warm_start", 2), ("train", 1), ("train", 3)]
    moments += [("train", 2), ("train", 4), ("evaluate", 2), ("evaluate", 5)]
    for moment in moments:
        observer = Interrupts(*moment)
        with pytest.raises(KeyboardInterrupt):
            run(workshop.values, tmp_path, progress=observer)
        assert observer.began()[-1] == moment[0]
    recorder = Recorder()
    result = run(workshop.values, tmp_path, progress=recorder)
    assert recorder.events[:7] == [(stage, "up to date") for stage in list(result.stages)[:7]]
    assert recorder.events[7] == ("evaluate", "resumes")
    assert_equal_runs(finished.result.stages, result.stages)


def test_a_resumed_stage_does_not_begin_again(workshop: Workshop, tmp_path: Path) -> None:
    """What was reported before the interruption is not reported again: the work was kept."""
    with pytest.raises(KeyboardInterrupt):
        run(workshop.values, tmp_path, progress=Interrupts("warm_start", 2), until="warm_start")
    resumed = Recorder()
    run(workshop.values, tmp_path, progress=resumed, until="warm_start")
    assert next(step for step in resumed.steps if step[0] == "warm_start")[1:3] == (2, 3)
    assert ("warm_start", "resumes") in resumed.events and resumed.began() == ["warm_start"]


def test_killed_outright_it_ends_the_same(workshop: Workshop, finished: Finished, tmp_path: Path) -> None:
    recipe, runs = write_recipe(workshop.values, tmp_path / "tiny.yaml"), tmp_path / "runs"
    command = [sys.executable, "-m", "verbalize.cli", "run", str(recipe), "--runs", str(runs)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(runs.glob("artefacts/train/*/seed-0/checkpoint-1/complete.json")):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"ended before its first checkpoint: {process.communicate()[1][-2000:]}")
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    recorder = Recorder()
    result = run(workshop.values, runs, progress=recorder)  # the dead process holds no lock
    assert ("train", "resumes") in recorder.events and "warm_start" not in recorder.began()
    assert_equal_runs(finished.result.stages, result.stages)
