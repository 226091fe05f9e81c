"""Our settings in TRL's words: how rewrites are sampled by vLLM, and where a model is trained."""

import importlib.machinery
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Workshop
from tiny_run import recipe_of

from recsys.errors import InputError
from verbalize.optimize.settings import PreferenceConfig, TrainConfig
from verbalize.optimize.trl_settings import dpo_config, grpo_config, micro_batches
from verbalize.stages import stages_of

SERVER = TrainConfig(vllm="server", vllm_server="http://localhost:8000")
REWRITE = ("policy.kind=rewrite", "policy.device=cuda", "warm_start=null")


@pytest.fixture
def with_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the package is installed: only whether it is there is looked at."""
    known = importlib.util.find_spec
    spec = importlib.machinery.ModuleSpec("vllm", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: spec if name == "vllm" else known(name, *rest))


@pytest.mark.usefixtures("with_vllm")
def test_vllm_in_trls_words_samples_and_changes_nothing_else(tmp_path: Path) -> None:
    plain = grpo_config(TrainConfig(), tmp_path, 8)
    assert not plain.use_vllm
    colocated = grpo_config(TrainConfig(vllm="colocate"), tmp_path, 8)
    assert colocated.use_vllm and colocated.vllm_mode == "colocate" and colocated.vllm_server_base_url is None
    served = grpo_config(SERVER, tmp_path, 8)
    assert served.use_vllm and served.vllm_mode == "server"
    assert served.vllm_server_base_url == "http://localhost:8000"
    for args in (colocated, served):
        differing = {name for name, value in vars(plain).items() if getattr(args, name) != value}
        assert differing <= {"use_vllm", "vllm_mode", "vllm_server_base_url", "distributed_state"}, differing


def test_without_the_package_the_extra_is_named(tmp_path: Path) -> None:
    if importlib.util.find_spec("vllm"):
        pytest.skip("vllm is installed")
    with pytest.raises(InputError, match=r"train\.vllm = server.*not installed.*\[gpu\]"):
        grpo_config(SERVER, tmp_path, 8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vllm": "sidecar"}, r"train\.vllm = 'sidecar'.*colocate, server"),
        ({"vllm": "server"}, r"train\.vllm = server with train\.vllm_server = None.*HOST:PORT"),
        ({"vllm": "colocate", "vllm_server": "http://a:1"}, "an address goes with"),
        ({"vllm_server": "http://a:1"}, r"set train\.vllm=server"),
        ({"vllm": "server", "vllm_server": "localhost:8000"}, "its scheme and port"),
    ],
)
def test_a_half_said_wish_is_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(**values)  # type: ignore[arg-type]


def test_what_samples_no_text_has_no_use_for_it(workshop: Workshop) -> None:
    with pytest.raises(InputError, match=r"train\.vllm = colocate with policy\.kind actions"):
        recipe_of(workshop.values, "train.vllm=colocate")
    with pytest.raises(InputError, match=r"train\.vllm = colocate with policy\.device null, the CPU.*device: cuda"):
        recipe_of(workshop.values, *REWRITE, "policy.device=null", "train.vllm=colocate")
    recipe_of(workshop.values, *REWRITE, "train.vllm=colocate")
    with pytest.raises(InputError, match=r"train\.vllm = colocate with dpo"):
        PreferenceConfig().check(TrainConfig(vllm="colocate"))


def test_the_sampler_is_part_of_a_trainings_key_and_the_servers_place_is_not(workshop: Workshop) -> None:
    def configured(*overrides: str) -> dict[str, Any]:
        stages = stages_of(recipe_of(workshop.values, *REWRITE, *overrides), "test")
        return next(stage.config for stage in stages if stage.name == "train")["train"]

    assert not {"vllm", "vllm_server"} & configured().keys()  # a key from before there was a choice still holds
    served = [configured("train.vllm=server", f"train.vllm_server=http://host:{port}") for port in (1, 2)]
    assert served[0] == served[1] == configured() | {"vllm": "server"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_model_is_trained_where_it_was_loaded(tmp_path: Path, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for args in (grpo_config(TrainConfig(), tmp_path, 8, device), dpo_config(TrainConfig(), 0.1, tmp_path, device)):
        assert args.use_cpu == (device == "cpu") and args.device.type == device


def test_processes_split_a_step_evenly_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(prompts_per_step=6, prompts_per_forward=2)
    assert micro_batches(config) == 3
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert micro_batches(config) == 1
    with pytest.raises(InputError, match=r"= 4 with 3 processes.*multiple of 3"):
        micro_batches(replace(config, prompts_per_step=8))
