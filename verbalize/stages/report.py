"""The report: comparisons, controls, curves and claims of a run, as a console table and one HTML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recsys.comparison import best_against_all
from recsys.evaluation import (
    Comparison,
    by_history_length,
    by_popularity_tercile,
    by_target_position,
    compare,
    summarise,
    summarise_slices,
    surviving_gain,
)
from recsys.looks import LooksRegister
from recsys.significance import holm
from recsys.storage import read_json, read_parquet, write_text
from verbalize.pipeline import Context
from verbalize.recipe import LEARNED, ROLES, Recipe
from verbalize.report.console import render_console
from verbalize.report.data import ReportData, Shown, example_views
from verbalize.report.html import render_html
from verbalize.report.provenance import hardware, revision, today, versions
from verbalize.stages import data
from verbalize.stages.claims import write_claims
from verbalize.stages.evaluate import SHUFFLED, arm_of
from verbalize.stages.templates import load_roles

CURVES = ("reward", "component.margin", "component.hit", "dead_groups", "mixed_groups", "distinct_texts", "entropy", "kl", "grad_norm")


def run(recipe: Recipe, context: Context, command: str) -> Mapping[str, Any]:
    """Writes report.html, report.txt, the claims and their artefacts."""
    decisions = read_parquet(context.inputs["evaluate"] / "decisions.parquet")
    plan = read_json(context.inputs["evaluate"] / "plan.json")
    roles = load_roles(context)
    recommender = main_recommender(decisions)
    claims = write_claims(recipe, context, roles, recommender, command)
    shown = comparisons(recipe, decisions, roles, recommender, plan)
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
        notes=tuple(notes(recipe, context, decisions, roles, recommender)),
    )
    write_text(render_html(report), context.folder / "report.html")
    write_text(render_console(report), context.folder / "report.txt")
    return {"comparisons": {one.label: one.verdict for one in shown}}


def main_recommender(decisions: pl.DataFrame) -> str:
    """The recommender that read the learned texts: the trained one where there are two."""
    names = decisions.filter(pl.col("verbalizer") == LEARNED)["recommender"].unique().sort().to_list()
    return str(max(names, key=len))


def comparisons(recipe: Recipe, decisions: pl.DataFrame, roles: Mapping[str, str], recommender: str, plan: Mapping[str, Any]) -> tuple[Shown, ...]:
    """Primary claims with Holm-adjusted p-values, then the learned arm against every other arm of the same recommender."""
    def against(a: str, b: str, relative: bool = False) -> Comparison:
        pair = [arm_of(name, roles, recommender, recipe.evaluation.baselines) for name in (a, b)]
        return compare(decisions, *pair, relative=relative)

    mde = plan["detectable"]["absolute"]
    primary = {claim.id: against(claim.a, claim.b, claim.relative) for claim in recipe.evaluation.claims if claim.kind == "recall"}
    adjusted = holm({name: one.p for name, one in primary.items()}) if primary else {}
    statements = {claim.id: claim.statement for claim in recipe.evaluation.claims}
    shown = [Shown(statements[name], one, mde, adjusted[name]) for name, one in primary.items()]
    done = {(one.a, one.b) for one in primary.values() if not one.relative}
    others = [*(roles[role] for role in ROLES), *recipe.evaluation.templates, *recipe.evaluation.baselines]
    for name in dict.fromkeys([*others, *([SHUFFLED] if recipe.evaluation.shuffled else [])]):
        one = against(LEARNED, name)
        if (one.a, one.b) not in done:
            shown.append(Shown(f"learned − {name.replace('_', ' ')}", one, mde, primary=False))
    return tuple(shown)


def training_curves(recipe: Recipe, folder: Path) -> dict[str, pl.DataFrame]:
    """One frame per seed: what was logged at each step, and the validation reward where it was measured."""
    frames = {}
    for seed in recipe.seeds:
        records = pl.read_ndjson(folder / f"seed-{seed}" / "curves.jsonl", infer_schema_length=None)
        train = records.filter(pl.col("kind") == "train").select("step", *(name for name in CURVES if name in records.columns))
        judged = records.filter(pl.col("kind") == "validation").select("step", pl.col("reward").alias("validation reward"))
        frames[f"seed {seed}"] = train.join(judged, on="step", how="full", coalesce=True).sort("step")
    return frames


def slices(context: Context, recipe: Recipe, decisions: pl.DataFrame, roles: Mapping[str, str], recommender: str) -> pl.DataFrame:
    """Recall@1 by target position, history length and popularity tercile, for the learned arm and what it is compared with."""
    examples = pl.concat([read_parquet(context.inputs["examples"] / "examples.parquet")])
    examples = examples.filter(pl.col("example_id").is_in(decisions["example_id"].unique().implode()))
    chosen = [LEARNED, roles["best_template"], roles["best_constant"]]
    mine = decisions.filter(pl.col("verbalizer").is_in(chosen), pl.col("recommender") == recommender)
    events = data.load_log(context.inputs["logs"]).events
    tables = [by_target_position(mine), by_history_length(examples), by_popularity_tercile(examples, events)]
    return summarise_slices(mine, tables, resamples=1000)


def browser(recipe: Recipe, context: Context, decisions: pl.DataFrame, texts: pl.DataFrame, roles: Mapping[str, str],
            recommender: str) -> tuple[Any, ...]:
    """The same users' texts under each arm; empty where the recipe says that examples may not leave the machine."""
    if not recipe.evaluation.example_browser:
        return ()
    examples = read_parquet(context.inputs["examples"] / "examples.parquet")
    items = read_parquet(context.inputs["logs"] / "items.parquet")
    mine = decisions.filter(pl.col("recommender") == recommender, pl.col("verbalizer") != SHUFFLED)
    return example_views(examples, dict(items.select("item_id", "title").iter_rows()), texts, mine, recipe.evaluation.example_browser)


