"""What an evaluation states before it looks: n, effective n, the smallest detectable difference; and the look."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import polars as pl

from recsys.evaluation import outcomes
from recsys.looks import LooksRegister
from recsys.significance import DetectableEffect, intraclass_correlation, minimum_detectable_effect
from recsys.storage import read_parquet
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.report.provenance import revision
from verbalize.stages.templates import load_roles


def plan_of(recipe: Recipe, context: Context, examples: pl.DataFrame) -> dict[str, Any]:
    """n, effective n and the smallest detectable difference, from validation alone: known before test is opened."""
    decided = read_parquet(context.inputs["templates"] / "decisions.parquet")
    roles = load_roles(context)
    best, other = roles["best_template"], roles["best_constant"]
    # One slate per example, as in the test; the second arm only supplies how often two arms disagree.
    single = outcomes(decided.filter(pl.col("slate_index") == 0), "recall@1")
    first = single.filter(pl.col("verbalizer") == best)
    rho = max(0.0, intraclass_correlation(first["value"].to_numpy(), first["user_id"].to_numpy()))
    per_user = examples.group_by("user_id").len()["len"]
    n_effective = float((per_user / (1 + (per_user - 1) * rho)).sum())
    names = [name for name in recipe.templates if name != best]
    reference = other if other != best else names[0] if names else best
    pair = first.join(single.filter(pl.col("verbalizer") == reference), on="example_id")
    discordance = float(((pair["value"] - pair["value_right"]) ** 2).mean()) or 0.1  # type: ignore[arg-type, operator]
    accuracy = float(first["value"].mean())  # type: ignore[arg-type]
    effect: DetectableEffect = minimum_detectable_effect(n_effective, accuracy, discordance)
    return {
        "split": recipe.evaluation.split,
        "n": len(examples),
        "users": len(per_user),
        "n_effective": n_effective,
        "intraclass_correlation": rho,
        "detectable": {name: value if math.isfinite(value) else None for name, value in asdict(effect).items()},
        "claims": [claim.id for claim in recipe.evaluation.claims],
    }


def detectable(plan: Mapping[str, Any]) -> str:
    """The smallest difference that could be seen, in words; so few rankings may leave none."""
    smallest = plan["detectable"]["absolute"]
    size = "no difference of Recall@1 is detectable" if smallest is None else f"detectable from {smallest:.3f} Recall@1"
    return f"{size} (80% power)"


def open_test(recipe: Recipe, context: Context, plan: Mapping[str, Any]) -> None:
    """Register the look of every claim; the report shows a second one."""
    register = LooksRegister(recipe.evaluation.register)
    for claim in recipe.evaluation.claims:
        register.open(
            claim.id,
            digest=context.folder.name,
            arms=[claim.a, claim.b],
            n=plan["n"],
            n_effective=plan["n_effective"],
            mde=plan["detectable"]["absolute"],
            revision=revision(),
        )
