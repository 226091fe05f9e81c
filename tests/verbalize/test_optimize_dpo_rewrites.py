"""DPO on rewrites: sampled pairs, TRL's loss against ours on them, a preference that is learned, resumption."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from optimize_helpers import CARD, make_inputs, tiny_policy
from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from recsys.errors import InputError
from recsys.models.chat import install_chat_template
from recsys.models.settings import LoraSettings
from verbalize.optimize.curves import Curves
from verbalize.optimize.dpo_rewrites import (
    RewriteDPOTrainer,
    Sampler,
    sampled_pairs,
    train_rewrite_preferences,
)
from verbalize.optimize.preferences import dpo_loss, log_ratio_gap
from verbalize.optimize.rewards import Scored
from verbalize.optimize.rewrite_trainer import rewrite_rows
from verbalize.optimize.settings import LimitsConfig, PreferenceConfig, TrainConfig
from verbalize.optimize.training import Job, TrainResult, Validation, trainable_policy
from verbalize.optimize.trl_settings import dpo_config
from verbalize.verbalizers.rewrite import RewriteConfig, prompt_ids

REWRITE = RewriteConfig(instruction="Summarise.", prompt_tokens=300, max_new_tokens=6)
CONFIG = TrainConfig(steps=5, prompts_per_step=2, group_size=4, learning_rate=1e-2, save_every=2, eval_every=3)
DPO = PreferenceConfig(beta=0.2, min_gap=0.01, pairs_per_prompt=2)
FREE = LimitsConfig(max_kl=None)
SIDES = ("chosen", "rejected")


def pays_for_length(example_ids: Sequence[str], texts: Sequence[str]) -> list[Scored]:
    return [Scored(len(text) / 10, {"hit": 0.0}) for text in texts]


def policy(model_dir: Path) -> Any:
    lm = tiny_policy(model_dir)
    install_chat_template(lm.tokenizer)
    return lm


def train(
    model_dir: Path,
    folder: Path,
    config: TrainConfig = CONFIG,
    score: Callable = pays_for_length,
    dpo: PreferenceConfig = DPO,
    on_step: Callable | None = None,
    limits: LimitsConfig = FREE,
) -> TrainResult:
    return train_rewrite_preferences(job(model_dir, folder, config, on_step, limits), score, dpo, REWRITE)


def job(
    model_dir: Path,
    folder: Path,
    config: TrainConfig = CONFIG,
    on_step: Callable | None = None,
    limits: LimitsConfig = FREE,
) -> Job:
    validation = Validation(make_inputs(2), pays_for_length)
    return Job(
        policy(model_dir), make_inputs(4), config, folder, CARD, LoraSettings(rank=4), limits, validation, on_step
    )


def comparable(folder: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.items() if key != "seconds"}
        for record in Curves(folder / "curves.jsonl").records
    ]


def test_pairs_are_sampled_once_and_their_preference_is_learned(tiny_model_dir: Path, tmp_path: Path) -> None:
    config = TrainConfig(steps=12, prompts_per_step=4, group_size=4, learning_rate=2e-2, save_every=12, eval_every=6)
    result = train(tiny_model_dir, tmp_path, config)
    steps = Curves(tmp_path / "curves.jsonl").of_kind("train")
    assert len(steps) == 12 and steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert steps[-1]["loss"] < 0.3 and steps[-1]["pairs.accuracy"] == 1 and steps[-1]["pairs.gap"] > 1
    assert result.steps == 12 and (tmp_path / "adapter" / "card.json").exists()
    rows = [json.loads(line) for line in (tmp_path / "rollouts" / "chunk-00000.jsonl").read_text().splitlines()]
    assert len(rows) == 16 and {row["example_id"] for row in rows} == {f"e{index}" for index in range(4)}
    assert all(row["reward"] == len(row["text"]) / 10 and 1 <= len(row["tokens"]) <= 6 for row in rows)


def test_an_interrupted_run_ends_alike_and_ranks_nothing_twice(tiny_model_dir: Path, tmp_path: Path) -> None:
    def stop(record: dict[str, Any]) -> None:
        if (record["kind"], record["step"]) == ("train", 3):
            raise KeyboardInterrupt

    asked: list[str] = []

    def counting(example_ids: Sequence[str], texts: Sequence[str]) -> list[Scored]:
        asked.extend(texts)
        return pays_for_length(example_ids, texts)

    whole = train(tiny_model_dir, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tiny_model_dir, tmp_path / "broken", score=counting, on_step=stop)
    once = len(asked)
    resumed = train(tiny_model_dir, tmp_path / "broken", score=counting)
    assert once == len(asked) == 16
    assert resumed == whole and comparable(tmp_path / "whole") == comparable(tmp_path / "broken")
    states = [(tmp_path / name / "policies" / "step-00005.safetensors").read_bytes() for name in ("whole", "broken")]
    assert states[0] == states[1]
    assert train(tiny_model_dir, tmp_path / "whole") == whole


def test_too_far_from_the_reference_ends_the_run_with_the_reason(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Where the unlimited run passes half its greatest distance; limits that judge rollouts do not apply."""
    config = replace(CONFIG, learning_rate=0.3)
    train(tiny_model_dir, tmp_path / "free", config)
    free = [record["kl"] for record in Curves(tmp_path / "free" / "curves.jsonl").of_kind("train")]
    assert free[0] == pytest.approx(0, abs=1e-5) and max(free) > 0.05
    bound = max(free) / 2
    limits = LimitsConfig(max_kl=bound, min_entropy=1e9, max_dead_groups=0.0, window=1)
    result = train(tiny_model_dir, tmp_path / "bound", config, limits=limits)
    assert result.steps == 1 + next(step for step, kl in enumerate(free) if kl > bound)
    assert result.stop_reason is not None and f"max_kl = {bound:g}" in result.stop_reason
    assert train(tiny_model_dir, tmp_path / "bound", config, limits=limits) == result


