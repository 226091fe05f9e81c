"""The benchmark of a GRPO step: what a process measures, what a grid says, and which claim a device may touch."""

import argparse
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from recsys.errors import InputError

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture
def grpo_step(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("grpo_step")


def options_of(grpo_step: ModuleType, *words: str) -> argparse.Namespace:
    return grpo_step.arguments().parse_args(words)


@pytest.mark.parametrize("arm", ["stock", "shared"])
def test_a_process_times_whole_steps_and_their_parts(grpo_step: ModuleType, tiny_model_dir: Path, arm: str) -> None:
    options = options_of(
        grpo_step, "--prompt", "24", "--group", "4", "--completion", "3", "--model", str(tiny_model_dir)
    )
    sizes = argparse.Namespace(arm=arm, seed=0, **grpo_step.sizes_of(options, stock_rows=2))
    found = sys.modules["grpo_step_process"].one_process(sizes)
    assert len(found["steps"]) == options.steps  # the warm-up is not among them
    for step in found["steps"]:
        assert min(step.values()) >= 0 and step["generation"] > 0 and step["loss"] > 0
        assert step["seconds"] == pytest.approx(step["generation"] + step["loss"] + step["optimizer"])
    assert found["peak_gib"] > 0


def test_the_grid_holds_both_arms_and_their_ratio_at_every_point(grpo_step: ModuleType) -> None:
    told: list[dict[str, Any]] = []

    def measure(**sizes: Any) -> dict[str, Any]:
        told.append(sizes)
        tokens = sizes["prompt"] + sizes["group"] * sizes["completion"]
        seconds = tokens / 1000 if sizes["arm"] == "shared" else sizes["group"] * (sizes["prompt"] + 64) / 1000
        return {"steps": [{"seconds": seconds}] * sizes["steps"], "peak_gib": 1.0}

    points = grpo_step.growth(options_of(grpo_step, "--grid"), measure)
    assert [(point["prompt"], point["group"]) for point in points] == [
        (prompt, group) for prompt in (250, 500, 1000) for group in (4, 8, 16)
    ]
    assert points[-1]["ratio"] == pytest.approx(16 * 1064 / (1000 + 16 * 64), abs=1e-3)
    assert len(told) == 18 and {sizes["stock_rows"] for sizes in told} == {4}  # what fits beside 24 GB, at every G
    told.clear()
    rows = grpo_step.choices(options_of(grpo_step, "--choices"), measure)
    assert len(rows) == 4 and {sizes["arm"] for sizes in told} == {"shared"}
    assert {(row["dtype"], row["threads"]) for row in rows} == {
        (dtype, threads) for dtype in ("float32", "bfloat16") for threads in (1, 2)
    }


def test_a_gpu_has_a_claim_of_its_own_and_a_cpu_keeps_its_two(grpo_step: ModuleType) -> None:
    ids = {
        device: {claim[0] for key, claim in grpo_step.CLAIMS.items() if key[0] == device} for device in ("cpu", "cuda")
    }
    assert ids["cuda"] == {"bench.grpo_step_vs_trl_gpu"}
    assert ids["cpu"] == {"bench.grpo_step_vs_trl_cpu", "bench.grpo_step_vs_trl_cpu_rewrite"}
    before = sorted((grpo_step.RESULTS / "claims").iterdir())
    grpo_step.record("rewrite", {}, "cuda")  # measured, not claimed: nothing is written
    assert sorted((grpo_step.RESULTS / "claims").iterdir()) == before
    assert grpo_step.sizes_of(options_of(grpo_step, "--device", "cuda"), completion=64)["stock_rows"] == 8


def test_a_shape_is_kept_in_a_file_of_its_own(
    grpo_step: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = {"shared": {"seconds": [1.0]}, "stock": {"seconds": [3.0]}}
    monkeypatch.setattr(grpo_step, "compare", lambda shape, options: {**measured, "asked": shape})
    monkeypatch.setattr(sys, "argv", ["grpo_step.py", "--shape", "rewrite", "--rounds", "2", "--out", str(tmp_path)])
    grpo_step.main()
    assert [path.name for path in tmp_path.iterdir()] == ["grpo_step_rewrite.json"]  # the action shape's stays as it is
    kept = json.loads((tmp_path / "grpo_step_rewrite.json").read_text())
    assert kept["rewrite"] == {**measured, "asked": "rewrite"} and kept["rounds"] == 2 and kept["hardware"]


def test_what_cannot_be_measured_is_refused(grpo_step: ModuleType) -> None:
    with pytest.raises(InputError, match=r"--group 6 with 4 rollouts.*evenly"):
        grpo_step.sizes_of(options_of(grpo_step, "--group", "6"))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA device"):
            grpo_step.surroundings_of("cuda")
