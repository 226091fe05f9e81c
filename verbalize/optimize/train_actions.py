"""Train the action policy: inputs to prompts, rollouts to executed texts, greedy texts on validation."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from trl import GRPOConfig

from recsys.models.loading import LanguageModel
from recsys.models.settings import AdapterCard, LoraSettings
from verbalize.optimize.action_trainer import ActionGRPOTrainer
from verbalize.optimize.curves import OnStep
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
from verbalize.optimize.settings import LimitsConfig, TrainConfig
from verbalize.optimize.training import Judge, Run, TrainResult, Validation, rows_digest, trainable_policy
from verbalize.verbalizers.actions import ActionConfig, action_prompts, execute


def train_actions(
    lm: LanguageModel,
    inputs: pl.DataFrame,
    score: ScoreFunction,
    config: TrainConfig,
    folder: Path,
    *,
    card: AdapterCard,
    actions: ActionConfig | None = None,
    lora: LoraSettings | None = None,
    limits: LimitsConfig | None = None,
    validation: Validation | None = None,
    on_step: OnStep | None = None,
) -> TrainResult:
    """GRPO on the slot policy of `lm`, from the adapter it came with (a warm start) or a fresh one.

    `inputs`: example_id, cutoff_time, history of the training examples. `lm.model` is trained in place and left at the
    best policy: do not share its weights with the recommender behind `score`. See `training` for resumption.
    """
    actions = actions or ActionConfig()
    model = trainable_policy(lm, lora or LoraSettings(), config.seed)
    policy = ActionPolicyVerbalizer(
        LanguageModel(model, lm.tokenizer, lm.name, lm.digest, lm.base_digest),
        actions,
        prompt_budget=config.prompt_budget,
        prompts_per_forward=config.prompts_per_forward,
    )
    fitted, _ = policy.fit(inputs)
    prompts = action_prompts(fitted, actions)
    rows = [{"example_id": key, "prompt": prompt} for key, prompt in zip(fitted["example_id"], prompts, strict=True)]
    run = Run(model, config, folder, {"prompts": rows_digest(rows)}, on_step)
    if (result := run.finished()) is not None:
        return result

    def make_trainer(args: GRPOConfig, dataset: Dataset, callbacks: list[Any]) -> ActionGRPOTrainer:
        reward = rollout_reward(Executor(fitted, policy), score, config.group_size, folder / "rollouts")
        return ActionGRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=args,
            train_dataset=dataset,
            callbacks=callbacks,
            processing_class=lm.tokenizer,
            tokens=policy.tokens,
            prompts_per_forward=config.prompts_per_forward,
        )

    judge = action_judge(policy, validation.inputs) if validation else None
    # One token per event; only `dr_grpo` reads the length, as its constant divisor.
    longest = int(fitted["history"].list.len().max() or 1)  # type: ignore[arg-type]
    return run.train(make_trainer, rows, longest, limits or LimitsConfig(), validation, judge, card)


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
        return execute(self.inputs[[self.row[key] for key in example_ids]], symbols, self.policy.config)


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
        return execute(fitted, chosen, policy.config), diagnostics

    return judge
