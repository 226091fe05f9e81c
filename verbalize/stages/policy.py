"""Training the verbalizer: the warm start on the pool's best candidates, then GRPO or DPO, one policy per seed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys.errors import InputError
from recsys.models.settings import AdapterCard
from recsys.storage import read_json, read_parquet, write_parquet
from verbalize.config import plain
from verbalize.optimize.scoring import ScoreFunction
from verbalize.pipeline import Context, Listener
from verbalize.processes import leads
from verbalize.recipe import Recipe
from verbalize.recipe_sections import LEARNED, START
from verbalize.stages import data, displays, experience
from verbalize.stages.cards import card_of
from verbalize.stages.pool import REWARDS, reward_scorer
from verbalize.stages.recommender import ADAPTER, open_recommender, own_facts
from verbalize.tracking import Trackers, open_tracker
from verbalize.verbalizers.action_pool import candidate_actions
from verbalize.verbalizers.base import Verbalizer
from verbalize.verbalizers.displays import DisplayConfig, constant_displays
from verbalize.verbalizers.prompt_format import prompt_format
from verbalize.verbalizers.rewrite import RewriteConfig
from verbalize.verbalizers.slots import SlotConfig

if TYPE_CHECKING:
    from verbalize.experience.verbalizer import Memory

PROMPTS_PER_FORWARD = 4
"""Without gradients memory is no concern, and a few prompts together use the cores better than one."""


def run_warm_start(recipe: Recipe, context: Context, command: str) -> Mapping[str, Any]:
    """Supervise a fresh adapter on the pool; writes adapter/ and loss.parquet. One warm start serves every seed."""
    from recsys.models.adapters import save_adapter
    from recsys.models.loading import load_language_model
    from verbalize.optimize.policy import ActionPolicyVerbalizer
    from verbalize.optimize.training import trainable_policy
    from verbalize.optimize.warm_start import Pool, choose_best, hard_targets, pooled_targets, soft_targets, warm_start

    config, slots = recipe.warm_start, recipe.policy.slots
    assert config is not None and slots is not None  # the recipe refuses a rewriter
    pool = read_parquet(context.inputs["pool"] / REWARDS)
    examples = data.training_sample(recipe, context.inputs["examples"])
    lm = load_language_model(recipe.policy.model, recipe.policy.dtype, device=recipe.policy.device)
    model = trainable_policy(lm, recipe.policy.lora, config.seed)
    policy = ActionPolicyVerbalizer(replace(lm, model=model), slots, prompt_budget=recipe.train.prompt_budget)
    (inputs,) = experience.training_inputs(recipe, context, examples)
    fitted, prompts = policy.fit(inputs)
    actions: Pool
    if isinstance(slots, DisplayConfig):
        actions = constant_displays(len(fitted))
    else:
        actions = candidate_actions(fitted, slots, recipe.examples.seed)
    if config.pooled:
        targets = pooled_targets(pool, examples["user_id"].to_list(), actions, config.seed)
    elif config.soft_temperature is not None:
        targets = soft_targets(pool, actions, config.soft_temperature)
    else:
        targets = hard_targets(pool, actions)

    def on_step(row: dict[str, Any]) -> None:
        context.progress.step("warm_start", row["step"], row["of"], f"loss {row['loss']:.3f}")

    losses = warm_start(model, prompts, targets, policy.tokens, config, context.folder / "parts", on_step)
    card = policy_card(recipe, lm, command, "The warm start of an action policy.")
    save_adapter(model, context.folder / ADAPTER, card)
    write_parquet(pl.DataFrame({"step": range(1, len(losses) + 1), "loss": losses}), context.folder / "loss.parquet")
    chosen = choose_best(pool)["candidate"].value_counts(sort=True)
    return {
        "examples": len(examples),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "best_candidates": dict(chosen.iter_rows()),
        **experience.coverage(inputs),
    }


def run_train(recipe: Recipe, context: Context, command: str) -> Mapping[str, Any]:
    """GRPO or DPO, one folder seed-N per seed with its adapter, curves and validation texts; tracked as configured."""
    from recsys.models.loading import load_language_model
    from verbalize.optimize.training import Job, Validation

    examples = data.training_sample(recipe, context.inputs["examples"])
    selection, _ = data.validation_samples(recipe, context.inputs["examples"])
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


def start_adapter(context: Context) -> str | None:
    """The warm start's adapter, where there was one."""
    return str(context.inputs["warm_start"] / ADAPTER) if "warm_start" in context.inputs else None


