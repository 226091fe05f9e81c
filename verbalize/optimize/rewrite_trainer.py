"""Train the rewrite policy: free text sampled with shared prompts, budgeted before TRL sees them.

The encoding differs from TRL: contents of a chat are data (`encode_chat`), so a title that spells a control token
cannot end the user's turn in training and be harmless in evaluation, or the other way round.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from recsys.models.loading import LanguageModel
from recsys.models.settings import AdapterCard, LoraSettings
from verbalize.optimize.checkpoints import ResumableTrainer
from verbalize.optimize.curves import OnStep
from verbalize.optimize.rollouts import rollout_reward
from verbalize.optimize.scoring import ScoreFunction
from verbalize.optimize.settings import LimitsConfig, TrainConfig
from verbalize.optimize.shared_prefix import SharedPrefixTrainer
from verbalize.optimize.training import Judge, Run, TrainResult, Validation, rows_digest, trainable_policy
from verbalize.verbalizers.rewrite import (
    RewriteConfig,
    RewriteVerbalizer,
    clean_rewrite,
    fit_to_budget,
    prompt_ids,
    rewrite_messages,
)


class RewriteGRPOTrainer(ResumableTrainer, SharedPrefixTrainer, GRPOTrainer):
    """`GRPOTrainer` on chats whose contents are encoded as plain text; rollouts share their prompt."""

    def _tokenize_prompts(self, prompts: list[list[dict[str, str]]]) -> tuple[list[list[int]], None, dict]:
        return prompt_ids(prompts, self._tokenizer), None, {}


def train_rewrites(
    lm: LanguageModel,
    inputs: pl.DataFrame,
    score: ScoreFunction,
    config: TrainConfig,
    folder: Path,
    *,
    card: AdapterCard,
    rewrite: RewriteConfig | None = None,
    lora: LoraSettings | None = None,
    limits: LimitsConfig | None = None,
    validation: Validation | None = None,
    on_step: OnStep | None = None,
) -> TrainResult:
    """GRPO on free rewriting; parameters as in `train_actions`. Prompt and text lengths come from `rewrite`."""
    rewrite = rewrite or RewriteConfig()
    model = trainable_policy(lm, lora or LoraSettings(), config.seed)
    fitted, _ = fit_to_budget(inputs, lm.tokenizer, rewrite)
    rows = [
        {"example_id": key, "prompt": chat}
        for key, chat in zip(fitted["example_id"], rewrite_messages(fitted, rewrite), strict=True)
    ]
    run = Run(model, config, folder, {"prompts": rows_digest(rows)}, on_step)
    if (result := run.finished()) is not None:
        return result

    def make_trainer(args: GRPOConfig, dataset: Dataset, callbacks: list[Any]) -> RewriteGRPOTrainer:
        reward = rollout_reward(texts_of, score, config.group_size, folder / "rollouts")
        return RewriteGRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=args,
            train_dataset=dataset,
            callbacks=callbacks,
            processing_class=lm.tokenizer,
            shared_prefix=config.shared_prefix,
            prompts_per_forward=config.prompts_per_forward,
        )

    policy = LanguageModel(model, lm.tokenizer, lm.name, lm.digest, lm.base_digest)
    judge = rewrite_judge(RewriteVerbalizer(policy, rewrite), validation.inputs) if validation else None
    return run.train(make_trainer, rows, rewrite.max_new_tokens, limits or LimitsConfig(), validation, judge, card)


def texts_of(
    example_ids: Sequence[str], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]]
) -> list[str]:
    """The assistant's messages, cleaned as at evaluation."""
    return [clean_rewrite(completion[0]["content"]) for completion in completions]


def rewrite_judge(verbalizer: RewriteVerbalizer, inputs: pl.DataFrame) -> Judge:
    """Greedy texts on fixed inputs, and the share of them that reached the token limit."""

    def judge() -> tuple[list[str], dict[str, float]]:
        texts = verbalizer.verbalize(inputs)
        return texts, {"texts_cut": verbalizer.counts["texts_cut"] / len(texts)}

    return judge
