"""Train the rewrite policy: free text sampled with shared prompts, budgeted before TRL sees them.

The encoding differs from TRL: contents of a chat are data (`encode_chat`), so a title that spells a control token
cannot end the user's turn in training and be harmless in evaluation, or the other way round.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOTrainer

from verbalize.optimize.checkpoints import ResumableTrainer
from verbalize.optimize.curves import LogCurves
from verbalize.optimize.drawn_prompts import DrawnPrompts
from verbalize.optimize.rollouts import rollout_reward
from verbalize.optimize.scoring import ScoreFunction
from verbalize.optimize.shared_prefix import SharedPrefixTrainer
from verbalize.optimize.training import Job, Judge, Run, TrainResult, begun_with, rollout_rows
from verbalize.optimize.trl_settings import grpo_config
from verbalize.verbalizers.rewrite import (
    RewriteConfig,
    RewriteVerbalizer,
    clean_rewrite,
    fit_to_budget,
    prompt_ids,
    rewrite_messages,
)


class RewriteGRPOTrainer(ResumableTrainer, DrawnPrompts, SharedPrefixTrainer, GRPOTrainer):
    """`GRPOTrainer` on chats whose contents are encoded as plain text; rollouts share their prompt."""

    def _tokenize_prompts(self, prompts: list[list[dict[str, str]]]) -> tuple[list[list[int]], None, dict]:
        return prompt_ids(prompts, self._tokenizer), None, {}


def train_rewrites(job: Job, score: ScoreFunction, rewrite: RewriteConfig | None = None) -> TrainResult:
    """GRPO on free rewriting. Prompt and text lengths come from `rewrite`. See `training` for resumption."""
    config, rewrite = job.config, rewrite or RewriteConfig()
    policy = job.policy()
    rows = rewrite_rows(job, rewrite)
    curriculum = job.curriculum(rows)
    run = Run(job, policy.model, begun_with(rows, curriculum))
    if (result := run.finished()) is not None:
        return result

    def make_trainer(dataset: Dataset, callbacks: list[TrainerCallback]) -> RewriteGRPOTrainer:
        return RewriteGRPOTrainer(
            model=policy.model,
            reward_funcs=rollout_reward(texts_of, score, config.group_size, job.folder / "rollouts"),
            args=grpo_config(config, job.folder, rewrite.max_new_tokens, policy.model.device),
            train_dataset=dataset,
            callbacks=callbacks,
            processing_class=job.lm.tokenizer,
            shared_prefix=config.shared_prefix,
            prompts_per_forward=config.prompts_per_forward,
            curriculum=curriculum,
            prompts_per_step=config.prompts_per_step,
        )

    judge = rewrite_judge(RewriteVerbalizer(policy, rewrite), job.validation.inputs) if job.validation else None
    return run.train(make_trainer, rollout_rows(rows, config), LogCurves(run.curves), judge)


def rewrite_rows(job: Job, rewrite: RewriteConfig) -> list[dict[str, Any]]:
    """example_id and prompt (a chat within its budget) of the training examples."""
    fitted, _ = fit_to_budget(job.inputs, job.lm.tokenizer, rewrite)
    chats = rewrite_messages(fitted, rewrite)
    return [{"example_id": key, "prompt": chat} for key, chat in zip(fitted["example_id"], chats, strict=True)]


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