def test_the_log_says_how_far_the_policy_is_from_the_texts_it_learns_from(tiny_model_dir: Path, tmp_path: Path) -> None:
    """`kl` and `pairs.gap` of the second step against the first step's weights, one text at a time."""
    config = TrainConfig(steps=2, prompts_per_step=2, group_size=4, learning_rate=1e-2, save_every=2, eval_every=1)
    made = job(tiny_model_dir, tmp_path, config)
    train_rewrite_preferences(made, pays_for_length, DPO, REWRITE)
    rows = rewrite_rows(made, REWRITE)
    prompts = prompt_ids([row["prompt"] for row in rows], made.lm.tokenizer)
    sampler = Sampler(made.lm, pays_for_length, config, 6, tmp_path / "rollouts")
    second = sampled_pairs(sampler, [row["example_id"] for row in rows], prompts, config, DPO)[2:]
    model = trainable_policy(policy(tiny_model_dir), LoraSettings(rank=4), 0)
    sums = []
    for step in (1, 0):
        set_peft_model_state_dict(model, load_file(tmp_path / "policies" / f"step-{step:05d}.safetensors"))
        with torch.no_grad():
            sums.append([logprob(model, pair["prompt_ids"], pair[f"{side}_ids"]) for pair in second for side in SIDES])
    ratios = torch.stack(sums[0]) - torch.stack(sums[1])  # chosen, rejected, chosen, rejected
    tokens = sum(len(pair[f"{side}_ids"]) for pair in second for side in SIDES)
    logged = Curves(tmp_path / "curves.jsonl").of_kind("train")[1]
    assert abs(logged["kl"]) > 1e-4
    assert logged["kl"] == pytest.approx(-ratios.sum().item() / tokens, abs=1e-5)
    assert logged["pairs.gap"] == pytest.approx((ratios[0::2] - ratios[1::2]).mean().item(), abs=1e-4)


def logprob(model: torch.nn.Module, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """Of a whole completion, ()."""
    ids = torch.tensor([prompt + completion])
    rows = torch.log_softmax(model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float(), -1)
    return rows[torch.arange(len(completion)), torch.tensor(completion)].sum()


def test_trl_computes_our_loss(tiny_model_dir: Path, tmp_path: Path) -> None:
    """On sequences of unequal length; reference is the adapter it starts with, and the policy has left it."""
    lm = policy(tiny_model_dir)
    model = trainable_policy(lm, LoraSettings(rank=4), 0)
    generator = torch.Generator().manual_seed(0)

    def move() -> None:
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if ".default." in name:
                    weight.add_(0.3 * torch.randn(weight.shape, generator=generator))

    move()
    found = [
        {"prompt_ids": [5, 6, 7], "chosen_ids": [50, 51, 52], "rejected_ids": [60]},
        {"prompt_ids": [5, 6], "chosen_ids": [70], "rejected_ids": [80, 81]},
    ]
    config = TrainConfig(prompts_per_step=2, prompts_per_forward=2)
    trainer = RewriteDPOTrainer(
        model=model,
        args=dpo_config(config, 0.3, tmp_path),
        train_dataset=Dataset.from_list(found),
        processing_class=lm.tokenizer,
    )

    def both() -> list[torch.Tensor]:
        return [
            torch.stack([logprob(model, pair["prompt_ids"], pair[f"{side}_ids"]) for pair in found]) for side in SIDES
        ]

    with torch.no_grad():
        references = both()
        move()
        expected = dpo_loss(log_ratio_gap(*both(), *references), 0.3).mean()
        theirs = trainer._compute_loss(model, trainer.data_collator(found), False)
    assert abs(expected.item() - math.log(2)) > 0.01
    torch.testing.assert_close(theirs, expected, atol=1e-4, rtol=0)


def test_what_cannot_be_learned_from_is_refused_by_name(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dpo\.min_gap = 0\.01.*4 prompts"):
        train(tiny_model_dir, tmp_path / "flat", score=lambda ids, texts: [Scored(1.0, {})] * len(texts))
    with pytest.raises(InputError, match=r"train\.loss_type"):
        train(tiny_model_dir, tmp_path / "loss", TrainConfig(loss_type="grpo"))
