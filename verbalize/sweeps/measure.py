"""One configuration's number: run the stages it needs, then read the metric on the validation users who select.

The stages lie in the store that all runs share, so trials compute logs, examples, scores and whatever else they have in
common once. Report users take no part: what they say of the chosen configuration afterwards is still fair.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from recsys.evaluation import decide, outcomes
from recsys.storage import read_json, read_parquet
from verbalize.pipeline import DONE, Progress, run_stages
from verbalize.recipe import Recipe
from verbalize.recipe_sections import BASELINES, LEARNED
from verbalize.stages import baselines, samples, stages_of
from verbalize.stages.templates import scripted
from verbalize.sweeps.settings import ObjectiveConfig
from verbalize.verbalizers.actions import ALPHABET
from verbalize.verbalizers.base import verbalizer_inputs

LEARNED_METRICS = {"recall@1": "hit", "mrr": "reciprocal_rank"}
"""Metrics that training records on the selection examples -> its names for them."""
DECISIONS = ("example_id", "user_id", "value")


@dataclass(frozen=True)
class Measured:
    """A configuration on the selection examples. `outcomes`: example_id, user_id, value of the metric (over seeds and
    slates). `tokens`: mean per text; 0 where an arm reads no text. `seconds`: of all stages it needs, when they were
    carried out, and of what was done here. `rankings`: slates read here, outside of any stage.
    """

    value: float
    outcomes: pl.DataFrame
    tokens: float
    seconds: float
    rankings: int = 0

    def values(self, objective: ObjectiveConfig) -> list[float]:
        """What the optimizer is told: the metric, then the costs asked for."""
        return [self.value, *(float(getattr(self, cost)) for cost in objective.costs)]


def known_arms(recipe: Recipe) -> list[str]:
    """What an objective may name."""
    listed = (*recipe.templates, *recipe.constants, *recipe.scripted)
    return list(dict.fromkeys([LEARNED, *recipe.roles, *listed, *BASELINES]))


def last_stage(arm: str) -> str:
    """The last stage that an arm's number on the selection examples needs."""
    return "train" if arm == LEARNED else "examples" if arm in BASELINES else "templates"


def prepare(recipe: Recipe, arm: str, store: Path, command: str, progress: Progress | None = None) -> dict[str, Path]:
    """Run what is not up to date of the stages the arm needs. Returns stage name -> folder."""
    return run_stages(stages_of(recipe, command), store, progress, last_stage(arm))


def measure(recipe: Recipe, arm: str, metric: str, folders: Mapping[str, Path], with_tokens: bool = False) -> Measured:
    """The arm's number on the selection examples; `folders` as `prepare` returns them.

    Tokens only where asked for: they need the recommender's tokenizer.
    """
    began = time.monotonic()
    past = sum(read_json(folder / DONE)["seconds"] for folder in folders.values())
    rankings, texts = 0, None
    if arm in BASELINES:
        examples, _ = samples.validation_samples(recipe, folders["examples"])
        fitted, slates = (
            fit_baseline(recipe, arm, folders, "validation"),
            samples.load_slates(folders["examples"], examples),
        )
        decided = decide(fitted, examples, [""] * len(examples), verbalizer=baselines.VERBALIZER, slates=slates)
        table, rankings = outcomes(decided, metric).select(DECISIONS), len(decided)
    elif arm == LEARNED:
        table, texts = _learned(recipe, LEARNED_METRICS[metric], folders)
    else:
        name = str(read_json(folders["templates"] / "roles.json").get(arm, arm))
        decided = read_parquet(folders["templates"] / "decisions.parquet").filter(pl.col("verbalizer") == name)
        table = outcomes(decided, metric).select(DECISIONS)
        if with_tokens:
            examples, _ = samples.validation_samples(recipe, folders["examples"])
            texts = scripted(name, recipe).verbalize(verbalizer_inputs(examples))
    tokens = _mean_tokens(recipe, texts) if with_tokens and texts is not None else 0.0
    value = float(table["value"].mean())  # type: ignore[arg-type]
    return Measured(value, table, tokens, past + time.monotonic() - began, rankings)


def fit_baseline(recipe: Recipe, arm: str, folders: Mapping[str, Path], split: str) -> Any:
    """The one baseline `arm`, fitted strictly before `split` begins."""
    alone = replace(recipe, evaluation=replace(recipe.evaluation, baselines=(arm,), claims=(), split="validation"))
    return next(baselines.fitted(alone, folders, split))


def _learned(recipe: Recipe, component: str, folders: Mapping[str, Path]) -> tuple[pl.DataFrame, list[str]]:
    """What training recorded at each seed's best step: outcomes averaged over seeds, and all texts."""
    examples, _ = samples.validation_samples(recipe, folders["examples"])
    parts = []
    for seed in recipe.seeds:
        folder = folders["train"] / f"seed-{seed}"
        best = read_json(folder / "result.json")["best_step"]
        parts.append(read_parquet(folder / "validation" / f"step-{best:05d}.parquet"))
    rows = pl.concat(parts)
    table = rows.group_by("example_id").agg(pl.col(component).mean().alias("value"))
    joined = examples.select("example_id", "user_id").join(table, on="example_id")
    return joined.select(DECISIONS).sort("example_id"), rows["text"].to_list()


def _mean_tokens(recipe: Recipe, texts: list[str]) -> float:
    from recsys.models.loading import load_tokenizer
    from verbalize.verbalizers.compression import token_counts

    return float(token_counts(texts, load_tokenizer(recipe.recommender.model)).mean())


def recommender_calls(recipe: Recipe, ran: Mapping[str, float], folders: Mapping[str, Path]) -> int:
    """Texts read against a slate in the stages that ran here (name -> share carried out, 1 for a whole stage).

    Counted as asked for: texts that coincide are read once, so what was really computed is at most this.
    """
    slates, facts = recipe.reward.slates, {}
    for name, folder in folders.items():
        facts[name] = read_json(folder / DONE)["facts"] if (folder / DONE).exists() else {}
    selection = facts.get("templates", {}).get("examples", recipe.sample.selection)
    train = recipe.train
    rollouts = train.steps // train.iterations * train.prompts_per_step * train.group_size
    judged = (train.steps // train.eval_every + 1) * selection
    whole = {
        "recommender": facts.get("recommender", {}).get("training_examples", 0),
        "templates": len({*recipe.templates, *recipe.constants, *recipe.scripted}) * selection * slates,
        "pool": facts.get("pool", {}).get("examples", 0) * len(facts.get("pool", {}).get("candidates", [])) * slates,
        "effects": facts.get("effects", {}).get("events", 0) * len(ALPHABET) * slates,
        "train": len(recipe.seeds) * (rollouts + judged) * slates,
    }
    return round(sum(whole.get(name, 0) * share for name, share in ran.items()))
