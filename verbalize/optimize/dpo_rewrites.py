"""DPO on rewrites, by TRL's `DPOTrainer`: texts are sampled and scored once, then pairs of them are trained on.

All samples come from the policy the run starts with, which is also the reference (TRL keeps a frozen copy of the
adapter). They are drawn in chunks of prompts until there are enough pairs for the steps asked for, each chunk from a
seed of its own and kept on disk, so a killed run neither samples nor pays for a ranking twice.

Deviation from TRL: it would tokenise chats itself, where a title that spells a control token ends the user's turn; here
prompts are encoded as at evaluation and completions are the very tokens that were sampled.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import DPOTrainer

from recsys.models.branching import sample_branches
from recsys.models.loading import LanguageModel
from recsys.seeding import stable_hash
from recsys.storage import write_text
from verbalize.optimize.checkpoints import ResumableTrainer
from verbalize.optimize.curves import Curves
from verbalize.optimize.policy import evaluating
from verbalize.optimize.preferences import no_pairs, pairs
from verbalize.optimize.rewrite_trainer import rewrite_judge, rewrite_rows
from verbalize.optimize.scoring import ScoreFunction
from verbalize.optimize.settings import PreferenceConfig, TrainConfig
from verbalize.optimize.training import Job, Run, TrainResult, prompt_order, rows_digest
from verbalize.optimize.trl_settings import dpo_config
from verbalize.verbalizers.rewrite import RewriteConfig, RewriteVerbalizer, clean_rewrite, prompt_ids

CHUNK = 32
"""Prompts sampled, scored and kept together."""


class RewriteDPOTrainer(ResumableTrainer, DPOTrainer):
    """`DPOTrainer` on pairs that are token ids already: prompt_ids, chosen_ids, rejected_ids."""

    _buffered_inputs: Any = None

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset

    def training_step(self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One micro-batch, remembered for the file that an abort leaves; its tokens per text go to the log."""
        self._buffered_inputs = inputs
        texts = inputs["completion_mask"]
        self._metrics["train"]["completions/mean_length"].append(int(texts.sum()) / len(texts))
        return super().training_step(model, inputs, num_items_in_batch)


def train_rewrite_preferences(
    job: Job, score: ScoreFunction, dpo: PreferenceConfig, rewrite: RewriteConfig | None = None
) -> TrainResult:
    """DPO on free rewriting. `config.group_size` texts are sampled per prompt, at `config.temperature`; a step takes
    `config.prompts_per_step` pairs. Of the job's limits only `max_kl` applies: nothing is sampled while it trains.
    Otherwise as `train_rewrites`, resumption included.

    Raises InputError when no two samples of any prompt differ enough in reward.
    """
    dpo.check(job.config)
    job = replace(job, limits=job.limits.without_rollouts())
    config, rewrite = job.config, rewrite or RewriteConfig()
    policy = job.policy()
    rows = rewrite_rows(job, rewrite)
    run = Run(job, policy.model, {"dpo": asdict(dpo), "prompts": rows_digest(rows)})
    if (result := run.finished()) is not None:
        return result
    sampler = Sampler(policy, score, config, rewrite.max_new_tokens, job.folder / "rollouts")
    prompts = prompt_ids([row["prompt"] for row in rows], policy.tokenizer)
    found = sampled_pairs(sampler, [row["example_id"] for row in rows], prompts, config, dpo)

    def make_trainer(dataset: Dataset, callbacks: list[TrainerCallback]) -> RewriteDPOTrainer:
        return RewriteDPOTrainer(
            model=policy.model,
            args=dpo_config(config, dpo.beta, job.folder, policy.model.device),
            train_dataset=dataset,
            processing_class=policy.tokenizer,
            callbacks=callbacks,
        )

    judge = rewrite_judge(RewriteVerbalizer(policy, rewrite), job.validation.inputs) if job.validation else None
    return run.train(make_trainer, found, LogPairs(run.curves, dpo.beta), judge)


