"""Train a policy by GRPO in resumable steps, judge it on fixed validation examples, keep the best.

Calling a train function again with the same arguments goes on from the last whole checkpoint and ends in the weights of
the uninterrupted run (fixed threads); calling it after the end returns the recorded result. The model passed in must be
the one the run started with: it is the reference of the KL, and its weights are part of the run's identity.

Of several processes (`verbalize.processes`) each rolls out its share of a step's prompts; the leader judges, chooses
and writes, and tells the others what came of it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
from datasets import Dataset
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import PrinterCallback, TrainerCallback

from recsys.errors import InputError
from recsys.models.adapters import add_lora, save_adapter
from recsys.models.loading import LanguageModel
from recsys.models.settings import AdapterCard, LoraSettings
from recsys.seeding import rng, stable_hash
from recsys.storage import read_json, read_parquet, replacing, write_json, write_parquet
from verbalize.optimize.checkpoints import FiniteGradients, ResumableTrainer, last_complete, step_of
from verbalize.optimize.curriculum import Curriculum
from verbalize.optimize.curves import Curves, OnStep, Validate
from verbalize.optimize.drawn_prompts import stand_ins
from verbalize.optimize.limits import StopAtLimits
from verbalize.optimize.scoring import ScoreFunction
from verbalize.optimize.selection import choose_step
from verbalize.optimize.settings import LimitsConfig, TrainConfig
from verbalize.processes import leads, process_count, share

Judge = Callable[[], tuple[list[str], dict[str, float]]]
"""-> greedy texts of the validation examples under the present weights, and diagnostics of the policy there."""

MakeTrainer = Callable[[Dataset, list[TrainerCallback]], ResumableTrainer]


@dataclass(frozen=True)
class Validation:
    """Fixed examples that choose the checkpoint: verbalizer inputs and how their texts are rewarded."""

    inputs: pl.DataFrame
    score: ScoreFunction


@dataclass(frozen=True, eq=False)
class Job:
    """What every training of a policy is given, whatever its method and its kind of policy."""

    lm: LanguageModel
    """Trained in place, from the adapter it came with (a warm start) or a fresh one, and left at the best policy: do
    not share its weights with the recommender behind the reward."""
    inputs: pl.DataFrame
    """example_id, cutoff_time, history of the training examples."""
    config: TrainConfig
    folder: Path
    card: AdapterCard
    lora: LoraSettings = field(default_factory=LoraSettings)
    """Of the fresh adapter."""
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    validation: Validation | None = None
    on_step: OnStep | None = None
    scored: pl.DataFrame | None = None
    """example_id, reward of the pool's candidates, where there is one: what a curriculum begins with."""

    def curriculum(self, rows: Sequence[Mapping[str, Any]]) -> Curriculum | None:
        """That of the configuration over these prompts, at its beginning."""
        config = self.config.curriculum
        return None if config is None else Curriculum(rows, config, self.config.seed, self.scored)

    def policy(self) -> LanguageModel:
        """The model, ready to be trained."""
        return replace(self.lm, model=trainable_policy(self.lm, self.lora, self.config.seed))


@dataclass(frozen=True)
class TrainResult:
    """What a run left. Rewards are means over the validation examples (None without any); step 0 is the start."""

    adapter: str
    best_step: int
    best_reward: float | None
    start_reward: float | None
    steps: int
    stop_reason: str | None
    curves: str


def trainable_policy(lm: LanguageModel, lora: LoraSettings, seed: int) -> PeftModel:
    """The model with exactly one trainable adapter, `default`: the one it came with, or a fresh one."""
    model = lm.model if isinstance(lm.model, PeftModel) else add_lora(lm.model, lora, seed)
    model.set_adapter("default")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name and ".default." in name)
    return model


