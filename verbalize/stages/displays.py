"""What candidates show, as the treatment: every display is ranked once, and arms that choose among displays look up.

Text, items and order of every slate are the same under all displays; the rendering alone differs. So one ranking per
display and example holds all there is to know: the pool's rewards, what rollouts are paid, and every display arm.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recsys.evaluation import decide_in_chunks, shuffle_texts_between_users, summarise
from recsys.storage import read_parquet, write_json, write_parquet
from verbalize.optimize.rewards import Scored
from verbalize.optimize.scoring import KnownScores
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.recipe_sections import BEST_DISPLAY, LEARNED, SHUFFLED, START
from verbalize.stages import samples
from verbalize.stages.pool import REWARDS, candidate_scores, headroom, rewarded, traits_of
from verbalize.stages.recommender import open_recommender, own_facts
from verbalize.stages.templates import METRIC, load_roles
from verbalize.verbalizers.base import verbalizer_inputs
from verbalize.verbalizers.displays import DISPLAYS
from verbalize.verbalizers.templates import TemplateVerbalizer

Shown = dict[tuple[str, int], list[str]]
"""(arm, training seed) -> the display of every example."""
SCORES = "scores.parquet"
CHOSEN = "displays.parquet"


def pool_config(recipe: Recipe) -> dict[str, Any]:
    """What a pool of displays depends on besides what any pool does."""
    return {"displays": list(DISPLAYS), "template": recipe.policy.display.template}


def run_pool(recipe: Recipe, context: Context) -> Mapping[str, Any]:
    """Every display on training and selection examples, M slates: decisions.parquet and rewards.parquet (training), as
    any pool; scores.parquet (both), which training looks its rewards up in; roles.json, the best display for all.
    """
    recommenders = open_displays(recipe, context.inputs)
    training = samples.training_sample(recipe, context.inputs["examples"])
    selection, _ = samples.validation_samples(recipe, context.inputs["examples"])
    decided, scores = {}, []
    for name, examples in (("training", training), ("selection", selection)):
        slates = samples.load_slates(context.inputs["examples"], examples)
        folder = context.folder / "parts" / name
        ranked = rank_displays(recipe, context, recommenders, examples, slates, folder, "pool")
        texts = dict.fromkeys(DISPLAYS, read_texts(recipe, context, examples))
        ids = examples["example_id"].to_list()
        traits = traits_of(recipe, context, next(iter(recommenders.values())), examples, executed=True)
        found = candidate_scores(recipe, ranked, texts, ids, traits)
        if name == "training":
            write_parquet(rewarded(found, ids), context.folder / REWARDS)
        scores += [_table(display, ids, row) for display, row in found.items()]
        decided[name] = ranked
    write_parquet(pl.concat(scores), context.folder / SCORES)
    write_parquet(decided["training"], context.folder / "decisions.parquet")
    means = summarise(decided["selection"], [METRIC], resamples=200)
    by_display = dict(means.select("verbalizer", "value").iter_rows())
    roles = {BEST_DISPLAY: max(DISPLAYS, key=lambda name: by_display[name])}
    write_json(roles, context.folder / "roles.json")
    name = next(iter(recommenders.values())).name
    return {
        "examples": len(training),
        "users": training["user_id"].n_unique(),
        "candidates": list(DISPLAYS),
        "headroom_recall_at_1": headroom(decided["training"], name),
        METRIC: by_display,
        "roles": roles,
        **own_facts(next(iter(recommenders.values()))),
    }


def known_scores(context: Context) -> KnownScores:
    """Rewards of (example, display) pairs of the training and the selection examples: nothing is ranked for them."""
    table = read_parquet(context.inputs["pool"] / SCORES)
    rows = table.select("example_id", "display", "reward", "components").iter_rows()
    return KnownScores({(key, display): Scored(reward, dict(parts)) for key, display, reward, parts in rows})


def open_displays(recipe: Recipe, inputs: Mapping[str, Path]) -> dict[str, Any]:
    """Display -> the recipe's recommender shown candidates so; local ones share their weights."""
    found: dict[str, Any] = {}
    for name, display in DISPLAYS.items():
        lm = getattr(next(iter(found.values()), None), "lm", None)
        found[name] = open_recommender(recipe, inputs, display=display, lm=lm)
    return found


def read_texts(recipe: Recipe, context: Context, examples: pl.DataFrame) -> list[str]:
    """What the recommender reads of B histories, under whatever display."""
    name = recipe.policy.display.template or load_roles(context)["best_template"]
    return TemplateVerbalizer(name).verbalize(verbalizer_inputs(examples))


