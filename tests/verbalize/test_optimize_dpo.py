"""DPO on actions: which pairs, the loss against TRL's, a preference that is learned, resumption."""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optimize_helpers import CARD, make_inputs, pays_for_even_events, tiny_policy
from torch.nn import functional as F
from trl import DPOTrainer

from recsys.errors import InputError
from recsys.models.settings import LoraSettings
from verbalize.optimize.curves import Curves
from verbalize.optimize.dpo_actions import PromptPairs, pair_gaps, pool_pairs, train_action_preferences
from verbalize.optimize.preferences import dpo_loss, log_ratio_gap, pairs
from verbalize.optimize.settings import LimitsConfig, PreferenceConfig, TrainConfig
from verbalize.optimize.training import Job, TrainResult, Validation, trainable_policy
from verbalize.verbalizers.action_pool import CANDIDATES, candidate_actions
from verbalize.verbalizers.actions import ActionConfig, execute

ACTIONS = ActionConfig(instruction="Choose.", show_age_in_prompt=False)
CONFIG = TrainConfig(steps=24, prompts_per_step=3, learning_rate=1e-2, eval_every=6, save_every=4)
DPO = PreferenceConfig(beta=0.5, min_gap=0.05)
FREE = LimitsConfig(max_kl=None)


@given(st.lists(st.floats(-50, 50), max_size=12), st.floats(0.01, 10), st.integers(1, 6))
def test_pairs_are_disjoint_ordered_and_wide_enough(rewards: list[float], min_gap: float, limit: int) -> None:
    found = pairs(rewards, min_gap, limit)
    used = [index for winner, loser, _ in found for index in (winner, loser)]
    assert len(used) == len(set(used)) and len(found) <= limit
    assert all(gap == rewards[winner] - rewards[loser] >= min_gap for winner, loser, gap in found)
    assert [gap for *_, gap in found] == sorted((gap for *_, gap in found), reverse=True)
    widest = max(rewards, default=0) - min(rewards, default=0)
    assert bool(found) == (widest >= min_gap)
    if found:
        assert found[0][2] == widest


def test_equal_rewards_prefer_nothing_and_infinite_ones_are_refused() -> None:
    assert pairs([2.0, 2.0, 2.0], 0.01, 4) == []
    with pytest.raises(InputError, match="finite"):
        pairs([1.0, math.nan], 0.1, 1)


def test_the_loss_is_ln_2_at_the_reference_and_falls_with_the_gap() -> None:
    values = torch.tensor([-3.0, -7.0])
    assert dpo_loss(log_ratio_gap(values, values - 1, values, values - 1), 0.3).tolist() == pytest.approx(
        [math.log(2)] * 2
    )
    gap = torch.tensor([-200.0, 0.0, 200.0], requires_grad=True)
    losses = dpo_loss(gap, 0.5)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([100.0, math.log(2), 0.0], abs=1e-5)
    assert gap.grad is not None and gap.grad.tolist() == pytest.approx([-0.5, -0.25, 0.0], abs=1e-5)


@pytest.mark.parametrize("start", [[1.0, -2.0, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0]])
def test_one_slot_reaches_the_gap_that_beta_and_the_share_of_wins_imply(start: list[float]) -> None:
    """Action 1 beats 0 in three of four pairs: DPO's optimum is a log-ratio gap of log(3) / beta, for any reference."""
    beta, reference = 0.7, torch.log_softmax(torch.tensor([start]), -1)
    example = PromptPairs([0], [[1], [1], [1], [0]], [[0], [0], [0], [1]])
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        dpo_loss(pair_gaps(torch.log_softmax(logits, -1), reference, example), beta).mean().backward()
        optimizer.step()
    gap = pair_gaps(torch.log_softmax(logits, -1), reference, example)[0]
    assert gap.item() == pytest.approx(math.log(3) / beta, abs=1e-3)
    ratios = (torch.log_softmax(logits, -1) - reference)[0]
    assert (ratios[2] - ratios[3]).item() == pytest.approx(0, abs=1e-5)  # what no pair speaks of is left as it was


def test_slots_on_which_both_agree_get_no_gradient() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    example = PromptPairs([0], [[2, 0, 3]], [[2, 1, 3]])
    dpo_loss(pair_gaps(torch.log_softmax(logits, -1), torch.zeros(3, 4), example), 0.1).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum(1).gt(0).tolist() == [False, True, False]