def prompt_order(count: int, needed: int, seed: int) -> list[int]:
    """`needed` row indices: one seeded shuffle of all rows after another: a longer run only appends.

    >>> prompt_order(3, 5, 0)[:3] == prompt_order(3, 3, 0)
    True
    """
    order: list[int] = []
    for epoch in range(-(-needed // count)):
        order += rng(seed, "prompt-order", epoch).permutation(count).tolist()
    return order[:needed]


def rollout_rows(rows: Sequence[Mapping[str, Any]], config: TrainConfig) -> list[Mapping[str, Any]]:
    """The prompts of all generations, in their order; where a curriculum draws them, stand-ins for them."""
    needed = config.steps // config.iterations * config.prompts_per_step
    if config.curriculum is not None:
        return stand_ins(rows[0], config.prompts_per_step, needed)
    return [rows[index] for index in prompt_order(len(rows), needed, config.seed)]


class Run:
    """One training run in one folder: identity, curves, validation, selection of the best policy.

    The number of processes is part of the identity, since each draws its rollouts from random states of its own.
    """

    def __init__(self, job: Job, model: PeftModel, identity: Mapping[str, Any]) -> None:
        self.job, self.model, self.config, self.folder = job, model, job.config, job.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        started = {"config": self.config.identity | {"steps": None}, "policy": policy_digest(self.model)}
        several = process_count() if process_count() > 1 else None  # a folder from before there could be several holds
        if leads():
            check_identity({**started, "number of processes": several, **identity}, self.folder)
        self.curves = Curves(self.folder / "curves.jsonl", job.on_step)
        share(None)  # nothing is added before all have read it

    def finished(self) -> TrainResult | None:
        """The recorded result, unless it stopped short of the steps now asked for."""
        path = self.folder / "result.json"
        result = share(TrainResult(**read_json(path)) if path.exists() else None)
        return result if result and (result.stop_reason or result.steps >= self.config.steps) else None

    def train(
        self,
        make_trainer: MakeTrainer,
        rows: Sequence[Mapping[str, Any]],
        log: TrainerCallback,
        judge: Judge | None,
    ) -> TrainResult:
        """Train TRL's trainer on `rows`, in their order, to the last step or the first broken limit.

        `log` adds the steps' records to `curves`. The model must be as the run found it first.
        """
        checkpoint = share(last_complete(self.folder) if leads() else None)
        self.curves.rewind(step_of(checkpoint) if checkpoint else -1)
        stop, finite = StopAtLimits(self.job.limits, self.curves.records, self.config.iterations), FiniteGradients()
        callbacks: list[TrainerCallback] = [log, stop, finite]
        evaluate = self._evaluator(judge) if leads() else None
        if evaluate:
            callbacks.append(Validate(evaluate, self.config.eval_every))
        trainer = make_trainer(Dataset.from_list([dict(row) for row in rows]), callbacks)
        finite.trainer = trainer
        trainer.remove_callback(PrinterCallback)  # type: ignore[attr-defined]  # the log is `curves`, not stdout
        if evaluate and checkpoint is None:
            evaluate(0)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)  # type: ignore[attr-defined]
        result = share(self._finish(trainer.state.global_step, stop.reason) if leads() else None)
        assert result is not None  # the leader's
        return result

    def _evaluator(self, judge: Judge | None) -> Callable[[int], None] | None:
        """Judges the policy of a step and keeps it; None without validation examples."""
        validation = self.job.validation
        if validation is None or judge is None:
            return None
        ids = validation.inputs["example_id"].to_list()

        def evaluate(step: int) -> None:
            texts, diagnostics = judge()
            scored = validation.score(ids, texts)
            table = pl.DataFrame({"example_id": ids, "text": texts, "reward": [result.reward for result in scored]})
            table = table.with_columns(pl.DataFrame([result.components for result in scored]))
            write_parquet(table, self._judged_file(step))
            self._keep_policy(step)
            means = {f"component.{name}": table[name].mean() for name in scored[0].components}
            self.curves.add(
                {
                    "kind": "validation",
                    "step": step,
                    "of": self.config.steps,
                    "reward": table["reward"].mean(),
                    **means,
                    **diagnostics,
                    "text.characters": table["text"].str.len_chars().mean(),
                }
            )

        return evaluate

    def _best(self, judged: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """The record of the policy to keep; None without validation examples."""
        if not judged:
            return None
        tables = {int(record["step"]): read_parquet(self._judged_file(int(record["step"]))) for record in judged}
        step = choose_step({step: table["reward"].to_list() for step, table in tables.items()}, self.config.choose)
        return next(record for record in judged if record["step"] == step)

    def _judged_file(self, step: int) -> Path:
        return self.folder / "validation" / f"step-{step:05d}.parquet"

    def _keep_policy(self, step: int) -> None:
        state = get_peft_model_state_dict(self.model, adapter_name="default")
        with replacing(self._policy_file(step)) as temporary:
            save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, temporary)

    def _policy_file(self, step: int) -> Path:
        return self.folder / "policies" / f"step-{step:05d}.safetensors"

    def _finish(self, steps: int, reason: str | None) -> TrainResult:
        judged = self.curves.of_kind("validation")
        best = self._best(judged)
        if "ref" in self.model.peft_config:
            self.model.delete_adapter("ref")
        if best is not None:
            set_peft_model_state_dict(self.model, load_file(self._policy_file(best["step"])), adapter_name="default")
        self.model.eval()
        adapter = save_adapter(self.model, self.folder / "adapter", self.job.card)
        result = TrainResult(
            adapter=adapter.name,
            best_step=best["step"] if best else steps,
            best_reward=best["reward"] if best else None,
            start_reward=judged[0]["reward"] if judged else None,
            steps=steps,
            stop_reason=reason,
            curves=self.curves.path.name,
        )
        write_json(asdict(result), self.folder / "result.json")
        return result


def check_identity(identity: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on in a folder that another configuration, data set or starting policy began (run.json)."""
    path = folder / "run.json"
    if not path.exists():
        write_json(dict(identity), path)
        return
    known = read_json(path)
    changed = sorted(name for name in identity if known.get(name) != identity[name])
    if changed:
        raise InputError(
            f"training folder {folder}",
            f"was begun with another {', '.join(changed)}",
            "use another folder, or delete this one to start over",
        )


def policy_digest(model: PeftModel) -> str:
    """sha256 over the policy adapter's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(get_peft_model_state_dict(model, adapter_name="default").items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def begun_with(rows: Sequence[Mapping[str, Any]], curriculum: Curriculum | None) -> dict[str, Any]:
    """What a training by rollouts is begun with: its prompts, and what a curriculum knew of them."""
    return {"prompts": rows_digest(rows)} | ({} if curriculum is None else {"curriculum": curriculum.digest()})


def rows_digest(rows: Sequence[Mapping[str, Any]]) -> int:
    """Identity of the training prompts."""
    return stable_hash(*(f"{row['example_id']}\x1e{row['prompt']}" for row in rows))
