"""Training the verbalizer: the warm start on the pool's best candidates, then GRPO or DPO, one policy per seed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from recsys.models.settings import AdapterCard
from recsys.storage import read_json, read_parquet, write_parquet
from verbalize.config import plain
from verbalize.optimize.scoring import ScoreFunction
from verbalize.pipeline import Context, Listener
from verbalize.recipe import LEARNED, Recipe
from verbalize.report.provenance import revision
from verbalize.stages import data
from verbalize.stages.pool import REWARDS, reward_scorer
from verbalize.stages.recommender import ADAPTER, open_recommender, own_facts
from verbalize.tracking import open_tracker
from verbalize.verbalizers.action_pool import candidate_actions
from verbalize.verbalizers.base import Verbalizer, verbalizer_inputs

START = "before_training"
PROMPTS_PER_FORWARD = 4
"""Without gradients memory is no concern, and a few prompts together use the cores better than one."""


def run_warm_start(recipe: Recipe, context: Context, command: str) -> Mapping[str, Any]:
    """Supervise a fresh adapter on the pool; writes adapter/ and loss.parquet. One warm start serves every seed."""
    from recsys.models.adapters import save_adapter
    from recsys.models.loading import load_language_model
    from verbalize.optimize.policy import ActionPolicyVerbalizer
    from verbalize.optimize.training import trainable_policy
    from verbalize.optimize.warm_start import choose_best, hard_targets, soft_targets, warm_start

    config = recipe.warm_start
    assert config is not None
    pool = read_parquet(context.inputs["pool"] / REWARDS)
    examples = data.training_sample(recipe, context.inputs["examples"])
    lm = load_language_model(recipe.policy.model, device=recipe.policy.device)
    model = trainable_policy(lm, recipe.policy.lora, config.seed)
    policy = ActionPolicyVerbalizer(
        replace(lm, model=model), recipe.policy.actions, prompt_budget=recipe.train.prompt_budget
    )
    fitted, prompts = policy.fit(verbalizer_inputs(examples))
    actions = candidate_actions(fitted, recipe.policy.actions, recipe.examples.seed)
    targets = (
        hard_targets(pool, actions)
        if config.soft_temperature is None
        else soft_targets(pool, actions, config.soft_temperature)
    )

    def on_step(row: dict[str, Any]) -> None:
        context.progress.step("warm_start", row["step"], row["of"], f"loss {row['loss']:.3f}")

    losses = warm_start(model, prompts, targets, policy.tokens, config, context.folder / "parts", on_step)
    save_adapter(model, context.folder / ADAPTER, card_of(recipe, lm, command, "The warm start of an action policy."))
    write_parquet(pl.DataFrame({"step": range(1, len(losses) + 1), "loss": losses}), context.folder / "loss.parquet")
    chosen = choose_best(pool)["candidate"].value_counts(sort=True)
    return {
        "examples": len(examples),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "best_candidates": dict(chosen.iter_rows()),
    }


def run_train(recipe: Recipe, context: Context, command: str) -> Mapping[str, Any]:
    """GRPO or DPO, one folder seed-N per seed with its adapter, curves and validation texts; tracked as configured."""
    from recsys.models.loading import load_language_model
    from verbalize.optimize.training import Validation

    recommender = open_recommender(recipe, context.inputs)
    examples = data.training_sample(recipe, context.inputs["examples"])
    selection, _ = data.validation_samples(recipe, context.inputs["examples"])
    score = reward_scorer(recipe, context, recommender, examples)
    validation = Validation(verbalizer_inputs(selection), reward_scorer(recipe, context, recommender, selection))
    tracker = open_tracker(recipe.tracking, context.folder / "parts" / "tracking")
    tracker.config(plain(recipe))
    train = trainer_of(recipe, context, score)
    results = {}
    for place, seed in enumerate(recipe.seeds):
        lm = load_language_model(recipe.policy.model, adapter=start_adapter(context), device=recipe.policy.device)
        card = card_of(recipe, lm, command, f"A learned verbalizer ({recipe.policy.kind}), seed {seed}.")

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

        result = train(
            lm,
            verbalizer_inputs(examples),
            config=replace(recipe.train, seed=seed),
            folder=context.folder / f"seed-{seed}",
            card=card,
            lora=recipe.policy.lora,
            validation=validation,
            on_step=on_step,
        )
        results[str(seed)] = asdict(result)
        judged = context.folder / f"seed-{seed}" / "validation" / f"step-{result.best_step:05d}.parquet"
        tracker.table(f"seed{seed}/validation_texts", read_parquet(judged).to_dicts())
    tracker.finish()
    return {
        "examples": len(examples),
        "users": examples["user_id"].n_unique(),
        "seeds": results,
        **own_facts(recommender),
    }


def trainer_of(recipe: Recipe, context: Context, score: ScoreFunction) -> Callable[..., Any]:
    """What trains this recipe's policy, with what belongs to that method and kind of policy alone."""
    if recipe.policy.kind == "rewrite" and recipe.dpo:
        from verbalize.optimize.dpo_rewrites import train_rewrite_preferences

        return partial(train_rewrite_preferences, score=score, dpo=recipe.dpo, rewrite=recipe.policy.rewrite)
    if recipe.policy.kind == "rewrite":
        from verbalize.optimize.rewrite_trainer import train_rewrites

        return partial(train_rewrites, score=score, rewrite=recipe.policy.rewrite, limits=recipe.limits)
    if recipe.dpo:
        from verbalize.optimize.dpo_actions import train_action_preferences

        return partial(
            train_action_preferences,
            pool=read_parquet(context.inputs["pool"] / REWARDS),
            pool_seed=recipe.examples.seed,
            dpo=recipe.dpo,
            actions=recipe.policy.actions,
            limits=recipe.limits,
        )
    from verbalize.optimize.train_actions import train_actions

    return partial(train_actions, score=score, actions=recipe.policy.actions, limits=recipe.limits)


