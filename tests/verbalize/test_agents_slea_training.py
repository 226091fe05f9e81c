"""Whole runs of the methods on ladders: learning, what each switch does, interruption, aborts."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from experience_helpers import named_vectors
from safetensors.torch import load_file
from slea_helpers import EXPERIENCE, SLEA, TRAINING, train
from tiny_run import model_with_chat

from recsys.errors import InputError
from recsys.storage import read_json
from verbalize.agents.agent_trainer import AgentGRPOTrainer
from verbalize.agents.agent_trainer_batch import TurnBatch
from verbalize.agents.slea_memory import extractor_of
from verbalize.agents.slea_settings import ArmConfig
from verbalize.agents.slea_training import learning_curve
from verbalize.experience.library import ExperienceLibrary
from verbalize.optimize.curves import Curves

GRPO = ArmConfig()


@pytest.fixture(scope="module")
def chat_model(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_with_chat(tiny_model_dir, tmp_path_factory.mktemp("slea") / "tiny")


@pytest.fixture(scope="module")
def whole(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of SLEA-RL."""
    folder = tmp_path_factory.mktemp("slea-run") / "whole"
    train(chat_model, folder)
    return folder


def records(folder: Path, kind: str) -> list[dict[str, float]]:
    return [{k: v for k, v in r.items() if k != "seconds"} for r in Curves(folder / "curves.jsonl").of_kind(kind)]


def lessons(folder: Path) -> tuple[list[str], int, int, list[object]]:
    """Everything the library holds but the number of its version."""
    with ExperienceLibrary.open(folder / "library", EXPERIENCE, named_vectors, read_only=True) as library:
        ids = [entry.id for entry in library.entries()]
        return ids, library.epoch, library.clusters, [library.usage(name) for name in ids]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_a_run_ends_with_its_budget_and_logs_its_components(whole: Path) -> None:
    result = read_json(whole / "result.json")
    log = records(whole, "train")
    assert len(log) == result["batches"]
    spent = [record["component.environment_steps"] for record in log]
    assert spent[-2] < TRAINING.environment_steps <= spent[-1] == result["environment_steps"]
    wanted = ("reward", "kl", "component.success", "groups.dead_groups", "component.policy_entropy")
    assert all(name in record for record in log for name in wanted)
    assert log[0]["kl"] == pytest.approx(0, abs=1e-6) and max(record["kl"] for record in log) > 0
    curve = learning_curve(whole)
    assert curve[0][0] == 0 and curve[-1][0] == result["environment_steps"]
    assert [steps for steps, _ in curve] == sorted({steps for steps, _ in curve})


def test_the_library_evolves_with_every_batch_and_is_shown_after_the_warm_up(whole: Path) -> None:
    log = records(whole, "train")
    ids, epoch, clusters, _ = lessons(whole)
    assert epoch == len(log) and len(ids) == log[-1]["component.lessons"] and clusters == log[-1]["component.clusters"]
    assert log[0]["component.shown"] == 0  # an empty library
    assert max(record["component.shown"] for record in log) > 0
    with ExperienceLibrary.open(whole / "library", EXPERIENCE, named_vectors, read_only=True) as library:
        assert {extractor_of(entry.sources).partition(".")[0] for entry in library.entries()} == {"rules"}


