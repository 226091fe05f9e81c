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

import polars as pl
import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer

from recsys.models.branching import sample_branches
from recsys.models.loading import LanguageModel
from recsys.models.settings import AdapterCard, LoraSettings
from recsys.seeding import stable_hash
from recsys.storage import write_text
from verbalize.optimize.checkpoints import FiniteGradients, ResumableTrainer, last_complete, step_of
from verbalize.optimize.curves import Curves, OnStep, Validate
from verbalize.optimize.policy import evaluating
from verbalize.optimize.preferences import no_pairs, pairs
from verbalize.optimize.rewrite_trainer import rewrite_judge
from verbalize.optimize.scoring import ScoreFunction
from verbalize.optimize.settings import PreferenceConfig, TrainConfig
from verbalize.optimize.training import (
    Judge,
    Run,
    TrainResult,
    Validation,
    prompt_order,
    rows_digest,
    trainable_policy,
)
from verbalize.verbalizers.rewrite import (
    RewriteConfig,
    RewriteVerbalizer,
    clean_rewrite,
    fit_to_budget,
    prompt_ids,
    rewrite_messages,
)

CHUNK = 32
"""Prompts sampled, scored and kept together."""


class RewriteDPOTrainer(ResumableTrainer, DPOTrainer):
    """`DPOTrainer` on pairs that are token ids already: prompt_ids, chosen_ids, rejected_ids."""

    _buffered_inputs: Any = None

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset

    def training_step(self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One micro-batch, remembered for the file that an abort leaves."""
        self._buffered_inputs = inputs
        return super().training_step(model, inputs, num_items_in_batch)


def train_rewrite_preferences(
    lm: LanguageModel,
    inputs: pl.DataFrame,
    score: ScoreFunction,
    config: TrainConfig,
    dpo: PreferenceConfig,
    folder: Path,
    *,
    card: AdapterCard,
    rewrite: RewriteConfig | None = None,
    lora: LoraSettings | None = None,
    validation: Validation | None = None,
    on_step: OnStep | None = None,
) -> TrainResult:
    """DPO on free rewriting. `config.group_size` texts are sampled per prompt, at `config.temperature`; a step takes
    `config.prompts_per_step` pairs. Otherwise as `train_rewrites`, resumption included.

    Raises InputError when no two samples of any prompt differ enough in reward.
    """
    dpo.check(config)
    rewrite = rewrite or RewriteConfig()
    model = trainable_policy(lm, lora or LoraSettings(), config.seed)
    fitted, _ = fit_to_budget(inputs, lm.tokenizer, rewrite)
    chats = rewrite_messages(fitted, rewrite)
    ids = fitted["example_id"].to_list()
    rows = [{"example_id": key, "prompt": chat} for key, chat in zip(ids, chats, strict=True)]
    run = PairRun(model, config, folder, {"dpo": asdict(dpo), "prompts": rows_digest(rows)}, on_step)
    if (result := run.finished()) is not None:
        return result
    policy = replace(lm, model=model)
    sampler = Sampler(policy, score, config, rewrite.max_new_tokens, folder / "rollouts")
    found = sampled_pairs(sampler, ids, prompt_ids(chats, lm.tokenizer), config, dpo)
    judge = rewrite_judge(RewriteVerbalizer(policy, rewrite), validation.inputs) if validation else None
    return run.follow(found, dpo.beta, lm.tokenizer, validation, judge, card)


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


def dpo_config(config: TrainConfig, beta: float, folder: Path) -> DPOConfig:
    """TRL's settings, as `grpo_config`: pairs in their given order, a checkpoint whenever the run asks for one."""
    return DPOConfig(
        output_dir=str(folder),
        max_steps=config.steps,
        seed=config.seed,
        data_seed=config.seed,
        per_device_train_batch_size=config.prompts_per_forward,
        gradient_accumulation_steps=config.prompts_per_step // config.prompts_per_forward,
        train_sampling_strategy="sequential",
        beta=beta,
        max_length=None,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=config.warmup_steps,
        max_grad_norm=config.max_grad_norm,
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
    )


class PairRun(Run):
    """A `Run` whose steps are TRL's DPO on fixed pairs."""

    def follow(
        self,
        found: Sequence[Mapping[str, list[int]]],
        beta: float,
        tokenizer: Any,
        validation: Validation | None,
        judge: Judge | None,
        card: AdapterCard,
    ) -> TrainResult:
        """Train to the last step; the model must be as the run found it first."""
        checkpoint = last_complete(self.folder)
        self.curves.rewind(step_of(checkpoint) if checkpoint else -1)
        finite = FiniteGradients()
        callbacks: list[TrainerCallback] = [LogPairs(self.curves, beta), finite]
        evaluate = self._evaluator(validation, judge) if validation and judge else None
        if evaluate:
            callbacks.append(Validate(evaluate, self.config.eval_every))
        trainer = RewriteDPOTrainer(
            model=self.model,
            args=dpo_config(self.config, beta, self.folder),
            train_dataset=Dataset.from_list([dict(pair) for pair in found]),
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        finite.trainer = trainer
        trainer.remove_callback(PrinterCallback)  # the log is `curves`, not stdout
        if evaluate and checkpoint is None:
            evaluate(0)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return self._finish(trainer.state.global_step, None, card)


class LogPairs(TrainerCallback):
    """Adds one `train` record per optimizer step, under the names that DPO on actions uses."""

    def __init__(self, curves: Curves, beta: float) -> None:
        self.curves, self.beta = curves, beta

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if logs is None or "rewards/margins" not in logs:  # the summary at the end of a run
            return
        record = {"kind": "train", "step": state.global_step, "of": state.max_steps}
        record |= {name: logs[name] for name in ("loss", "entropy", "grad_norm", "learning_rate") if name in logs}
        record |= {"pairs.accuracy": logs["rewards/accuracies"], "pairs.gap": logs["rewards/margins"] / self.beta}
        self.curves.add(record)