def trl_loss(logps: torch.Tensor, references: torch.Tensor, beta: float) -> torch.Tensor:
    """TRL's own `_compute_loss` on sequences whose log-probabilities (2 N, T) are given: winners, then losers."""
    length = logps.shape[1]
    nothing = torch.zeros(len(logps), length)
    outputs = SimpleNamespace(
        log_probs=logps, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool(), aux_loss=None
    )
    trainer: Any = DPOTrainer.__new__(DPOTrainer)
    trainer.model = torch.nn.Identity()
    trainer.accelerator = SimpleNamespace(
        device="cpu", gather=lambda value: value, gather_for_metrics=lambda value: value
    )
    trainer.args = SimpleNamespace(loss_type=["sigmoid"])
    trainer._metrics = {mode: defaultdict(list) for mode in ("train", "eval")}
    for name, value in {
        "aux_loss_enabled": False,
        "ld_alpha": None,
        "precompute_ref_logps": True,
        "f_divergence_type": "reverse_kl",
        "loss_types": ["sigmoid"],
        "loss_weights": [1.0],
        "beta": beta,
        "use_weighting": False,
        "label_smoothing": 0.0,
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }.items():
        setattr(trainer, name, value)
    chosen, rejected = references.sum(1).chunk(2)
    mask = torch.ones(len(logps), length + 1, dtype=torch.long)
    inputs = {
        "input_ids": mask,
        "attention_mask": mask,
        "completion_mask": torch.cat([torch.zeros(len(logps), 1, dtype=torch.long), mask[:, 1:]], 1),
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }
    loss: torch.Tensor = trainer._compute_loss(lambda **_: outputs, inputs, False)
    return loss


def test_loss_and_gradient_equal_trl_on_the_same_sequences() -> None:
    generator = torch.Generator().manual_seed(1)
    slots, reference = (F.log_softmax(torch.randn(5, 4, generator=generator), -1) for _ in range(2))
    slots.requires_grad_()
    example = PromptPairs([0], [[0, 1, 2, 3, 0], [1, 1, 1, 1, 1]], [[3, 3, 2, 2, 0], [0, 1, 0, 1, 0]])
    ours = dpo_loss(pair_gaps(slots, reference, example), 0.3).mean()
    (mine,) = torch.autograd.grad(ours, slots)
    sequences = torch.tensor([*example.winners, *example.losers])  # (2 N, H)
    gathered = [rows[torch.arange(5), sequences] for rows in (slots, reference)]
    theirs = trl_loss(gathered[0], gathered[1], 0.3)
    (other,) = torch.autograd.grad(theirs, slots)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(mine, other)


def pool_of(inputs: pl.DataFrame) -> pl.DataFrame:
    """The twelve candidates, each rewarded for keeping exactly the events at even places, plain."""
    names = list(CANDIDATES)
    texts = {name: execute(inputs, rows, ACTIONS) for name, rows in candidate_actions(inputs, ACTIONS, 0).items()}
    return pl.DataFrame(
        [
            {"example_id": key, "candidate": name, "reward": pays_for_even_events([key], [texts[name][row]])[0].reward}
            for row, key in enumerate(inputs["example_id"])
            for name in names
        ]
    )


def train(
    model_dir: Path, folder: Path, config: TrainConfig = CONFIG, on_step: Callable | None = None, **changed: Any
) -> TrainResult:
    inputs = changed.pop("inputs", make_inputs(6))
    lm = changed.pop("lm", None) or tiny_policy(model_dir)
    pool, dpo = changed.pop("pool", pool_of(inputs)), changed.pop("dpo", DPO)
    lora, validation = LoraSettings(rank=8, mlp=True), Validation(make_inputs(4), pays_for_even_events)
    limits = changed.pop("limits", FREE)
    assert not changed
    job = Job(lm, inputs, config, folder, CARD, lora, limits, validation, on_step)
    return train_action_preferences(job, pool, 0, dpo, ACTIONS)


