"""The report: comparisons, controls, curves and claims of a run, as a console table and one HTML file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from recsys.evaluation import (
    Comparison,
    by_history_length,
    by_popularity_tercile,
    by_target_kind,
    by_target_position,
    compare,
    summarise,
    summarise_slices,
)
from recsys.looks import LooksRegister
from recsys.storage import read_json, read_parquet, write_text
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.recipe_sections import BEST_DISPLAY, LEARNED, START
from verbalize.report.browser import example_views
from verbalize.report.claims import Claim
from verbalize.report.console import render_console
from verbalize.report.data import ReportData, Shown
from verbalize.report.html import render_html
from verbalize.report.provenance import hardware, revision, today, versions
from verbalize.report.sets import SLATES
from verbalize.report.store import FILE, save
from verbalize.stages import full_catalogue, samples
from verbalize.stages.claims import write_claims
from verbalize.stages.evaluate import SHUFFLED, arm_of
from verbalize.stages.log_files import scan_events
from verbalize.stages.notes import facts, sentences
from verbalize.stages.plan import detectable
from verbalize.stages.report_texts import text_traits
from verbalize.stages.templates import load_roles
from verbalize.verbalizers.displays import DISPLAYS

CURVES = (
    "reward",
    "component.margin",
    "component.hit",
    "groups.dead_groups",
    "groups.mixed_groups",
    "groups.distinct_texts",
    "curriculum.effective_prompts",
    "entropy",
    "kl",
    "text.characters",
    "grad_norm",
    "loss",
    "pairs.accuracy",
    "pairs.gap",
)


def run(recipe: Recipe, context: Context, command: str) -> Mapping[str, Any]:
    """Writes report.html, report.txt, report.json for exports, the claims and their artefacts."""
    decisions = read_parquet(context.inputs["evaluate"] / "decisions.parquet")
    plan = read_json(context.inputs["evaluate"] / "plan.json")
    roles = load_roles(context)
    recommender = main_recommender(decisions)
    claims = write_claims(recipe, context, roles, recommender, command)
    shown = comparisons(recipe, decisions, roles, recommender, plan, context.inputs, claims)
    texts = read_parquet(context.inputs["evaluate"] / "verbalizations.parquet")
    report = ReportData(
        title=recipe.title or recipe.name,
        subtitle=subtitle(recipe, plan, recommender),
        claims=tuple(claims),
        arms=summarise(decisions),
        tokens=dict(texts.group_by("verbalizer").agg(pl.col("tokens").mean()).iter_rows()),
        learned=frozenset({LEARNED}),
        comparisons=shown,
        curves=training_curves(recipe, context.inputs["train"]),
        slices=slices(context, recipe, decisions, roles, recommender),
        examples=browser(recipe, context, decisions, texts, roles, recommender),
        looks=tuple(LooksRegister(recipe.evaluation.register).entries()) if recipe.evaluation.split == "test" else (),
        provenance=provenance(recipe, context, command),
        notes=tuple(sentences(recipe, context, decisions, roles, recommender, claims)),
        traits=text_traits(context.inputs),
        **({"catalogue": full_catalogue.table(context)} if full_catalogue.STAGE in context.inputs else {}),
    )
    save(report, context.folder / FILE)
    write_text(render_html(report), context.folder / "report.html")
    write_text(render_console(report), context.folder / "report.txt")
    return {"comparisons": {one.label: one.verdict for one in shown}}


def main_recommender(decisions: pl.DataFrame) -> str:
    """The recommender that read the learned texts: the trained one where there are two."""
    names = decisions.filter(pl.col("verbalizer") == LEARNED)["recommender"].unique().sort().to_list()
    return str(max(names, key=len))


def comparisons(
    recipe: Recipe,
    decisions: pl.DataFrame,
    roles: Mapping[str, str],
    recommender: str,
    plan: Mapping[str, Any],
    inputs: Mapping[str, Path],
    claims: Sequence[Claim],
) -> tuple[Shown, ...]:
    """Primary claims as the ledger has them (its opaque ids draw other resamples, and two slightly different intervals
    would invite two verdicts), then the learned arm against every other of the same recommender.
    """

    def against(a: str, b: str, relative: bool = False, targets: str = "all") -> Comparison:
        first, second = (arm_of(name, roles, recommender, recipe.evaluation.baselines) for name in (a, b))
        return compare(samples.of_targets(decisions, inputs, targets), first, second, relative=relative)

    mde = plan["detectable"]["absolute"]
    primary = {
        claim.id: against(claim.a, claim.b, claim.relative, claim.targets)
        for claim in recipe.evaluation.claims
        if claim.kind == "recall"
    }
    recorded = {claim.id: claim for claim in claims}
    shown = []
    for name, one in primary.items():
        claim = recorded[name]
        one = _as_recorded(one, claim)
        shown.append(Shown(claim.statement, one, mde, claim.p_holm, survives=claim.survives))
    whole = {claim.id for claim in recipe.evaluation.claims if claim.targets == "all"}
    done = {(one.a, one.b) for name, one in primary.items() if name in whole and not one.relative}
    others = [*(roles[role] for role in recipe.roles), *recipe.evaluation.templates, *recipe.evaluation.against]
    others += [*recipe.evaluation.baselines, *([BEST_DISPLAY, START, *DISPLAYS] if BEST_DISPLAY in roles else [])]
    for name in dict.fromkeys([*others, *([SHUFFLED] if recipe.evaluation.shuffled else [])]):
        one = against(LEARNED, name)
        if (one.a, one.b) not in done:
            shown.append(Shown(f"learned − {name.replace('_', ' ')}", one, mde, primary=False))
    return tuple(shown)


def _as_recorded(comparison: Comparison, claim: Claim) -> Comparison:
    if claim.low is None or claim.high is None:
        return comparison
    return replace(comparison, low=claim.low, high=claim.high)


def training_curves(recipe: Recipe, folder: Path) -> dict[str, pl.DataFrame]:
    """One frame per seed: what was logged at each step, and the validation reward where it was measured."""
    frames = {}
    for seed in recipe.seeds:
        records = pl.read_ndjson(folder / f"seed-{seed}" / "curves.jsonl", infer_schema_length=None)
        train = records.filter(pl.col("kind") == "train").select(
            "step", *(name for name in CURVES if name in records.columns)
        )
        judged = records.filter(pl.col("kind") == "validation").select(
            "step", pl.col("reward").alias("validation reward")
        )
        frames[f"seed {seed}"] = train.join(judged, on="step", how="full", coalesce=True).sort("step")
    return frames


def slices(
    context: Context, recipe: Recipe, decisions: pl.DataFrame, roles: Mapping[str, str], recommender: str
) -> pl.DataFrame:
    """Recall@1 by target position, history length, popularity tercile and, where not all targets are discoveries, by
    what the user knew of them, for the learned arm and its chosen rivals."""
    ranked = pl.col("example_id").is_in(decisions["example_id"].unique().implode())
    examples = read_parquet(context.inputs["examples"] / "examples.parquet", where=ranked)
    chosen = [LEARNED, roles["best_template"], roles.get(BEST_DISPLAY, roles["best_constant"])]
    mine = decisions.filter(pl.col("verbalizer").is_in(chosen), pl.col("recommender") == recommender)
    events = scan_events(context.inputs["logs"])
    tables = [by_target_position(mine), by_history_length(examples), by_popularity_tercile(examples, events)]
    if not recipe.examples.discovery_only:
        tables.append(by_target_kind(examples, events))
    return summarise_slices(mine, tables, resamples=1000)


def browser(
    recipe: Recipe,
    context: Context,
    decisions: pl.DataFrame,
    texts: pl.DataFrame,
    roles: Mapping[str, str],
    recommender: str,
) -> tuple[Any, ...]:
    """The same users' texts under each arm; empty where the recipe says that examples may not leave the machine."""
    if not recipe.evaluation.example_browser:
        return ()
    examples = read_parquet(context.inputs["examples"] / "examples.parquet")
    items = read_parquet(context.inputs["logs"] / "items.parquet")
    mine = decisions.filter(pl.col("recommender") == recommender, pl.col("verbalizer") != SHUFFLED)
    return example_views(
        examples, dict(items.select("item_id", "title").iter_rows()), texts, mine, recipe.evaluation.example_browser
    )


def subtitle(recipe: Recipe, plan: Mapping[str, Any], recommender: str) -> str:
    """Split, size, slates and what could be seen."""
    slate = recipe.examples.slate
    return (
        f"{plan['split']} split, {plan['n']:,} rankings of {plan['users']:,} users "
        f"(effective about {plan['n_effective']:,.0f}), "
        f"{slate.policy} slates of {slate.size}, recommender {recommender}; {detectable(plan)}, "
        "stated before the split was read"
    )


def provenance(recipe: Recipe, context: Context, command: str) -> dict[str, str]:
    """Command, code, machine, data, and the identity of every stage."""
    found = {
        "command": command,
        "revision": revision(),
        "date": today(),
        "hardware": hardware(),
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
        "data": f"{recipe.source.path or recipe.source.kind} ({recipe.licence})",
    }
    for stage in ("logs", "examples"):
        found[f"{stage}, counted"] = ", ".join(f"{name} {count:,}" for name, count in facts(context, stage).items())
    found[SLATES] = facts(context, "evaluate")["audits"]["slates_sha256"]
    return found | {f"stage {name}": folder.name for name, folder in context.inputs.items()}
