"""Training the verbalizer: the warm start on the pool's best candidates or on single events, then GRPO or DPO, one
policy per seed."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from recsys.models.settings import AdapterCard
from recsys.storage import read_parquet, write_parquet
from verbalize.config import plain
from verbalize.optimize.scoring import ScoreFunction
from verbalize.pipeline import Context, Listener
from verbalize.processes import leads
from verbalize.recipe import Recipe
from verbalize.stages import displays, effects, experience, samples
from verbalize.stages.cards import card_of
from verbalize.stages.pool import REWARDS, reward_scorer
from verbalize.stages.recommender import ADAPTER, open_recommender, own_facts
from verbalize.stages.saved_policies import asked_of, start_adapter
from verbalize.tracking import Trackers, open_tracker
from verbalize.verbalizers.action_pool import candidate_actions
from verbalize.verbalizers.actions import history_lengths
from verbalize.verbalizers.displays import DisplayConfig, constant_displays
from verbalize.verbalizers.prompt_format import prompt_format


def run_warm_start(recipe: Recipe, context: Context, command: str) -> Mapping[str, Any]:
    """Train a fresh adapter on the pool, or on the effects of single events; writes adapter/ and loss.parquet. One warm
    start serves every seed."""
    from recsys.models.adapters import save_adapter
    from recsys.models.loading import load_language_model
    from verbalize.optimize.policy import ActionPolicyVerbalizer
    from verbalize.optimize.training import trainable_policy
    from verbalize.optimize.warm_start import choose_best, warm_start

    config, slots = recipe.warm_start, recipe.policy.slots
    assert config is not None and slots is not None  # the recipe refuses a rewriter
    examples = samples.training_sample(recipe, context.inputs["examples"])
    lm = load_language_model(recipe.policy.model, recipe.policy.dtype, device=recipe.policy.device)
    model = trainable_policy(lm, recipe.policy.lora, config.seed)
    policy = ActionPolicyVerbalizer(replace(lm, model=model), slots, prompt_budget=recipe.train.prompt_budget)
    (inputs,) = experience.training_inputs(recipe, context, examples)
    fitted, prompts = policy.fit(inputs)
    targets = _targets(recipe, context, fitted, examples["user_id"].to_list())

    def on_step(row: dict[str, Any]) -> None:
        context.progress.step("warm_start", row["step"], row["of"], f"loss {row['loss']:.3f}")

    losses = warm_start(model, prompts, targets, policy.tokens, config, context.folder / "parts", on_step)
    card = policy_card(recipe, lm, command, "The warm start of an action policy.")
    save_adapter(model, context.folder / ADAPTER, card)
    write_parquet(pl.DataFrame({"step": range(1, len(losses) + 1), "loss": losses}), context.folder / "loss.parquet")
    chosen = {}
    if config.effect_temperature is None:
        best = choose_best(read_parquet(context.inputs["pool"] / REWARDS))
        chosen["best_candidates"] = dict(best["candidate"].value_counts(sort=True).iter_rows())
    return {
        "examples": len(examples),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        **chosen,
        **experience.coverage(inputs),
    }


def _targets(recipe: Recipe, context: Context, fitted: pl.DataFrame, users: list[str]) -> list[np.ndarray]:
    """What the warm start learns for every slot of the fitted histories, (H, 4) for each example."""
    from verbalize.optimize.warm_start import effect_targets, hard_targets, pooled_targets, soft_targets

    config, slots = recipe.warm_start, recipe.policy.slots
    assert config is not None
    if config.effect_temperature is not None:
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


def run_train(recipe: Recipe, context: Context, command: str) -> Mapping[str, Any]:
    """GRPO or DPO, one folder seed-N per seed with its adapter, curves and validation texts; tracked as configured."""
    from recsys.models.loading import load_language_model
    from verbalize.optimize.training import Job, Validation

    examples = samples.training_sample(recipe, context.inputs["examples"])
    selection, _ = samples.validation_samples(recipe, context.inputs["examples"])
    inputs, judged_on = experience.training_inputs(recipe, context, examples, selection)
    recommender: Any = None
    score: ScoreFunction
    judge: ScoreFunction
    if recipe.policy.kind == "display":
        score = judge = displays.known_scores(context)
    else:
        recommender = open_recommender(recipe, context.inputs)
        score, judge = (reward_scorer(recipe, context, recommender, some) for some in (examples, selection))
    validation = Validation(judged_on, judge)
    tracker = open_tracker(recipe.tracking, context.folder / "parts" / "tracking") if leads() else Trackers([])
    tracker.config(plain(recipe))
    train = trainer_of(recipe, context, score)
    # A curriculum begins with what the pool shows of every prompt; stages_of asks for it then.
    scored = (
        read_parquet(context.inputs["pool"] / REWARDS) if recipe.train.curriculum and "pool" in context.inputs else None
    )
    results = {}
    for place, seed in enumerate(recipe.seeds):
        lm = load_language_model(recipe.policy.model, recipe.policy.dtype, start_adapter(context), recipe.policy.device)
        card = policy_card(recipe, lm, command, f"A learned verbalizer ({recipe.policy.kind}), seed {seed}.")

        def on_step(row: Mapping[str, Any], seed: int = seed, place: int = place) -> None:
            numbers = {
                f"seed{seed}/{row['kind']}/{name}": value
                for name, value in row.items()
                if isinstance(value, int | float) and name not in ("step", "of")
            }
            tracker.metrics(row["step"], numbers)
            steps = recipe.train.steps
            shown = "reward" if "reward" in row else "loss"
            detail = f"seed {seed} {row['kind']} {shown} {row.get(shown, float('nan')):.3f}"
            context.progress.step("train", place * steps + row["step"], len(recipe.seeds) * steps, detail)
            if isinstance(context.progress, Listener):
                context.progress.measured("train", row["step"], numbers)

        job = Job(
            lm,
            inputs,
            replace(recipe.train, seed=seed),
            context.folder / f"seed-{seed}",
            card,
            recipe.policy.lora,
            recipe.limits,
            validation,
            on_step,
            scored,
        )
        result = train(job)
        results[str(seed)] = asdict(result)
        judged = context.folder / f"seed-{seed}" / "validation" / f"step-{result.best_step:05d}.parquet"
        tracker.table(f"seed{seed}/validation_texts", read_parquet(judged).to_dicts())
    tracker.finish()
    return {
        "examples": len(examples),
        "users": examples["user_id"].n_unique(),
        "seeds": results,
        **experience.coverage(inputs),
        **own_facts(recommender),
    }


def trainer_of(recipe: Recipe, context: Context, score: ScoreFunction) -> Callable[..., Any]:
    """What trains a job of this recipe, with what belongs to its method and kind of policy alone."""
    if recipe.gepa:
        from verbalize.optimize.prompt_evolution import evolve_instruction
        from verbalize.optimize.reflection import reflection_model

        return partial(
            evolve_instruction, score=score, gepa=recipe.gepa, rewrite=recipe.policy.rewrite, reflect=reflection_model
        )
    if recipe.policy.kind == "rewrite" and recipe.dpo:
        from verbalize.optimize.dpo_rewrites import train_rewrite_preferences

        return partial(train_rewrite_preferences, score=score, dpo=recipe.dpo, rewrite=recipe.policy.rewrite)
    if recipe.policy.kind == "rewrite":
        from verbalize.optimize.rewrite_trainer import train_rewrites

        return partial(train_rewrites, score=score, rewrite=recipe.policy.rewrite)
    if recipe.dpo:
        from verbalize.optimize.dpo_actions import train_action_preferences

        return partial(
            train_action_preferences,
            pool=read_parquet(context.inputs["pool"] / REWARDS),
            pool_seed=recipe.examples.seed,
            dpo=recipe.dpo,
            actions=recipe.policy.actions,
        )
    from verbalize.optimize.train_actions import train_actions

    return partial(train_actions, score=score, actions=recipe.policy.slots)


def policy_card(recipe: Recipe, lm: Any, command: str, note: str) -> AdapterCard:
    """The card of a policy's adapter, which also says what prompts it was trained to answer."""
    return replace(card_of(recipe, lm, command, note), prompt=prompt_format(asked_of(recipe)))