def test_an_evident_preference_is_learned_from_the_reference_on(tiny_model_dir: Path, tmp_path: Path) -> None:
    result = train(tiny_model_dir, tmp_path)
    steps = Curves(tmp_path / "curves.jsonl").of_kind("train")
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-4) and steps[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert steps[-1]["loss"] < 0.35 and steps[-1]["pairs.accuracy"] == 1 and steps[-1]["kl"] > 0
    assert result.best_reward is not None and result.start_reward is not None
    assert result.best_reward > result.start_reward + 0.1
    judged = Curves(tmp_path / "curves.jsonl").of_kind("validation")
    assert [record["step"] for record in judged] == [0, 6, 12, 18, 24]
    assert result.best_reward == max(record["reward"] for record in judged)
    assert (tmp_path / "adapter" / "card.json").exists()


def test_the_reference_is_the_policy_it_starts_with_and_batching_changes_nothing(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    logs = []
    for width in (1, 3):
        lm = tiny_policy(tiny_model_dir)
        model = trainable_policy(lm, LoraSettings(rank=8, mlp=True), 0)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
        config = TrainConfig(steps=3, prompts_per_step=3, learning_rate=1e-2, prompts_per_forward=width)
        train(tiny_model_dir, tmp_path / str(width), config, lm=replace(lm, model=model))
        logs.append(Curves(tmp_path / str(width) / "curves.jsonl").of_kind("train"))
    assert logs[0][0]["loss"] == pytest.approx(math.log(2), abs=1e-4) and logs[0][2]["loss"] < 0.69
    for one, other in zip(*logs, strict=True):
        assert [one[name] for name in ("loss", "kl", "pairs.gap")] == pytest.approx(
            [other[name] for name in ("loss", "kl", "pairs.gap")], abs=1e-3
        )


def test_an_interrupted_run_ends_in_the_same_weights_and_curves(tiny_model_dir: Path, tmp_path: Path) -> None:
    config = TrainConfig(steps=7, prompts_per_step=2, learning_rate=1e-2, eval_every=3, save_every=2, warmup_steps=2)

    def stop(record: dict[str, Any]) -> None:
        if (record["kind"], record["step"]) == ("train", 5):
            raise KeyboardInterrupt

    ends = []
    for name in ("whole", "broken"):
        if name == "broken":
            with pytest.raises(KeyboardInterrupt):
                train(tiny_model_dir, tmp_path / name, config, stop)
        result = train(tiny_model_dir, tmp_path / name, config)
        records = [
            {key: value for key, value in record.items() if key != "seconds"}
            for record in Curves(tmp_path / name / "curves.jsonl").records
        ]
        weights = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["adapter"]
        ends.append((records, result, {key: value.numpy().tobytes() for key, value in weights.items()}))
    assert ends[0] == ends[1]
    assert train(tiny_model_dir, tmp_path / "whole", config) == ends[0][1]


def test_too_far_from_the_reference_ends_the_run_with_the_reason(tiny_model_dir: Path, tmp_path: Path) -> None:
    result = train(tiny_model_dir, tmp_path, limits=LimitsConfig(max_kl=0.01))
    assert result.steps < CONFIG.steps and result.stop_reason is not None and "max_kl = 0.01" in result.stop_reason


def test_what_cannot_be_learned_from_is_refused_by_name(tiny_model_dir: Path, tmp_path: Path) -> None:
    inputs = make_inputs(3)
    flat = pool_of(inputs).with_columns(reward=pl.lit(1.0))
    with pytest.raises(InputError, match=r"dpo\.min_gap"):
        train(tiny_model_dir, tmp_path / "flat", inputs=inputs, pool=flat)
    with pytest.raises(InputError, match="another order"):
        train(tiny_model_dir, tmp_path / "order", inputs=inputs, pool=pool_of(inputs[::-1]))
    with pytest.raises(InputError, match=r"train\.beta = 0\.1 with dpo.*dpo\.beta"):
        train(tiny_model_dir, tmp_path / "beta", TrainConfig(beta=0.1))
    with pytest.raises(InputError, match=r"train\.iterations = 2"):
        DPO.check(TrainConfig(iterations=2))
    for name in ("beta", "min_gap", "pairs_per_prompt"):
        with pytest.raises(InputError, match=rf"dpo\.{name} = 0"):
            PreferenceConfig(**{name: 0})
    train(tiny_model_dir, tmp_path / "begun", TrainConfig(steps=1, prompts_per_step=2), inputs=inputs)
    with pytest.raises(InputError, match="another dpo"):
        train(
            tiny_model_dir,
            tmp_path / "begun",
            TrainConfig(steps=1, prompts_per_step=2),
            inputs=inputs,
            dpo=PreferenceConfig(beta=0.2, min_gap=0.05),
        )


def test_actions_of_other_histories_are_refused() -> None:
    with pytest.raises(InputError, match="2 slots"):
        pair_gaps(torch.zeros(2, 4), torch.zeros(2, 4), PromptPairs([0], [[1]], [[0]]))
    pool = pl.DataFrame({"example_id": ["x", "x"], "candidate": ["p", "q"], "reward": [0.0, 1.0]})
    with pytest.raises(InputError, match="1 examples"):
        pool_pairs(pool, {"p": [[0]], "q": [[2]]}, [[1], [2]], DPO)
    found = pool_pairs(pool, {"p": [[0]], "q": [[2]]}, [[7]], DPO)
    np.testing.assert_equal((found[0].winners, found[0].losers), ([[2]], [[0]]))
