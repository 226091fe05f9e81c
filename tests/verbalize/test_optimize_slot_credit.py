"""Credit for single slots: the same gradient as the whole reward's, less spread, and what the trainer makes of it."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from optimize_helpers import CARD, make_inputs, pays_for_even_events, tiny_policy

from recsys.errors import InputError
from recsys.models.settings import LoraSettings
from verbalize.optimize.action_trainer import ActionGRPOTrainer
from verbalize.optimize.curriculum_settings import CurriculumConfig
from verbalize.optimize.curves import Curves
from verbalize.optimize.policy import ActionPolicyVerbalizer
from verbalize.optimize.rewards import Scored
from verbalize.optimize.settings import LOSSES, LimitsConfig, PreferenceConfig, TrainConfig
from verbalize.optimize.slot_credit import changed_rewards, slot_advantages
from verbalize.optimize.train_actions import train_actions
from verbalize.optimize.training import Job, trainable_policy
from verbalize.optimize.trl_settings import grpo_config
from verbalize.verbalizers.actions import ALPHABET, ActionConfig, action_prompts

ACTIONS = ActionConfig(instruction="Choose.", show_age_in_prompt=False)
LORA = LoraSettings(rank=8, alpha=16, mlp=True)
FREE = LimitsConfig(max_kl=None, min_entropy=None, max_dead_groups=None)
CONFIG = TrainConfig(
    steps=4, prompts_per_step=2, group_size=2, learning_rate=3e-3, save_every=2, eval_every=2, credit="slots"
)
SLOTS = 2
SEQUENCES = list(product(ALPHABET, repeat=SLOTS))


@given(st.lists(st.floats(-3, 3), min_size=16, max_size=16), st.lists(st.floats(-2, 2), min_size=8, max_size=8))
def test_the_expected_gradient_is_that_of_the_expected_reward(rewards: list[float], logits: list[float]) -> None:
    """Over all rollouts, whether or not the reward adds up over slots."""
    pays = dict(zip(SEQUENCES, rewards, strict=True))
    at = torch.tensor(logits, dtype=torch.float64).reshape(SLOTS, 4).requires_grad_()
    slots = at.log_softmax(-1)
    likely = torch.stack([slots[range(SLOTS), taken].sum().exp() for taken in SEQUENCES])
    whole = (likely * torch.tensor(rewards, dtype=torch.float64)).sum()
    (expected,) = torch.autograd.grad(whole, at, retain_graph=True)
    found = torch.zeros_like(at)
    for taken, chance in zip(SEQUENCES, likely.tolist(), strict=True):
        table = np.array([[pays[changed(taken, slot, action)] for action in ALPHABET] for slot in range(SLOTS)])
        advantages = torch.as_tensor(slot_advantages(table, slots.exp().detach().numpy()))
        (one,) = torch.autograd.grad((slots.exp() * advantages).sum(), at, retain_graph=True)
        found += chance * one
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def changed(taken: tuple[int, ...], slot: int, action: int) -> tuple[int, ...]:
    return (*taken[:slot], action, *taken[slot + 1 :])


def test_where_slots_add_up_the_others_make_no_noise() -> None:
    worth = np.array([[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, -30.0, 5.0]])  # the second slot matters far more
    even = np.full((SLOTS, 4), 0.25)
    for taken in SEQUENCES:  # whatever the second slot did
        table = worth + np.array([worth[1, taken[1]], worth[0, taken[0]]])[:, None]
        np.testing.assert_allclose(slot_advantages(table, even)[0], worth[0] - 0.75, atol=1e-12)


def test_every_slot_is_changed_to_every_action_and_rewarded_by_its_text() -> None:
    asked: list[tuple[str, str]] = []

    def score(ids: Any, texts: Any) -> list[Scored]:
        asked.extend(zip(ids, texts, strict=True))
        return [Scored(float(text.count("2")), {}) for text in texts]

    rewards_of = changed_rewards(lambda ids, actions: ["".join(map(str, taken)) for taken in actions], score)
    tables = rewards_of(["a", "b"], [[2, 0, 3], [1]])
    assert [table.tolist() for table in tables] == [[[0, 0, 1, 0], [1, 1, 2, 1], [1, 1, 2, 1]], [[0, 0, 1, 0]]]
    assert len(asked) == 16 and ("a", "213") in asked and {key for key, _ in asked} == {"a", "b"}
    broken = changed_rewards(lambda ids, actions: ["" for _ in actions], lambda ids, texts: [Scored(np.nan, {})] * 4)
    with pytest.raises(InputError, match="reward nan of example a"):
        broken(["a"], [[0]])


@pytest.mark.parametrize("scaled", ["none", "batch"])
def test_the_loss_is_given_an_advantage_per_slot(tiny_model_dir: Path, tmp_path: Path, scaled: str) -> None:
    lm = tiny_policy(tiny_model_dir)
    policy = ActionPolicyVerbalizer(replace(lm, model=trainable_policy(lm, LORA, 0)), ACTIONS)
    inputs = make_inputs(2)  # 4 and 5 events
    seen: list[dict[str, Any]] = []

    class Watched(ActionGRPOTrainer):
        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            seen.append(inputs)
            return super()._compute_loss(model, inputs)

    worth = np.array([3.0, 1.0, 1.0, 1.0, 1.0])  # of keeping an event

    def tables(ids: Any, actions: Any) -> list[np.ndarray]:
        return [worth[: len(taken), None] * np.array([0, 0, 1, 1]) for taken in actions]

    prompts = action_prompts(inputs, ACTIONS)
    rows = [{"prompt": prompt, "example_id": f"e{place}"} for place, prompt in enumerate(prompts)]
    trainer = Watched(
        model=policy.lm.model,
        reward_funcs=lambda completion_ids, **_: [0.0] * len(completion_ids),
        args=grpo_config(replace(CONFIG, scale_rewards=scaled, steps=1), tmp_path, 5),
        train_dataset=Dataset.from_list(rows),
        processing_class=lm.tokenizer,
        tokens=policy.tokens,
        changed=tables,
    )
    start = [logprobs.exp() for logprobs in policy.logprobs(inputs)]
    trainer.train()
    assert len(seen) == 2  # a group of two rollouts each
    scales: list[float] = []
    seconds: list[torch.Tensor] = []
    for batch in seen:
        for ids, mask, paid in zip(batch["completion_ids"], batch["completion_mask"], batch["advantages"], strict=True):
            chances = start[int(mask.sum()) // 4 - 4]  # by the number of events
            assert ids[mask.bool()].tolist() == list(policy.tokens.alphabet) * len(chances)
            kept = chances[:, 2:].sum(-1, keepdim=True)
            advantages = (torch.tensor([0.0, 0.0, 1.0, 1.0]) - kept) * torch.as_tensor(
                worth[: len(chances), None]
            ).float()
            scales += (paid[mask.bool()] / (chances * advantages).flatten()).tolist()
            seconds.append((chances * advantages.square()).sum(-1))
            assert not paid[~mask.bool()].any()
    expected = 1.0 if scaled == "none" else torch.cat(seconds).mean().rsqrt().item()  # one scale for the whole step
    assert scales == pytest.approx([expected] * len(scales), rel=2e-3)
    after = [logprobs.exp() for logprobs in policy.logprobs(inputs)]  # one update made keeping likelier
    assert all(new[:, 2:].sum(-1).mean() > old[:, 2:].sum(-1).mean() for new, old in zip(after, start, strict=True))


def test_it_learns_from_two_rollouts_of_a_prompt_and_under_a_curriculum(tiny_model_dir: Path, tmp_path: Path) -> None:
    """A curriculum weighs prompts, whose slots each have an advantage."""
    config = replace(CONFIG, steps=12, prompts_per_step=4, eval_every=12, save_every=12, curriculum=CurriculumConfig())
    job = Job(tiny_policy(tiny_model_dir), make_inputs(5), config, tmp_path, CARD, LORA, FREE)
    train_actions(job, pays_for_even_events, ACTIONS)
    train = Curves(tmp_path / "curves.jsonl").of_kind("train")
    reward = [record["reward"] for record in train]
    assert np.mean(reward[-3:]) > np.mean(reward[:3]) + 0.1
    assert all(record["slots.that_matter"] == 1 for record in train)


@pytest.mark.parametrize("loss", LOSSES[1:])
def test_all_losses_weigh_a_slot_alike(tiny_model_dir: Path, tmp_path: Path, loss: str) -> None:
    """Where all rollouts have as many slots, TRL's losses differ in nothing."""
    norms = []
    for loss_type in (LOSSES[0], loss):
        config = replace(CONFIG, steps=2, prompts_per_step=1, loss_type=loss_type, entropy_bonus=0.1)
        folder = tmp_path / loss_type
        job = Job(tiny_policy(tiny_model_dir), make_inputs(1), config, folder, CARD, LORA, FREE)
        train_actions(job, pays_for_even_events, ACTIONS)
        norms.append(Curves(folder / "curves.jsonl").of_kind("train")[0]["grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4) and norms[0] > 0


def test_rollouts_may_serve_several_steps(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second step compares with the probabilities that were drawn from, of every action."""
    losses: list[float] = []
    stock = ActionGRPOTrainer._compute_loss

    def watched(self: Any, *args: Any) -> torch.Tensor:
        loss: torch.Tensor = stock(self, *args)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(ActionGRPOTrainer, "_compute_loss", watched)
    job = Job(
        tiny_policy(tiny_model_dir),
        make_inputs(5),
        replace(CONFIG, steps=4, iterations=2),
        tmp_path,
        CARD,
        LORA,
        FREE,
    )
    train_actions(job, pays_for_even_events, ACTIONS)
    first, second, *_ = np.array(losses).reshape(4, 2)  # two prompts a step
    assert first == pytest.approx(0, abs=1e-5) and (second < -1e-3).all()  # what is expected of a slot has grown


def test_settings_that_contradict_it_are_refused() -> None:
    for contradicts in ({"scale_rewards": "group"}, {"beta": 0.1}):
        with pytest.raises(InputError, match="compares no rollouts of a group"):
            replace(CONFIG, **contradicts)
    with pytest.raises(InputError, match=r"train\.credit = 'half'"):
        replace(CONFIG, credit="half")
    with pytest.raises(InputError, match=r"train\.credit = slots with dpo"):
        PreferenceConfig().check(replace(TrainConfig(), credit="slots"))
