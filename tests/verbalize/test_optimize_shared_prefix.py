"""Shared prefixes against stock TRL: the same log-probabilities, losses and gradients; stock again when they differ."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from optimize_helpers import launched, make_inputs, tiny_policy
from trl import GRPOTrainer

from recsys.models.branching import sample_branches
from recsys.models.chat import install_chat_template
from recsys.models.loading import LanguageModel, load_language_model
from recsys.models.settings import LoraSettings
from verbalize.optimize import shared_prefix
from verbalize.optimize.rewrite_trainer import RewriteGRPOTrainer
from verbalize.optimize.settings import TrainConfig
from verbalize.optimize.shared_prefix import process_of
from verbalize.optimize.training import trainable_policy
from verbalize.optimize.trl_settings import grpo_config
from verbalize.verbalizers.rewrite import RewriteConfig, rewrite_messages

CONFIG = TrainConfig(steps=2, prompts_per_step=2, prompts_per_forward=2, group_size=3, temperature=0.7)


def make(lm: LanguageModel, folder: Path, config: TrainConfig = CONFIG, **changes: Any) -> RewriteGRPOTrainer:
    install_chat_template(lm.tokenizer)
    model = trainable_policy(lm, LoraSettings(rank=4, mlp=True), 0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # a fresh adapter changes nothing: give it something to say
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(3))
    chats = rewrite_messages(make_inputs(4), RewriteConfig(instruction="Summarise."))
    args = grpo_config(config, folder, 8, model.device)
    for name, value in changes.items():
        setattr(args, name, value)
    return RewriteGRPOTrainer(
        model=model,
        reward_funcs=lambda completion_ids, **_: [float(sum(ids) % 7) for ids in completion_ids],
        args=args,
        train_dataset=Dataset.from_list([{"prompt": chat, "example_id": "e"} for chat in chats]),
        processing_class=lm.tokenizer,
        prompts_per_forward=config.prompts_per_forward,
    )


@pytest.fixture(params=["cpu", "cuda"])
def trainer(tiny_model_dir: Path, tmp_path: Path, request: pytest.FixtureRequest) -> RewriteGRPOTrainer:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    made = make(tiny_policy(tiny_model_dir, request.param), tmp_path)
    assert made.accelerator.device.type == request.param
    return made


def rollouts(trainer: RewriteGRPOTrainer) -> dict[str, torch.Tensor]:
    """One generation of two prompts, three rollouts each, as the loss receives it."""
    trainer.model.train()
    torch.manual_seed(5)
    rows = list(trainer.train_dataset)[:2]
    batch = trainer._generate_and_score_completions([row for row in rows for _ in range(3)])
    trainer.current_gradient_accumulation_steps = 1
    return batch


def gradients(trainer: RewriteGRPOTrainer, batch: dict[str, torch.Tensor], shared: bool) -> tuple[float, torch.Tensor]:
    """The loss of a batch and its gradient, all weights in one vector."""
    trainer.shares_prefix = shared
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    parts = [weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None]
    return float(loss.detach()), torch.cat(parts)


def test_loss_and_gradients_are_those_of_stock(trainer: RewriteGRPOTrainer) -> None:
    batch = rollouts(trainer)
    assert trainer.shares_prefix and not trainer._unchecked - {"loss"}
    assert float(batch["advantages"].abs().max()) > 0
    stock_loss, stock = gradients(trainer, batch, shared=False)
    loss, ours = gradients(trainer, batch, shared=True)
    assert loss == pytest.approx(stock_loss, abs=1e-5)
    assert float(stock.norm()) > 1e-3
    assert float((ours - stock).norm() / stock.norm()) < 1e-4
    assert trainer.shares_prefix and not trainer._unchecked


def test_log_probabilities_and_entropies_are_those_of_stock(trainer: RewriteGRPOTrainer) -> None:
    batch = rollouts(trainer)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    keep = batch["completion_ids"].shape[1]
    with torch.no_grad():
        ours = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, keep, compute_entropy=True)
        stock = GRPOTrainer._get_per_token_logps_and_entropies(
            trainer, trainer.model, ids, mask, keep, compute_entropy=True
        )
    seen = batch["completion_mask"].bool()
    for left, right in zip(ours[:2], stock[:2], strict=True):
        assert torch.allclose(left[seen], right[seen], atol=1e-4)


def test_dead_groups_cost_no_backward_and_change_no_gradient(trainer: RewriteGRPOTrainer) -> None:
    batch = rollouts(trainer)
    batch["advantages"][:3] = 0.0
    _, stock = gradients(trainer, batch, shared=False)
    _, ours = gradients(trainer, batch, shared=True)
    assert float((ours - stock).norm() / stock.norm()) < 1e-4
    batch["advantages"][:] = 0.0
    loss, nothing = gradients(trainer, batch, shared=True)
    assert loss == 0.0 and not nothing.any()


def test_a_path_that_differs_from_stock_is_left_loudly(
    trainer: RewriteGRPOTrainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    honest = shared_prefix.packed_tokens

    def off(*args: Any, **kwargs: Any) -> Any:
        return [[replace(row, logprobs=row.logprobs + 0.01) for row in rows] for rows in honest(*args, **kwargs)]

    monkeypatch.setattr(shared_prefix, "packed_tokens", off)
    batch = rollouts(trainer)
    with caplog.at_level(logging.WARNING):
        trainer.compute_loss(trainer.model, batch)
    assert not trainer.shares_prefix and "loss differ from stock by 0.01 nats" in caplog.text


def test_what_only_stock_has_is_left_to_stock(
    tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        made = make(tiny_policy(tiny_model_dir), tmp_path, repetition_penalty=1.2)
    assert not made.shares_prefix and "a repetition penalty" in caplog.text
    assert len(rollouts(made)["completion_ids"]) == 6


class Elsewhere:
    """What a trainer sees of vLLM: told to take over the weights, asked for texts, token by token with its own
    log-probabilities. Here the policy's own sampler stands behind it."""

    def __init__(self, trainer: RewriteGRPOTrainer) -> None:
        self.trainer, self.synced = trainer, 0

    def sync_weights(self) -> None:
        self.synced += 1

    def generate(self, prompts: list[list[int]], num_generations: int, **unused: Any) -> tuple[Any, ...]:
        trainer = self.trainer
        drawn = [
            sample_branches(trainer.model, [prompt], [1], 8, trainer.eos_token_ids, process_of(trainer.args))[0][
                0
            ].tokens
            for prompt in prompts
        ]
        logprobs = [
            [[value] for value in trainer._stock(trainer.model, prompt, tokens, trainer.temperature).tolist()]
            for prompt, tokens in zip(prompts, drawn, strict=True)
        ]
        return None, drawn, logprobs, None