@dataclass(frozen=True)
class Sampler:
    """Draws and scores `config.group_size` texts for each prompt of a chunk, or reads what it drew before."""

    policy: LanguageModel
    score: ScoreFunction
    config: TrainConfig
    max_new_tokens: int
    folder: Path

    def __call__(
        self, number: int, example_ids: Sequence[str], prompts: Sequence[Sequence[int]]
    ) -> list[dict[str, Any]]:
        """Chunk `number` -> one row per text, those of a prompt together: example_id, text, reward, tokens, ..."""
        path = self.folder / f"chunk-{number:05d}.jsonl"
        if not path.exists():
            rows = self._draw(number, example_ids, prompts)
            write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), path)
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def _draw(self, number: int, example_ids: Sequence[str], prompts: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
        tokenizer, model, size = self.policy.tokenizer, self.policy.model, self.config.group_size
        with evaluating(model), torch.random.fork_rng():
            torch.manual_seed(stable_hash(self.config.seed, "preference samples", number))
            samples = sample_branches(
                model,
                prompts,
                [size] * len(prompts),
                self.max_new_tokens,
                [tokenizer.eos_token_id],
                lambda logits: logits / self.config.temperature,
            )
        tokens = [sample.tokens for drawn in samples for sample in drawn]
        texts = [clean_rewrite(text) for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]
        keys = [key for key in example_ids for _ in range(size)]
        return [
            {"example_id": key, "text": text, "reward": scored.reward, **scored.components, "tokens": ids}
            for key, text, scored, ids in zip(keys, texts, self.score(keys, texts), tokens, strict=True)
        ]


def sampled_pairs(
    sampler: Sampler,
    example_ids: Sequence[str],
    prompts: Sequence[Sequence[int]],
    config: TrainConfig,
    dpo: PreferenceConfig,
) -> list[dict[str, list[int]]]:
    """prompt_ids, chosen_ids, rejected_ids of the pairs that all steps need, in their order; more steps only append.

    Prompts come in a seeded order; of a chunk first every prompt's widest pair, then the second ones, so that a step
    meets several prompts. When all prompts are used up the pairs come round again, shuffled.
    """
    needed = config.steps * config.prompts_per_step
    order = prompt_order(len(prompts), len(prompts), config.seed)
    found: list[dict[str, list[int]]] = []
    for number, start in enumerate(range(0, len(order), CHUNK)):
        if len(found) >= needed:
            break
        chosen = order[start : start + CHUNK]
        rows = sampler(number, [example_ids[row] for row in chosen], [prompts[row] for row in chosen])
        ranked = []
        for place, row in enumerate(chosen):
            group = rows[place * config.group_size : (place + 1) * config.group_size]
            best = pairs([one["reward"] for one in group], dpo.min_gap, dpo.pairs_per_prompt)
            for rank, (winner, loser, _) in enumerate(best):
                ids = [list(prompts[row]), group[winner]["tokens"], group[loser]["tokens"]]
                ranked.append((rank, place, dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), ids, strict=True))))
        found += [pair for *_, pair in sorted(ranked, key=lambda one: one[:2])]
    if not found:
        raise no_pairs(dpo.min_gap, len(prompts))
    again = prompt_order(len(found), max(needed - len(found), 0), config.seed)
    return (found + [found[row] for row in again])[:needed]


class LogPairs(TrainerCallback):
    """Adds one `train` record per optimizer step, under the names that DPO on actions uses.

    `kl` estimates KL(reference || policy), in nats per token: minus the mean log-ratio of the step's texts, which the
    reference wrote. That pairs are a choice of them biases it, and small moves of winners and losers cancel; what it
    catches is DPO's own way of falling apart, in which both become unlikely.
    """

    def __init__(self, curves: Curves, beta: float) -> None:
        self.curves, self.beta = curves, beta

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if logs is None or "rewards/margins" not in logs:  # the summary at the end of a run
            return
        record = {"kind": "train", "step": state.global_step, "of": state.max_steps}
        record |= {name: logs[name] for name in ("loss", "entropy", "grad_norm", "learning_rate") if name in logs}
        record |= {"pairs.accuracy": logs["rewards/accuracies"], "pairs.gap": logs["rewards/margins"] / self.beta}
        ratio = (logs["rewards/chosen"] + logs["rewards/rejected"]) / 2 / self.beta  # nats per text
        self.curves.add(record | {"kl": -ratio / logs["completions/mean_length"]})
