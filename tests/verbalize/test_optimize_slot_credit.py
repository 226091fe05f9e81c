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
from verbalize.optimize.settings import LimitsConfig, PreferenceConfig, TrainConfig
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


def score_gradients(logits: torch.Tensor) -> torch.Tensor:
    """d log pi(y) / d logits of every sequence and slot: (16, 2, 4), zero outside the slot."""
    probabilities = logits.softmax(-1)
    return torch.stack([torch.nn.functional.one_hot(torch.tensor(taken), 4) - probabilities for taken in SEQUENCES])


@given(
    st.lists(st.floats(-3, 3), min_size=16, max_size=16), st.lists(st.floats(-2, 2), min_size=8, max_size=8), st.data()
)
def test_the_expected_gradient_is_that_of_the_expected_reward(
    rewards: list[float], logits: list[float], data: st.DataObject
) -> None:
    """Over all rollouts, for any reward, additive or not; and no more spread than the rollout's reward itself has where
    it is a sum over slots."""
    pays = dict(zip(SEQUENCES, rewards, strict=True))
    at = torch.tensor(logits, dtype=torch.float64).reshape(SLOTS, 4).requires_grad_()
    slots = at.log_softmax(-1)
    likely = torch.stack([slots[range(SLOTS), taken].sum().exp() for taken in SEQUENCES])
    (expected,) = torch.autograd.grad((likely * torch.tensor(rewards, dtype=torch.float64)).sum(), at)

    def advantages(taken: tuple[int, ...]) -> np.ndarray:
        table = [
            [pays[(*taken[:slot], action, *taken[slot + 1 :])] for action in ALPHABET]  # type: ignore[index]
            for slot in range(SLOTS)
        ]
        return slot_advantages(np.array(table), at.softmax(-1).detach().numpy(), taken)

    paid = torch.as_tensor(np.stack([advantages(taken) for taken in SEQUENCES]))
    found = (likely.detach()[:, None, None] * paid[:, :, None] * score_gradients(at.detach())).sum(0)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def test_where_slots_add_up_the_others_make_no_noise() -> None:
    worth = np.array([[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, -30.0, 5.0]])  # the second slot matters far more
    even = np.full((SLOTS, 4), 0.25)
    tables = {taken: worth + np.array([worth[1, taken[1]], worth[0, taken[0]]])[:, None] for taken in SEQUENCES}
    first = {taken: slot_advantages(tables[taken], even, taken)[0] for taken in SEQUENCES}
    for taken in SEQUENCES:
        assert first[taken] == pytest.approx(worth[0, taken[0]] - 0.75)  # whatever the second slot did


def test_every_slot_is_changed_to_every_action_and_rewarded_by_its_text() -> None:
    asked: list[tuple[str, str]] = []

    def score(ids: Any, texts: Any) -> list[Scored]:
        asked.extend(zip(ids, texts, strict=True))
        return [Scored(float(text.count("2")), {}) for text in texts]

    changed = changed_rewards(lambda ids, actions: ["".join(map(str, taken)) for taken in actions], score)
    tables = changed(["a", "b"], [[2, 0, 3], [1]])
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

    def changed(ids: Any, actions: Any) -> list[np.ndarray]:
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
        changed=changed,
    )
    start = [logprobs.exp() for logprobs in policy.logprobs(inputs)]
    trainer.train()
    assert len(seen) == 2  # a group of two rollouts each
    sizes = []
    for batch in seen:
        for ids, mask, paid in zip(batch["completion_ids"], batch["completion_mask"], batch["advantages"], strict=True):
            taken = [policy.tokens.symbol_of(token) for token in ids[mask.bool()].tolist()]
            kept = start[len(taken) - 4][:, 2:].sum(-1)
            chose = torch.tensor([float(action > 1) for action in taken])
            ratio = paid[: len(taken)] / ((chose - kept) * torch.as_tensor(worth[: len(taken)], dtype=kept.dtype))
            torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), atol=1e-4, rtol=1e-4)
            sizes.append(ratio[0].item())
            assert not paid[len(taken) :].any()
    assert max(sizes) == pytest.approx(min(sizes), rel=1e-4)  # one scale for the whole step
    if scaled == "none":
        assert sizes[0] == pytest.approx(1, rel=1e-4)
    else:
        everything = torch.cat([batch["advantages"][batch["completion_mask"].bool()] for batch in seen])
        assert everything.square().mean().sqrt().item() == pytest.approx(1, abs=1e-3)


def test_it_learns_from_two_rollouts_of_a_prompt_and_under_a_curriculum(tiny_model_dir: Path, tmp_path: Path) -> None:
    """A curriculum weighs prompts, whose slots each have an advantage."""
    config = replace(CONFIG, steps=12, prompts_per_step=4, eval_every=12, save_every=12, curriculum=CurriculumConfig())
    job = Job(tiny_policy(tiny_model_dir), make_inputs(5), config, tmp_path, CARD, LORA, FREE)
    train_actions(job, pays_for_even_events, ACTIONS)
    train = Curves(tmp_path / "curves.jsonl").of_kind("train")
    reward = [record["reward"] for record in train]
    assert np.mean(reward[-3:]) > np.mean(reward[:3]) + 0.1
    assert all(record["slots.that_matter"] == 1 for record in train)


def test_settings_that_contradict_it_are_refused() -> None:
    with pytest.raises(InputError, match="not compared within one"):
        replace(CONFIG, scale_rewards="group")
    with pytest.raises(InputError, match=r"train\.credit = 'half'"):
        replace(CONFIG, credit="half")
    with pytest.raises(InputError, match=r"train\.credit = slots with dpo"):
        PreferenceConfig().check(replace(TrainConfig(), credit="slots"))
