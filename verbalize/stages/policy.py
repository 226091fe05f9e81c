"""Training the verbalizer after its warm start: GRPO or DPO, one policy per seed."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from recsys.models.settings import AdapterCard
from recsys.storage import read_parquet
from verbalize.config import plain
from verbalize.optimize.scoring import ScoreFunction
from verbalize.pipeline import Context, Listener
from verbalize.processes import leads
from verbalize.recipe import Recipe
from verbalize.stages import displays, experience, samples
from verbalize.stages.cards import card_of
from verbalize.stages.pool import REWARDS, reward_scorer
from verbalize.stages.recommender import open_recommender, own_facts
from verbalize.stages.saved_policies import asked_of, start_adapter
from verbalize.tracking import Trackers, open_tracker
from verbalize.verbalizers.prompt_format import prompt_format


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
        lm = load_language_model(
            recipe.policy.model, recipe.policy.dtype, start_adapter(context, seed), recipe.policy.device
        )
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
