"""The warm start: a fresh adapter learns from the pool's candidates, or from what single events do to the reward."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from recsys.storage import read_parquet, write_parquet
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.stages import effects, experience, samples
from verbalize.stages.policy import policy_card
from verbalize.stages.pool import REWARDS
from verbalize.stages.recommender import ADAPTER
from verbalize.verbalizers.action_pool import candidate_actions
from verbalize.verbalizers.actions import history_lengths
from verbalize.verbalizers.displays import DisplayConfig, constant_displays


def run(recipe: Recipe, context: Context, command: str) -> Mapping[str, Any]:
    """Writes adapter/, for all seeds, or seed-N/adapter/ for each; and loss.parquet: seed, step, loss."""
    from recsys.models.adapters import save_adapter
    from recsys.models.loading import load_language_model
    from verbalize.optimize.policy import ActionPolicyVerbalizer
    from verbalize.optimize.training import trainable_policy
    from verbalize.optimize.warm_start import choose_best, warm_start

    config, slots = recipe.warm_start, recipe.policy.slots
    assert config is not None and slots is not None  # the recipe refuses a rewriter
    examples = samples.training_sample(recipe, context.inputs["examples"])
    (inputs,) = experience.training_inputs(recipe, context, examples)
    seeds, curves = recipe.seeds if config.each_seed else (config.seed,), []
    for place, seed in enumerate(seeds):
        own = f"seed-{seed}" if config.each_seed else "."
        lm = load_language_model(recipe.policy.model, recipe.policy.dtype, device=recipe.policy.device)
        model = trainable_policy(lm, recipe.policy.lora, seed)
        policy = ActionPolicyVerbalizer(replace(lm, model=model), slots, prompt_budget=recipe.train.prompt_budget)
        fitted, prompts = policy.fit(inputs)
        targets = _targets(recipe, context, fitted, examples["user_id"].to_list())

        def on_step(row: dict[str, Any], place: int = place) -> None:
            done, all_steps = place * row["of"] + row["step"], len(seeds) * row["of"]
            context.progress.step("warm_start", done, all_steps, f"loss {row['loss']:.3f}")

        parts = context.folder / "parts" / own
        losses = warm_start(model, prompts, targets, policy.tokens, replace(config, seed=seed), parts, on_step)
        card = policy_card(recipe, lm, command, "The warm start of an action policy.")
        save_adapter(model, context.folder / own / ADAPTER, card)
        curves.append(pl.DataFrame({"step": range(1, len(losses) + 1), "loss": losses}).with_columns(seed=seed))
    write_parquet(pl.concat(curves).select("seed", "step", "loss"), context.folder / "loss.parquet")
    chosen = {}
    if config.imitates:
        best = choose_best(read_parquet(context.inputs["pool"] / REWARDS))
        chosen["best_candidates"] = dict(best["candidate"].value_counts(sort=True).iter_rows())
    return {
        "examples": len(examples),
        "first_loss": float(np.mean([curve["loss"][0] for curve in curves])),
        "last_loss": float(np.mean([curve["loss"][-1] for curve in curves])),
        **chosen,
        **experience.coverage(inputs),
    }


def _targets(recipe: Recipe, context: Context, fitted: pl.DataFrame, users: list[str]) -> list[np.ndarray]:
    """What is learned for every slot of the fitted histories: (H, 4) for each example."""
    from verbalize.optimize.warm_start import effect_targets, hard_targets, pooled_targets, soft_targets

    config, slots = recipe.warm_start, recipe.policy.slots
    assert config is not None
    if not config.imitates:
        table = read_parquet(context.inputs[effects.STAGE] / effects.TABLE)
        lengths = history_lengths(fitted, recipe.policy.actions)
        return effect_targets(table, fitted["example_id"].to_list(), lengths)
    pool = read_parquet(context.inputs["pool"] / REWARDS)
    if isinstance(slots, DisplayConfig):
        actions = constant_displays(len(fitted))
    else:
        actions = candidate_actions(fitted, recipe.policy.actions, recipe.examples.seed)
    if config.pooled:
        return pooled_targets(pool, users, actions, config.seed)
    if config.soft_temperature is not None:
        return soft_targets(pool, actions, config.soft_temperature)
    return hard_targets(pool, actions)