def test_where_vllm_samples_the_loss_is_shared_all_the_same(trainer: RewriteGRPOTrainer) -> None:
    trainer.vllm_generation, trainer.use_vllm, trainer.vllm_mode = Elsewhere(trainer), True, "server"
    trainer._last_loaded_step = -1
    batch = rollouts(trainer)
    assert trainer.vllm_generation.synced == 1
    # Its probabilities are the trainer's, or the importance weights, which stock takes from them, would be off 1.
    assert torch.allclose(batch["importance_sampling_ratio"], torch.ones(1, device=trainer.model.device), atol=1e-3)
    stock_loss, stock = gradients(trainer, batch, shared=False)
    loss, ours = gradients(trainer, batch, shared=True)
    assert loss == pytest.approx(stock_loss, abs=1e-5)
    assert float(stock.norm()) > 1e-3 and float((ours - stock).norm() / stock.norm()) < 1e-4
    assert "loss" not in trainer._unchecked and trainer.shares_prefix


@pytest.mark.real_model
def test_gradients_on_the_real_model(smollm2_dir: Path, tmp_path: Path) -> None:
    made = make(load_language_model(str(smollm2_dir)), tmp_path)
    batch = rollouts(made)
    _, stock = gradients(made, batch, shared=False)
    _, ours = gradients(made, batch, shared=True)
    assert made.shares_prefix
    assert float((ours - stock).norm() / stock.norm()) < 1e-3


PARALLEL = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from dataclasses import replace
from test_optimize_shared_prefix import CONFIG, make
from optimize_helpers import tiny_policy
config = replace(CONFIG, prompts_per_forward=1)
trainer = make(tiny_policy(Path(sys.argv[1])), Path(sys.argv[2]) / "out", config)
assert trainer.accelerator.num_processes == 2
trainer.train()
weights = {name: value.detach().clone() for name, value in trainer.model.named_parameters() if value.requires_grad}
assert trainer.shares_prefix
torch.save(weights, Path(sys.argv[2]) / f"weights-{trainer.accelerator.process_index}.pt")
"""


def test_two_processes_stay_one_policy(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Each process rolls out other prompts; without exchanged gradients their weights would part."""
    script = tmp_path / "train.py"
    script.write_text(PARALLEL)
    done = launched(str(script), str(tiny_model_dir), str(tmp_path), str(Path(__file__).parent))
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"weights-{rank}.pt") for rank in (0, 1))
    start = {
        name: value
        for name, value in make(tiny_policy(tiny_model_dir), tmp_path).model.named_parameters()
        if value.requires_grad
    }
    assert first.keys() == second.keys() == start.keys()
    assert any(not torch.equal(first[name], start[name].detach()) for name in first)
    for name in first:
        assert torch.equal(first[name], second[name]), name
