"""Train a slot policy: inputs to prompts, rollouts to executed texts (or displays), greedy ones on validation."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from transformers import TrainerCallback

from verbalize.optimize.action_trainer import ActionGRPOTrainer
from verbalize.optimize.curves import LogCurves
from verbalize.optimize.policy import (
    ActionPolicyVerbalizer,
    entropy,
    evaluating,
    greedy_actions,
    kl_divergence,
    resolve_tokens,
    slot_logprobs,
)
from verbalize.optimize.rollouts import rollout_reward
from verbalize.optimize.scoring import ScoreFunction
from verbalize.optimize.slot_credit import changed_rewards
from verbalize.optimize.training import Job, Judge, Run, TrainResult, begun_with, rollout_rows
from verbalize.optimize.trl_settings import grpo_config
from verbalize.verbalizers.actions import ActionConfig
from verbalize.verbalizers.slots import SlotConfig, carry_out, slot_prompts


def train_actions(job: Job, score: ScoreFunction, actions: SlotConfig | None = None) -> TrainResult:
    """GRPO on the slot policy. See `training` for resumption."""
    config = job.config
    policy = action_policy(job, actions or ActionConfig())
    model = policy.lm.model
    fitted, encoded = policy.fit(job.inputs)
    prompts = slot_prompts(fitted, policy.config)
    rows = [{"example_id": key, "prompt": prompt} for key, prompt in zip(fitted["example_id"], prompts, strict=True)]
    curriculum = job.curriculum(rows)
    run = Run(job, model, begun_with(rows, curriculum))
    if (result := run.finished()) is not None:
        return result
    # One token per slot; only `dr_grpo` reads the length, as its constant divisor.
    longest = max(1, *(ids.count(policy.tokens.marker) for ids in encoded))

    executor = Executor(fitted, policy)

    def make_trainer(dataset: Dataset, callbacks: list[TrainerCallback]) -> ActionGRPOTrainer:
        return ActionGRPOTrainer(
            model=model,
            reward_funcs=rollout_reward(executor, score, config.group_size, job.folder / "rollouts"),
            args=grpo_config(config, job.folder, longest, model.device),
            train_dataset=dataset,
            callbacks=callbacks,
            processing_class=job.lm.tokenizer,
            tokens=policy.tokens,
            prompts_per_forward=config.prompts_per_forward,
            curriculum=curriculum,
            prompts_per_step=config.prompts_per_step,
            changed=changed_rewards(executor.texts, score) if config.credit == "slots" else None,
        )

    judge = action_judge(policy, job.validation.inputs) if job.validation else None
    return run.train(make_trainer, rollout_rows(rows, config), LogCurves(run.curves), judge)


def action_policy(job: Job, actions: SlotConfig) -> ActionPolicyVerbalizer:
    """The policy that a job trains, as a verbalizer."""
    return ActionPolicyVerbalizer(
        job.policy(),
        actions,
        prompt_budget=job.config.prompt_budget,
        prompts_per_forward=job.config.prompts_per_forward,
    )


class Executor:
    """Action token ids of rollouts -> texts, by the deterministic executor."""

    def __init__(self, inputs: pl.DataFrame, policy: ActionPolicyVerbalizer) -> None:
        self.inputs, self.policy = inputs, policy
        self.row = {example_id: index for index, example_id in enumerate(inputs["example_id"])}

    def __call__(
        self, example_ids: Sequence[str], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]]
    ) -> list[str]:
        """N rollouts -> N texts."""
        symbols = [[self.policy.tokens.symbol_of(token) for token in ids] for ids in completion_ids]
        return self.texts(example_ids, symbols)

    def texts(self, example_ids: Sequence[str], actions: Sequence[Sequence[int]]) -> list[str]:
        """N example ids and as many action lists -> N texts."""
        return carry_out(self.inputs[[self.row[key] for key in example_ids]], actions, self.policy.config)


def action_judge(policy: ActionPolicyVerbalizer, inputs: pl.DataFrame) -> Judge:
    """Greedy texts on fixed inputs; entropy, exact KL to the policy as it is now, how often each action is taken."""
    fitted, prompts = policy.fit(inputs)
    tokens = resolve_tokens(policy.lm.tokenizer, policy.config.symbols, policy.config.marker)

    def present() -> list[torch.Tensor]:
        with torch.no_grad(), evaluating(policy.lm.model):
            return slot_logprobs(policy.lm.model, prompts, tokens, prompts_per_forward=policy.prompts_per_forward)

    start = present()

    def judge() -> tuple[list[str], dict[str, float]]:
        now = present()
        chosen = [greedy_actions(row) for row in now]
        flat = [action for row in chosen for action in row]
        diagnostics = {
            "entropy": torch.cat([entropy(row) for row in now]).mean().item(),
            "kl": torch.cat([kl_divergence(a, b) for a, b in zip(now, start, strict=True)]).mean().item(),
            "distinct_actions": len({tuple(row) for row in chosen}) / len(chosen),
        } | {f"action.{action}": fmean(other == action for other in flat) for action in range(4)}
        return carry_out(fitted, chosen, policy.config), diagnostics

    return judge