def learned_verbalizers(
    recipe: Recipe, context: Context, memory: "Memory | None" = None
) -> Iterator[tuple[str, int, Callable[[], Verbalizer]]]:
    """(name, seed, loader): the policy before reinforcement learning, then the best of every seed; with memory where
    the recipe has experience (`memory`, else opened here).
    """
    memory = experience.open_memory(recipe, context.inputs) if memory is None else memory
    yield START, 0, partial(open_policy, recipe, start_adapter(context), START, memory)
    for seed, load in trained_policies(recipe, context.inputs["train"], LEARNED, memory):
        yield LEARNED, seed, load


def trained_policies(
    recipe: Recipe, folder: Path, name: str, memory: "Memory | None" = None
) -> Iterator[tuple[int, Callable[[], Verbalizer]]]:
    """(seed, loader) of the best policy of every seed of a finished train stage in `folder`."""
    for seed in recipe.seeds:
        result = read_json(folder / f"seed-{seed}" / "result.json")
        if recipe.gepa:
            evolved = replace(recipe.policy.rewrite, instruction=result["instruction"])
            prompted = replace(recipe, policy=replace(recipe.policy, rewrite=evolved))
            yield seed, partial(open_policy, prompted, None, name, memory)
            continue
        adapter = folder / f"seed-{seed}" / result["adapter"]
        yield seed, partial(open_policy, recipe, str(adapter), name, memory)


def open_policy(recipe: Recipe, adapter: str | Path | None, name: str, memory: "Memory | None" = None) -> Verbalizer:
    """A saved policy as a verbalizer (greedy). Raises InputError when it was trained on another base model, or on
    prompts of another format.
    """
    from recsys.models.loading import load_language_model
    from verbalize.optimize.policy import ActionPolicyVerbalizer
    from verbalize.verbalizers.rewrite import RewriteVerbalizer

    if adapter is not None:
        _check_prompt(recipe, Path(adapter))
    lm = load_language_model(recipe.policy.model, recipe.policy.dtype, adapter, recipe.policy.device, merge=True)
    policy: Verbalizer
    slots = recipe.policy.slots
    if slots is None:
        policy = RewriteVerbalizer(lm, recipe.policy.rewrite)
    else:
        policy = ActionPolicyVerbalizer(
            lm,
            slots,
            name=name,
            prompt_budget=recipe.train.prompt_budget,
            prompts_per_forward=PROMPTS_PER_FORWARD,
        )
    return experience.remembering(policy, memory)


def policy_card(recipe: Recipe, lm: Any, command: str, note: str) -> AdapterCard:
    """The card of a policy's adapter, which also says what prompts it was trained to answer."""
    return replace(card_of(recipe, lm, command, note), prompt=prompt_format(_asked(recipe)))


def _asked(recipe: Recipe) -> SlotConfig | RewriteConfig:
    return recipe.policy.slots or recipe.policy.rewrite


def _check_prompt(recipe: Recipe, adapter: Path) -> None:
    """Raises InputError when the adapter's card names another format; a card from before it named one is believed."""
    card = adapter / "card.json"
    trained, asked = read_json(card).get("prompt") if card.is_file() else "", prompt_format(_asked(recipe))
    if trained and trained != asked:
        raise InputError(
            f"adapter {adapter}",
            f"was trained on prompts of format {trained}, and policy.{recipe.policy.kind} asks in format {asked}",
            f"set policy.{recipe.policy.kind} as in the recipe that trained it, or train again",
        )