def start_adapter(context: Context) -> str | None:
    """The warm start's adapter, where there was one."""
    return str(context.inputs["warm_start"] / ADAPTER) if "warm_start" in context.inputs else None


def learned_verbalizers(recipe: Recipe, context: Context) -> Iterator[tuple[str, int, Callable[[], Verbalizer]]]:
    """(name, seed, loader): the policy before reinforcement learning, then the best of every seed."""
    yield START, 0, partial(open_policy, recipe, start_adapter(context), START)
    for seed in recipe.seeds:
        folder = context.inputs["train"] / f"seed-{seed}"
        adapter = folder / read_json(folder / "result.json")["adapter"]
        yield LEARNED, seed, partial(open_policy, recipe, str(adapter), LEARNED)


def open_policy(recipe: Recipe, adapter: str | Path | None, name: str) -> Verbalizer:
    """A saved policy as a verbalizer (greedy)."""
    from recsys.models.loading import load_language_model
    from verbalize.optimize.policy import ActionPolicyVerbalizer
    from verbalize.verbalizers.rewrite import RewriteVerbalizer

    lm = load_language_model(recipe.policy.model, adapter=adapter, device=recipe.policy.device)
    if recipe.policy.kind == "rewrite":
        return RewriteVerbalizer(lm, recipe.policy.rewrite)
    return ActionPolicyVerbalizer(
        lm,
        recipe.policy.actions,
        name=name,
        prompt_budget=recipe.train.prompt_budget,
        prompts_per_forward=PROMPTS_PER_FORWARD,
    )


def card_of(recipe: Recipe, lm: Any, command: str, note: str) -> AdapterCard:
    """What every adapter of a run says of itself."""
    return AdapterCard(
        lm.name,
        lm.base_digest,
        recipe.source.path or recipe.source.kind,
        "train",
        recipe.licence,
        command,
        revision(),
        note,
    )