def rank_displays(
    recipe: Recipe,
    context: Context,
    recommenders: Mapping[str, Any],
    examples: pl.DataFrame,
    slates: pl.DataFrame | None,
    folder: Path,
    stage: str,
) -> pl.DataFrame:
    """Decisions of the arms that show everybody one display, on `slates` (None: the examples' own). Resumable: one
    folder per display in `folder`; progress is told for `stage`.
    """
    texts = read_texts(recipe, context, examples)
    parts = []
    for number, (name, recommender) in enumerate(recommenders.items()):
        parts.append(
            decide_in_chunks(
                recommender, examples, texts, verbalizer=name, slates=slates, chunk_size=32, folder=folder / name
            )
        )
        context.progress.step(stage, number + 1, len(recommenders), name)
    return pl.concat(parts)


def arms(
    recipe: Recipe,
    examples: pl.DataFrame,
    learned: Mapping[int, Sequence[str]],
    start: Sequence[str],
) -> Shown:
    """Every arm that shows displays: each of them for everybody, the policy before and after training, and its choices
    handed to other users.
    """
    shown: Shown = {(name, 0): [name] * len(examples) for name in DISPLAYS}
    shown[START, 0] = list(start)
    shown |= {(LEARNED, seed): list(chosen) for seed, chosen in learned.items()}
    if recipe.evaluation.shuffled:
        first = recipe.seeds[0]
        shown[SHUFFLED, first] = shuffle_texts_between_users(examples, shown[LEARNED, first], seed=first)
    return shown


def ranked_arms(
    recipe: Recipe, context: Context, examples: pl.DataFrame, slates: pl.DataFrame | None, shown: Shown
) -> pl.DataFrame:
    """Decisions of every arm of an evaluate stage that shows displays; writes displays.parquet, what each showed."""
    ids, folder = examples["example_id"].to_list(), context.folder / "parts" / "displays"
    write_parquet(chosen_table(ids, shown), context.folder / CHOSEN)
    recommenders = open_displays(recipe, context.inputs)
    return decisions_of(rank_displays(recipe, context, recommenders, examples, slates, folder, "evaluate"), ids, shown)


def decisions_of(ranked: pl.DataFrame, example_ids: Sequence[str], shown: Shown) -> pl.DataFrame:
    """Decisions of arms: those of the display that each chose for an example. Ties are broken by example and slate, so
    ranking it again would decide the same.
    """
    parts = []
    for (arm, seed), chosen in shown.items():
        wanted = pl.DataFrame({"example_id": example_ids, "verbalizer": chosen})
        mine = wanted.join(ranked, on=["example_id", "verbalizer"], how="left", maintain_order="left_right")
        labelled = mine.with_columns(verbalizer=pl.lit(arm), seed=pl.lit(seed, pl.Int64))
        parts.append(labelled.select(ranked.columns))
    return pl.concat(parts)


def chosen_table(example_ids: Sequence[str], shown: Shown) -> pl.DataFrame:
    """example_id, verbalizer, seed, display: what each arm showed."""
    return pl.concat(
        pl.DataFrame({"example_id": example_ids, "display": chosen}).with_columns(
            verbalizer=pl.lit(arm), seed=pl.lit(seed, pl.Int64)
        )
        for (arm, seed), chosen in shown.items()
    )


def choices(context: Context, shown: Shown) -> dict[str, Any]:
    """Facts of an evaluate stage: the best display for all, and by seed the shares of what the policy chose."""
    learned = {str(seed): Counter(chosen) for (arm, seed), chosen in shown.items() if arm == LEARNED}
    shares = {
        seed: {name: count / counts.total() for name, count in counts.most_common()} for seed, counts in learned.items()
    }
    return {"displays": {"best": load_roles(context)[BEST_DISPLAY], "chosen": shares}}


def sentences(facts: Mapping[str, Any]) -> list[str]:
    """The facts in words; [] where no display was chosen."""
    if "displays" not in facts:
        return []
    best, chosen = facts["displays"]["best"], facts["displays"]["chosen"]
    said = [f"Every candidate of a slate is shown alike; best display for all on validation: {best}."]
    for seed, shares in chosen.items():
        listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        said.append(f"Displays that seed {seed} chose: {listed}; for {shares.get(best, 0.0):.0%} it is {best}.")
    return said


def _table(display: str, example_ids: Sequence[str], scored: Sequence[Scored]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "example_id": example_ids,
            "display": [display] * len(scored),
            "reward": [one.reward for one in scored],
            "components": [one.components for one in scored],
        }
    )