def notes(recipe: Recipe, context: Context, decisions: pl.DataFrame, roles: Mapping[str, str], recommender: str) -> Sequence[str]:
    """Controls, choices and limits, in sentences."""
    lines = [f"Chosen on validation, before the evaluation split was read: {', '.join(f'{role} = {name}' for role, name in roles.items())}."]
    judged = read_parquet(context.inputs["templates"] / "decisions.parquet")
    best = (roles["best_template"], recommender)
    others = [(name, recommender) for name in recipe.templates if name != best[0]]
    if others:
        spread = best_against_all(judged, best, others, "mrr", resamples=2000)
        lines.append("Best template against all on validation (MRR, simultaneous 95% intervals): " + "; ".join(
            f"{row['verbalizer']} {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]" for row in spread.iter_rows(named=True)) + ".")
    if recipe.evaluation.shuffled:
        left = surviving_gain(decisions, (LEARNED, recommender), (SHUFFLED, recommender), best)
        share = f"{left.share:.0%} of it survives" if left.gain > 0 else "there is none to survive"
        lines.append(f"Shuffled texts: the learned arm's gain over the best template is {left.gain:+.3f}; with texts handed to other "
                     f"users {share}{' (more than half: the claim fails)' if left.gain > 0 and left.fails else ''}.")
    distinct = read_json(context.inputs["evaluate"] / "done.json")["facts"]["distinct_texts"]
    lines.append("Distinct texts among the learned arm's: " + ", ".join(f"seed {seed} {share:.0%}" for seed, share in distinct.items()) + ".")
    if "pool" in context.inputs:
        room = read_json(context.inputs["pool"] / "done.json")["facts"]["headroom_recall_at_1"]
        lines.append("Headroom of the pool: not measurable, fewer than two training users have two examples." if room is None else
                     f"Headroom of the pool on training users, cross-fitted: {room['value']:+.3f} [{room['low']:+.3f}, {room['high']:+.3f}] over its "
                     f"best constant choice ({room['constant']:.3f}); an oracle that sees the outcome would reach {room['naive_example_oracle']:.3f}.")
    stops = {seed: one["stop_reason"] for seed, one in read_json(context.inputs["train"] / "done.json")["facts"]["seeds"].items()}
    lines += [f"Seed {seed} stopped early: {reason}" for seed, reason in stops.items() if reason]
    if recipe.examples.discovery_only:
        lines.append("Every target is a discovery: the user had not touched the item before.")
    return lines


def subtitle(recipe: Recipe, plan: Mapping[str, Any], recommender: str) -> str:
    """Split, size, slates and what could be seen."""
    slate = recipe.examples.slate
    return (f"{plan['split']} split, {plan['n']:,} rankings of {plan['users']:,} users (effective about {plan['n_effective']:,.0f}), "
            f"{slate.policy} slates of {slate.size}, recommender {recommender}; smallest detectable difference of Recall@1 "
            f"{plan['detectable']['absolute']:.3f} (80% power), stated before the split was read")


def provenance(recipe: Recipe, context: Context, command: str) -> dict[str, str]:
    """Command, code, machine, data, and the identity of every stage."""
    found = {"command": command, "revision": revision(), "date": today(), "hardware": hardware(),
             "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
             "data": f"{recipe.source.path} ({recipe.licence})"}
    return found | {f"stage {name}": folder.name for name, folder in context.inputs.items()}
