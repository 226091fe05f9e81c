"""Policies of finished trainings as verbalizers, opened when they are needed."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import InputError
from recsys.storage import read_json
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.recipe_sections import LEARNED, START
from verbalize.stages import experience
from verbalize.stages.recommender import ADAPTER
from verbalize.verbalizers.base import Verbalizer
from verbalize.verbalizers.prompt_format import prompt_format
from verbalize.verbalizers.rewrite import RewriteConfig
from verbalize.verbalizers.slots import SlotConfig

if TYPE_CHECKING:
    from verbalize.experience.verbalizer import Memory

PROMPTS_PER_FORWARD = 4
"""Without gradients memory is no concern, and a few prompts together use the cores better than one."""


@dataclass(frozen=True)
class SavedPolicy:
    """A policy under the name of its arm, loaded when called. Without an `adapter` it is the base model, as evolving
    a prompt leaves it.
    """

    recipe: Recipe
    adapter: str | None
    name: str
    memory: "Memory | None" = None

    def __call__(self) -> Verbalizer:
        return open_policy(self.recipe, self.adapter, self.name, self.memory)

    @property
    def identity(self) -> tuple[str, str]:
        """Equal for policies of one run that write the same: seeds whose best checkpoint is where all of them began."""
        from recsys.models.loading import weights_digest

        weights = "" if self.adapter is None else weights_digest(Path(self.adapter))
        return weights, prompt_format(asked_of(self.recipe))


def learned_verbalizers(
    recipe: Recipe, context: Context, memory: "Memory | None" = None
) -> Iterator[tuple[str, int, SavedPolicy]]:
    """(name, seed, policy): the policy before reinforcement learning (of the first seed, where each has its own), then
    the best of every seed; with memory where the recipe has experience (`memory`, else opened here).
    """
    memory = experience.open_memory(recipe, context.inputs) if memory is None else memory
    yield START, 0, SavedPolicy(recipe, start_adapter(context, recipe.seeds[0]), START, memory)
    for seed, policy in trained_policies(recipe, context.inputs["train"], LEARNED, memory):
        yield LEARNED, seed, policy


def trained_policies(
    recipe: Recipe, folder: Path, name: str, memory: "Memory | None" = None
) -> Iterator[tuple[int, SavedPolicy]]:
    """(seed, policy) for the best policy of every seed of a finished train stage in `folder`."""
    for seed in recipe.seeds:
        result = read_json(folder / f"seed-{seed}" / "result.json")
        if recipe.gepa:
            evolved = replace(recipe.policy.rewrite, instruction=result["instruction"])
            prompted = replace(recipe, policy=replace(recipe.policy, rewrite=evolved))
            yield seed, SavedPolicy(prompted, None, name, memory)
            continue
        adapter = folder / f"seed-{seed}" / result["adapter"]
        yield seed, SavedPolicy(recipe, str(adapter), name, memory)


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


def start_adapter(context: Context, seed: int) -> str | None:
    """The adapter of the warm start, where there was one: the seed's own, or that of all seeds."""
    if "warm_start" not in context.inputs:
        return None
    own = context.inputs["warm_start"] / f"seed-{seed}" / ADAPTER
    return str(own if own.exists() else context.inputs["warm_start"] / ADAPTER)


def asked_of(recipe: Recipe) -> SlotConfig | RewriteConfig:
    """How the recipe's policy is asked."""
    return recipe.policy.slots or recipe.policy.rewrite


def _check_prompt(recipe: Recipe, adapter: Path) -> None:
    """Raises InputError when the adapter's card names another format; a card from before it named one is believed."""
    card = adapter / "card.json"
    trained, asked = read_json(card).get("prompt") if card.is_file() else "", prompt_format(asked_of(recipe))
    if trained and trained != asked:
        raise InputError(
            f"adapter {adapter}",
            f"was trained on prompts of format {trained}, and policy.{recipe.policy.kind} asks in format {asked}",
            f"set policy.{recipe.policy.kind} as in the recipe that trained it, or train again",
        )