def test_killed_and_resumed_equals_uninterrupted(chat_model: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL in the batch after a checkpoint, when the library is ahead of the policy: weights, lessons, environment
    steps and curves of an uninterrupted run."""
    broken = tmp_path / "broken"
    script = (
        "import os, signal, sys; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
        "import slea_helpers as h\n"
        "kill = lambda r: r['kind'] == 'train' and r['step'] == 3 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "h.train(Path(sys.argv[1]), Path(sys.argv[2]), on_step=kill)\n"
    )
    command = [sys.executable, "-c", script, str(chat_model), str(broken), str(Path(__file__).parent)]
    root = str(Path(__file__).parents[2])
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True, timeout=500)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert lessons(broken)[1] == 3  # the third batch will be played again
    train(chat_model, broken)
    assert_same_run(broken, whole)


def test_clusters_alone_are_put_back_too(chat_model: Path, tmp_path: Path) -> None:
    """Credit without retrieval, interrupted before its first checkpoint and after it."""
    credit, training = replace(SLEA, retrieval=False), replace(TRAINING, environment_steps=100)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(chat_model, whole, credit, training)
    for step in (1, 3):

        def stop(record: dict[str, object], at: int = step) -> None:
            if (record["kind"], record["step"]) == ("train", at):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(chat_model, broken, credit, training, on_step=stop)
    train(chat_model, broken, credit, training)
    assert_same_run(broken, whole)
    assert lessons(whole)[0] == [] and lessons(whole)[2] > 0


def assert_same_run(one: Path, other: Path) -> None:
    for name, value in weights(one).items():
        torch.testing.assert_close(value, weights(other)[name], atol=1e-6, rtol=0)
    assert lessons(one) == lessons(other)
    for kind in ("train", "validation"):
        assert records(one, kind) == records(other, kind)
    steps = [read_json(folder / "result.json")["environment_steps"] for folder in (one, other)]
    assert steps[0] == steps[1]


def test_killed_before_the_adapter_was_saved(chat_model: Path, whole: Path, tmp_path: Path) -> None:
    """All batches done: the last checkpoint's policy is saved, and nothing is played again."""
    broken = tmp_path / "broken"
    shutil.copytree(whole, broken)
    shutil.rmtree(broken / "adapter")
    (broken / "result.json").unlink()
    seen: list[object] = []
    train(chat_model, broken, on_step=seen.append)
    assert not seen
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(broken).items())
    assert lessons(broken) == lessons(whole)
    with pytest.raises(InputError, match="begun with another training"):
        train(chat_model, broken, training=replace(TRAINING, gamma=0.5))


def test_grpo_learns_a_known_optimum(chat_model: Path, tmp_path: Path) -> None:
    """Always up: the return of the sampling policy rises. No library, no lessons."""
    training = replace(TRAINING, environment_steps=500, beta=0.0, evaluate_every=100, save_every=100)
    train(chat_model, tmp_path, GRPO, training)
    rewards = [record["reward"] for record in records(tmp_path, "train")]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1
    assert not (tmp_path / "library").exists()


def test_the_model_itself_extracts(chat_model: Path, tmp_path: Path) -> None:
    training = replace(TRAINING, environment_steps=60)
    train(chat_model, tmp_path, replace(SLEA, extraction="both"), training)
    with ExperienceLibrary.open(tmp_path / "library", EXPERIENCE, named_vectors, read_only=True) as library:
        found = {extractor_of(entry.sources).partition(".")[0] for entry in library.entries()}
    assert found == {"model", "rules"}
    assert records(tmp_path, "train")[-1]["component.lessons_by_model"] > 0


def test_free_generation_trains_and_pays_for_invalid_actions(chat_model: Path, tmp_path: Path) -> None:
    training = replace(TRAINING, acting="generate", environment_steps=48, max_new_tokens=4, temperature=1.0)
    train(chat_model, tmp_path, GRPO, training)
    log = records(tmp_path, "train")
    assert log[0]["component.invalid"] > 0.5  # an untrained model hardly writes "up"
    assert log[0]["reward"] < -0.1


def test_a_loss_that_is_not_finite_aborts_with_the_batch(chat_model: Path, tmp_path: Path) -> None:
    stock = AgentGRPOTrainer.parts_of

    def poisoned(self: AgentGRPOTrainer, batch: TurnBatch) -> list[dict[str, Any]]:
        parts = stock(self, batch)
        parts[0]["advantages"] = parts[0]["advantages"] * float("nan")
        return parts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AgentGRPOTrainer, "parts_of", poisoned)
        with pytest.raises(InputError, match=r"loss nan at step 0.*aborted-step-0\.pt"):
            train(chat_model, tmp_path, GRPO)
    batch = torch.load(tmp_path / "aborted-step-0.pt", weights_only=False)
    assert {"choices", "completion_ids", "advantages"} <= batch[0].keys()
    assert not (tmp_path / "adapter").exists()


def test_games_must_fill_batches(chat_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="games_per_batch = 3"):
        train(chat_model, tmp_path, GRPO, replace(TRAINING, games_per_batch=3))
