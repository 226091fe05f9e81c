"""What a report says in sentences: what was chosen when, the controls of the learned arm, and the limits of the run."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from recsys.evaluation import best_against_all, surviving_gain
from recsys.storage import read_json, read_parquet
from verbalize.optimize.pooling import own_share, reward_table
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.recipe_sections import LEARNED
from verbalize.report.claims import Claim
from verbalize.stages import displays, full_catalogue, oracle, policy_controls
from verbalize.stages.evaluate import SHUFFLED
from verbalize.stages.pool import REWARDS
from verbalize.stages.templates import METRIC


def sentences(
    recipe: Recipe,
    context: Context,
    decisions: pl.DataFrame,
    roles: Mapping[str, str],
    recommender: str,
    claims: Sequence[Claim] = (),
) -> list[str]:
    """The notes of a report, in reading order. `claims`: what the run just entered into its ledger."""
    best = (roles["best_template"], recommender)
    found = [choices(roles), templates(recipe, context, best)]
    if recipe.evaluation.shuffled:
        found.append(shuffled(decisions, recommender, best))
    found += policy_controls.sentences(facts(context, "evaluate")) + displays.sentences(facts(context, "evaluate"))
    found += [headroom(context, pool_claim(recipe, claims)), luck(context), audited(context), *stops(context)]
    found += [remembered(recipe, context), transferred(recipe), full_catalogue.sentence(recipe, context)]
    if "oracle" in context.inputs:
        found += oracle.sentences(context.inputs, recommender, best[0])
    if recipe.examples.discovery_only:
        found.append("Every target is a discovery: the user had not touched the item before.")
    return [sentence for sentence in found if sentence]


def choices(roles: Mapping[str, str]) -> str:
    """Who plays which role."""
    named = ", ".join(f"{role} = {name}" for role, name in roles.items())
    return f"Chosen on validation, before the evaluation split was read: {named}."


def templates(recipe: Recipe, context: Context, best: tuple[str, str]) -> str:
    """The best template against all others, on the data that chose it."""
    others = [(name, best[1]) for name in recipe.templates if name != best[0]]
    if not others:
        return ""
    judged = read_parquet(context.inputs["templates"] / "decisions.parquet")
    spread = best_against_all(judged, best, others, METRIC, resamples=2000)
    against = "; ".join(
        f"{row['verbalizer']} {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        for row in spread.iter_rows(named=True)
    )
    return f"{best[0]} against the other templates on validation ({METRIC}, simultaneous 95% intervals): {against}."


def shuffled(decisions: pl.DataFrame, recommender: str, best: tuple[str, str]) -> str:
    """How much of the gain is left when texts change owners."""
    left = surviving_gain(decisions, (LEARNED, recommender), (SHUFFLED, recommender), best)
    gain = f"Shuffled texts: the learned arm's gain over {best[0]} is {left.gain:+.3f}"
    if left.gain <= 0:
        return f"{gain}, so there is none to survive."
    verdict = " (more than half: the claim fails)" if left.fails else ""
    share = f"{left.share:.0%}" if left.share > 0 else "none"
    return f"{gain}; with texts handed to other users {share} of it survives{verdict}."


def pool_claim(recipe: Recipe, claims: Sequence[Claim]) -> Claim | None:
    """The measured claim of the pool's headroom, where the recipe lists one."""
    listed = {claim.id for claim in recipe.evaluation.claims if claim.kind == "pool_headroom"}
    return next((claim for claim in claims if claim.id in listed and claim.value is not None), None)


def headroom(context: Context, claim: Claim | None) -> str:
    """What an ideal choice among the pool's candidates could gain; the claim's number where there is one: its opaque
    ids halve users at other places, and two numbers for one thing would be one too many.
    """
    if "pool" not in context.inputs:
        return ""
    room = facts(context, "pool")["headroom_recall_at_1"]
    if room is None:
        return "Headroom of the pool: not measurable, fewer than two training users have two examples."
    ends = room if claim is None else {name: getattr(claim, name) for name in ("value", "low", "high")}
    return (
        f"Headroom of the pool on training users, cross-fitted: Recall@1 {ends['value']:+.3f} "
        f"[{ends['low']:+.3f}, {ends['high']:+.3f}] over the best constant choice ({room['constant']:.3f}); "
        f"an oracle that sees the outcome would reach {room['naive_example_oracle']:.3f}."
    )


def luck(context: Context) -> str:
    """How much of what suits one target of a user suits the user's others, by the reward."""
    if "pool" not in context.inputs:
        return ""
    pool = read_parquet(context.inputs["pool"] / REWARDS)
    users = read_parquet(context.inputs["pool"] / "decisions.parquet").select("example_id", "user_id").unique()
    examples = pool.select("example_id").unique(maintain_order=True)
    owners = examples.join(users, on="example_id", how="left", maintain_order="left")["user_id"]
    share = own_share(reward_table(pool)[1], owners.to_numpy())
    return (
        f"Of the candidates' rewards for one target, beyond what holds for all users, {share:.0%} returns with another "
        "target of the same user; the rest is luck."
    )


def audited(context: Context) -> str:
    """Accidental favourites among the negatives, and what learned texts say that they should not."""
    audit = facts(context, "evaluate")["audits"]
    found = audit["accidental_favourites"]
    learned = [row for name, row in audit["texts"].items() if name.startswith(f"{LEARNED}@")]
    faithful, mentions = (min(row["faithful"] for row in learned), max(row["mentions_target"] for row in learned))
    return (
        f"Of {found['negatives']:,} negatives the users came to like {found['negatives_engaged_later']:,} later; "
        "they stay where they are. "
        f"Learned texts: {faithful:.0%} of asserted titles are in the history, {mentions:.1%} name the target."
    )


def stops(context: Context) -> list[str]:
    """Seeds that a configured limit ended early, and why."""
    seeds = facts(context, "train")["seeds"]
    return [f"Seed {seed} stopped early: {one['stop_reason']}" for seed, one in seeds.items() if one["stop_reason"]]


def remembered(recipe: Recipe, context: Context) -> str:
    """What experience there was, and how often any was shown."""
    if recipe.experience is None:
        return ""
    built, shown = facts(context, "experience"), facts(context, "evaluate")
    when = "at test only" if recipe.experience.use == "test" else "in training and at test"
    return (
        f"Experience, {when}: {sum(built['lessons'].values()):,} lessons from {built['examples']:,} training examples; "
        f"{shown['prompts_with_memory']:,} of {shown['examples']:,} evaluated prompts showed any."
    )


def transferred(recipe: Recipe) -> str:
    """Whose work was evaluated."""
    if recipe.transfer_from is None:
        return ""
    run = recipe.transfer_from.rstrip("/").rpartition("/")[2]
    return (
        f"Nothing was trained here: recommender, policies, experience and choice of templates are those of run {run}."
    )


def facts(context: Context, stage: str) -> Any:
    """What a finished stage recorded of itself."""
    return read_json(context.inputs[stage] / "done.json")["facts"]
