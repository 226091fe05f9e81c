"""Prompt evolution by GEPA: the instruction of the rewriter evolves, its weights stay as they are.

The package proposes, accepts and keeps the Pareto front; `prompt_adapter` is what it asks for. Every evaluation and
every reflection is kept on disk by content, and GEPA itself starts from its seed each time: a killed run replays what
it had and goes on, to the instruction of the uninterrupted run.

Deviations from GEPA's defaults: feedback names rewards and ranks, never the target, which an instruction could learn by
heart; scores have no perfect value; the run ends while a whole proposal still fits its budget, so no arm ranks more
texts than it was allowed.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl

from recsys.errors import InputError
from recsys.models.loading import LanguageModel
from recsys.storage import read_json, write_json, write_parquet, write_text
from verbalize.optimize.curves import Curves
from verbalize.optimize.prompt_adapter import INSTRUCTION, InstructionAdapter, Reflect, Remembered
from verbalize.optimize.prompt_settings import PromptEvolutionConfig
from verbalize.optimize.scoring import ScoreFunction
from verbalize.optimize.training import Job
from verbalize.verbalizers.rewrite import RewriteConfig


@dataclass(frozen=True)
class PromptResult:
    """What an evolution left, under the names of `training.TrainResult`; steps count accepted instructions.

    `calls` texts were ranked and `reflections` instructions worded; step 0 is the instruction it began with.
    """

    instruction: str
    best_step: int
    best_reward: float | None
    start_reward: float | None
    steps: int
    stop_reason: str | None
    curves: str
    calls: int
    reflections: int
    reflector: str


def evolve_instruction(
    job: Job,
    *,
    score: ScoreFunction,
    gepa: PromptEvolutionConfig,
    rewrite: RewriteConfig,
    reflect: Callable[[LanguageModel, PromptEvolutionConfig], Reflect],
) -> PromptResult:
    """Evolve `rewrite.instruction` on the job's training inputs, judged on its validation examples. What a job says of
    weights and of limits finds none here.

    Resumes in the job's folder. Raises InputError when the package is missing, when the budget holds no proposal, and
    when the folder was begun with other settings.
    """
    lm, inputs, config, folder, validation = job.lm, job.inputs, job.config, job.folder, job.validation
    if validation is None:
        raise InputError("prompt evolution without validation", "has nothing to choose by", "give the job examples")
    path = folder / "result.json"
    if path.exists():
        return PromptResult(**read_json(path))
    folder.mkdir(parents=True, exist_ok=True)
    ids = validation.inputs["example_id"].to_list()
    budget = gepa.budget(config, len(ids))
    _check_identity(folder / "run.json", lm, rewrite, gepa, budget, config.seed, [inputs["example_id"].to_list(), ids])
    write_text("", folder / "curves.jsonl")  # replayed from the beginning, and quickly
    curves = Curves(folder / "curves.jsonl", job.on_step)
    adapter = InstructionAdapter(lm, rewrite, gepa.instruction_tokens, folder / "rollouts")
    adapter.register(inputs, score)
    adapter.register(validation.inputs, validation.score)
    found, spent, reflections = [rewrite.instruction], 0, 0
    if budget:
        talk = Remembered(reflect(lm, gepa), folder / "reflections")
        result = _run_gepa(adapter, talk, rewrite.instruction, inputs, validation.inputs, gepa, budget, config.seed)
        found = [candidate[INSTRUCTION] for candidate in result.candidates]
        spent, reflections = int(result.total_metric_calls or 0), talk.calls
    rewards = []
    for step, instruction in enumerate(found):
        rows = adapter.rows(instruction, ids)
        rewards.append(_keep_validation(rows, step, len(found) - 1, folder, curves))
    best = max(range(len(found)), key=lambda step: (rewards[step], -step))
    outcome = PromptResult(
        instruction=found[best],
        best_step=best,
        best_reward=rewards[best],
        start_reward=rewards[0],
        steps=len(found) - 1,
        stop_reason=None,
        curves=curves.path.name,
        calls=spent,
        reflections=reflections,
        reflector=gepa.reflector,
    )
    write_json({"instructions": found, "rewards": rewards}, folder / "instructions.json")
    write_json(asdict(outcome), path)
    return outcome


class _Quiet:
    """GEPA's log: what happens is in the curves and the rollouts."""

    def log(self, message: str) -> None:
        pass


def _run_gepa(
    adapter: InstructionAdapter,
    reflect: Remembered,
    instruction: str,
    inputs: pl.DataFrame,
    selection: pl.DataFrame,
    gepa: PromptEvolutionConfig,
    budget: int,
    seed: int,
) -> Any:
    try:
        from gepa import optimize
    except ImportError:
        raise InputError(
            "gepa section without the package gepa", "is not installed", "pip install 'verbalize[gepa]'"
        ) from None
    proposal = 2 * gepa.minibatch + len(selection)  # its parent and itself on the minibatch, then its judgement
    if budget < len(selection) + proposal:
        raise InputError(
            f"a budget of {budget} ranked texts",
            f"is spent before one proposal: the start needs {len(selection)}, a proposal up to {proposal}",
            "raise gepa.calls, or lower sample.selection or gepa.minibatch",
        )
    result: Any = optimize(
        seed_candidate={INSTRUCTION: instruction},
        trainset=inputs["example_id"].to_list(),
        valset=selection["example_id"].to_list(),
        adapter=adapter,
        reflection_lm=reflect,
        reflection_minibatch_size=gepa.minibatch,
        skip_perfect_score=False,
        stop_callbacks=lambda state: reflect.trouble is not None or state.total_num_evals + proposal > budget,
        logger=_Quiet(),
        seed=seed,
    )
    if reflect.trouble is not None:
        raise reflect.trouble
    return result


def _keep_validation(rows: Sequence[Mapping[str, Any]], step: int, steps: int, folder: Path, curves: Curves) -> float:
    """The table and the record that a validation of GRPO leaves; returns the mean reward."""
    table = pl.DataFrame([dict(row) for row in rows])
    write_parquet(table, folder / "validation" / f"step-{step:05d}.parquet")
    components = [name for name in table.columns if name not in ("example_id", "text", "reward")]
    means = {f"component.{name}": fmean(table[name].to_list()) for name in components}
    reward = fmean(table["reward"].to_list())
    lengths = {"text.characters": fmean(map(len, table["text"].to_list()))}
    curves.add({"kind": "validation", "step": step, "of": steps, "reward": reward, **means, **lengths})
    return reward


def _check_identity(
    path: Path,
    lm: LanguageModel,
    rewrite: RewriteConfig,
    gepa: PromptEvolutionConfig,
    budget: int,
    seed: int,
    examples: list[list[str]],
) -> None:
    """Refuse to go on in a folder that other settings began: kept evaluations would be mixed."""
    known = json.loads(
        json.dumps(
            {
                "model": lm.digest,
                "rewrite": asdict(rewrite),
                "gepa": gepa.identity,
                "budget": budget,
                "seed": seed,
                "examples": hashlib.sha256(json.dumps(examples).encode()).hexdigest(),
            }
        )
    )
    if not path.exists():
        write_json(known, path)
    elif (before := read_json(path)) != known:
        changed = ", ".join(sorted(name for name in known if before.get(name) != known[name]))
        raise InputError(
            f"evolution folder {path.parent}", f"was begun with another {changed}", "delete it to start over"
        )
