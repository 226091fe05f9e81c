"""Prompt evolution by GEPA: the instruction of the rewriter evolves, its weights stay as they are.

The package proposes, accepts and keeps the Pareto front; here is what it asks for: an adapter that writes texts under
an instruction and has the recommender reward them, and a reflection model. Every evaluation and every reflection is
kept on disk by content, and GEPA itself starts from its seed each time: a killed run replays what it had and goes on,
to the instruction of the uninterrupted run.

Deviations from GEPA's defaults: feedback names rewards and ranks, never the target, which an instruction could learn by
heart; scores have no perfect value; the run ends while a whole proposal still fits its budget, so no arm ranks more
texts than it was allowed.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl

from recsys.errors import InputError
from recsys.models.loading import LanguageModel
from recsys.storage import read_json, write_json, write_parquet, write_text
from verbalize.optimize.curves import Curves
from verbalize.optimize.prompt_settings import PromptEvolutionConfig
from verbalize.optimize.scoring import ScoreFunction
from verbalize.optimize.training import Job
from verbalize.verbalizers.rewrite import RewriteConfig, RewriteVerbalizer, rewrite_messages

INSTRUCTION = "instruction"
UNUSABLE = -1e6
"""Score of an instruction that cannot be used: below any reward, and finite, as GEPA needs."""

Reflect = Callable[[str], str]
"""A reflection prompt -> the model's answer."""


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


class InstructionAdapter:
    """GEPA's view of the rewriter: a batch of example ids and an instruction -> texts and rewards.

    Each evaluation is a file of one line per text, as a generation of GRPO leaves it.
    """

    propose_new_texts: Any = None  # GEPA's own proposal prompt serves

    def __init__(self, lm: LanguageModel, rewrite: RewriteConfig, instruction_tokens: int, folder: Path) -> None:
        self.lm, self.rewrite, self.limit, self.folder = lm, rewrite, instruction_tokens, folder
        self._examples: dict[str, tuple[pl.DataFrame, ScoreFunction]] = {}

    def register(self, inputs: pl.DataFrame, score: ScoreFunction) -> None:
        """Make examples known, with what rewards their texts."""
        for row, example_id in enumerate(inputs["example_id"]):
            self._examples[example_id] = (inputs[row], score)

    def usable(self, instruction: str) -> bool:
        """Not blank, and short enough."""
        return bool(instruction.strip()) and len(self.lm.tokenizer.encode(instruction)) <= self.limit

    def rows(self, instruction: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """example_id, text, reward and the reward's components of every example, kept on disk by content."""
        path = self.folder / f"{_key(instruction, list(ids))}.jsonl"
        if not path.exists():
            rows = self._evaluate(instruction, ids)
            write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), path)
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def _evaluate(self, instruction: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        inputs = pl.concat([self._examples[key][0] for key in ids])
        texts = RewriteVerbalizer(self.lm, replace(self.rewrite, instruction=instruction)).verbalize(inputs)
        score = self._examples[ids[0]][1]  # a batch is of one kind: training or selection
        return [
            {"example_id": key, "text": text, "reward": scored.reward, **scored.components}
            for key, text, scored in zip(ids, texts, score(ids, texts), strict=True)
        ]

    def evaluate(self, batch: list[str], candidate: Mapping[str, str], capture_traces: bool = False) -> Any:
        """As `gepa.GEPAAdapter.evaluate`; a data instance is an example id."""
        from gepa import EvaluationBatch

        instruction = candidate[INSTRUCTION]
        if not self.usable(instruction):
            rows: list[dict[str, Any]] = [{"example_id": key, "text": "", "reward": UNUSABLE} for key in batch]
        else:
            rows = self.rows(instruction, batch)
        return EvaluationBatch(
            outputs=rows, scores=[row["reward"] for row in rows], trajectories=rows if capture_traces else None
        )

    def make_reflective_dataset(
        self, candidate: Mapping[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> dict[str, list[dict[str, Any]]]:
        """As `gepa.GEPAAdapter.make_reflective_dataset`: log, profile, and how it served."""
        bare = replace(self.rewrite, instruction="")
        records = []
        for row in eval_batch.trajectories:
            log = rewrite_messages(self._examples[row["example_id"]][0], bare)[0][-1]["content"].strip()
            records.append({"Inputs": {"log": log}, "Generated Outputs": row["text"], "Feedback": feedback(row)})
        return dict.fromkeys(components_to_update, records)


def feedback(row: Mapping[str, Any]) -> str:
    """How a text served the recommender, in words; never what the target was."""
    if "reciprocal_rank" not in row:
        return "The instruction was empty or too long; nothing was written."
    return (
        f"Reward {row['reward']:.3f} (higher is better). From this profile the recommender placed the film that the "
        f"viewer went on to enjoy first among the candidates in {row['hit']:.0%} of the slates, mean reciprocal rank "
        f"{row['reciprocal_rank']:.2f}. The profile has {row['compression']:.0%} of the log's length; "
        f"{row['faithful']:.0%} of its claims hold in the log."
    )


class Remembered:
    """A reflection model whose answers are kept on disk by the prompt's hash: a replay asks nothing twice.

    `trouble` is what kept it from answering: GEPA would log that and go on spending without a single proposal.
    """

    def __init__(self, reflect: Reflect, folder: Path) -> None:
        self.reflect, self.folder, self.calls = reflect, folder, 0
        self.trouble: Exception | None = None

    def __call__(self, prompt: str | list[dict[str, Any]]) -> str:
        """GEPA's language-model protocol; prompts without images are plain text."""
        self.calls += 1
        text = prompt if isinstance(prompt, str) else json.dumps(prompt)
        path = self.folder / f"{_key(text, [])}.json"
        if not path.exists():
            try:
                answer = self.reflect(text)
            except Exception as error:
                self.trouble = error
                raise
            write_json({"answer": answer}, path)
        return str(read_json(path)["answer"])


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


def _key(text: str, ids: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps([text, list(ids)]).encode()).hexdigest()[:24]
