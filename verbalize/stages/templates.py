"""Templates, constant policies and scripted action sequences on the selection examples: which are best is decided here,
before anything is compared."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from recsys.evaluation import decide_in_chunks, summarise
from recsys.storage import read_json, write_json, write_parquet
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.recipe_sections import BEST_SCRIPTED
from verbalize.stages import samples
from verbalize.stages.recommender import open_recommender, own_facts
from verbalize.verbalizers.action_pool import ScriptedActionVerbalizer
from verbalize.verbalizers.base import Verbalizer, verbalizer_inputs
from verbalize.verbalizers.templates import TEMPLATES, TemplateVerbalizer, templates_within

METRIC = "mrr"
"""What chooses: denser than Recall@1, so that a small validation sample picks less by luck."""


def scripted(name: str, recipe: Recipe) -> Verbalizer:
    """A template, a constant policy or a candidate of the pool by name."""
    if name in TEMPLATES:
        return TemplateVerbalizer(name)
    return ScriptedActionVerbalizer(name, recipe.policy.actions, recipe.examples.seed)


def run(recipe: Recipe, context: Context) -> Mapping[str, Any]:
    """Writes decisions.parquet (all of them on the selection examples, M slates) and roles.json."""
    recommender = open_recommender(recipe, context.inputs)
    examples, _ = samples.validation_samples(recipe, context.inputs["examples"])
    slates = samples.load_slates(context.inputs["examples"], examples)
    names = list(dict.fromkeys([*recipe.templates, *recipe.constants, *recipe.scripted]))
    parts = []
    for number, name in enumerate(names):
        texts = scripted(name, recipe).verbalize(verbalizer_inputs(examples))
        parts.append(
            decide_in_chunks(
                recommender,
                examples,
                texts,
                verbalizer=name,
                slates=slates,
                chunk_size=32,
                folder=context.folder / "parts" / name,
            )
        )
        context.progress.step("templates", number + 1, len(names), name)
    decisions = pl.concat(parts)
    write_parquet(decisions, context.folder / "decisions.parquet")
    scores = {
        row["verbalizer"]: row["value"] for row in summarise(decisions, [METRIC], resamples=200).iter_rows(named=True)
    }
    roles = choose_roles(recipe, scores)
    write_json(roles, context.folder / "roles.json")
    return {
        "examples": len(examples),
        "users": examples["user_id"].n_unique(),
        METRIC: scores,
        "roles": roles,
        **own_facts(recommender),
    }


def choose_roles(recipe: Recipe, scores: Mapping[str, float]) -> dict[str, str]:
    """Role -> name of the best scoring candidate; ties go to the first listed."""
    same_fields = [name for name in recipe.templates if name in templates_within(recipe.policy.actions.fields)]
    pools = {
        "best_template": list(recipe.templates),
        "best_template_same_fields": same_fields or list(recipe.templates),
        "best_constant": list(recipe.constants),
        BEST_SCRIPTED: list(recipe.scripted),
    }
    return {role: max(pools[role], key=lambda name: scores[name]) for role in recipe.roles}


def load_roles(context: Context) -> dict[str, str]:
    """The roles a templates stage chose, and a pool of displays, where there is one."""
    stages = [context.inputs[name] / "roles.json" for name in ("templates", "pool") if name in context.inputs]
    return {role: name for path in stages if path.exists() for role, name in read_json(path).items()}
