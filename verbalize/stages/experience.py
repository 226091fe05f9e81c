"""The experience of a run: a library of what served which history, from the scored pool, and memory for its prompts."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys.errors import InputError
from recsys.storage import read_parquet
from verbalize.config import plain
from verbalize.experience.settings import ExperienceConfig, MemoryConfig
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.stages.pool import REWARDS
from verbalize.verbalizers.action_pool import candidate_actions
from verbalize.verbalizers.actions import execute
from verbalize.verbalizers.base import MEMORY, Verbalizer, verbalizer_inputs

if TYPE_CHECKING:
    from verbalize.experience.verbalizer import Memory

LIBRARY = "library"
BUILT = ("embedding", "sketch", "best", "worst", "characters")
"""Settings that decide what is in the library; the others decide what prompts show of it."""


def building(recipe: Recipe) -> dict[str, Any]:
    """What the stage depends on besides the pool."""
    assert recipe.experience is not None
    described = plain(recipe.experience)
    return {"kind": recipe.policy.kind} | {name: described[name] for name in BUILT}


def showing(recipe: Recipe, training: bool) -> dict[str, Any]:
    """What decides a prompt's memory, for the keys of stages that show it; nothing where none is shown."""
    if recipe.experience is None or (training and not trains(recipe)):
        return {}
    left_out = {*BUILT, "use"} | (set() if training else {"dropout"})
    return {"experience": {key: value for key, value in plain(recipe.experience).items() if key not in left_out}}


def trains(recipe: Recipe) -> bool:
    """Whether prompts show memory in training already."""
    return recipe.experience is not None and recipe.experience.use == "train_and_test"


def run(recipe: Recipe, context: Context) -> Mapping[str, Any]:
    """Writes library/: the best and worst answers of the pool's training examples, each with user, example and time."""
    from verbalize.experience.library import ExperienceLibrary
    from verbalize.experience.verbalizer_lessons import pool_lessons

    config = recipe.experience
    assert config is not None
    rewards = read_parquet(context.inputs["pool"] / REWARDS)
    known = read_parquet(context.inputs["examples"] / "examples.parquet")
    examples = (
        rewards.select("example_id")
        .unique(maintain_order=True)
        .join(known, on="example_id", how="inner", maintain_order="left")
    )
    lessons = pool_lessons(examples, rewards, answers(recipe, config, examples), config)
    if not lessons:
        raise InputError(
            f"experience: 0 lessons of {len(examples)} examples",
            "no candidate of the pool served better than another",
            "look at the pool's rewards, or set experience: null",
        )
    with ExperienceLibrary.open(context.folder / LIBRARY, library_config(config)) as library:
        library.admit(lessons)
        context.progress.step("experience", len(library), len(library), "lessons")
        return {
            "examples": len(examples),
            "users": examples["user_id"].n_unique(),
            "lessons": dict(sorted(Counter(entry.zone for entry in library.entries()).items())),
            "candidates": dict(Counter(f"{one.zone}: {one.family}" for one in library.entries()).most_common()),
        }


def answers(recipe: Recipe, config: MemoryConfig, examples: pl.DataFrame) -> dict[str, list[str]]:
    """Candidate -> what it answers to each example, in the form this recipe's policy answers in."""
    from verbalize.experience.verbalizer_lessons import shown_actions, shown_text

    inputs, actions = verbalizer_inputs(examples), recipe.policy.actions
    chosen = candidate_actions(inputs, actions, recipe.examples.seed)
    if recipe.policy.kind == "rewrite":
        texts = {name: execute(inputs, rows, actions) for name, rows in chosen.items()}
        return {name: [shown_text(text, config.characters) for text in rows] for name, rows in texts.items()}
    return {
        name: [shown_actions(row, actions.symbols, config.characters) for row in rows] for name, rows in chosen.items()
    }


def library_config(config: MemoryConfig) -> ExperienceConfig:
    """How the library is opened."""
    return ExperienceConfig(embedding=config.embedding)


def open_memory(recipe: Recipe, inputs: Mapping[str, Path], examples: Path | None = None) -> "Memory | None":
    """The memory of a run whose stages lie in `inputs`, for the examples below `examples` (None: the run's own).

    None where its recipe has no experience. The library is opened read-only.
    """
    if recipe.experience is None:
        return None
    from recsys.models.loading import load_tokenizer
    from recsys.models.tokenisation import encode_text
    from verbalize.experience.library import ExperienceLibrary
    from verbalize.experience.verbalizer import Memory

    library = ExperienceLibrary.open(inputs["experience"] / LIBRARY, library_config(recipe.experience), read_only=True)
    table = read_parquet((examples or inputs["examples"]) / "examples.parquet")
    tokenizer = load_tokenizer(recipe.policy.model)
    users = dict(table.select("example_id", "user_id").iter_rows())
    return Memory(library, recipe.experience, users, lambda text: len(encode_text(tokenizer, text)))


def training_inputs(recipe: Recipe, context: Context, *frames: pl.DataFrame) -> list[pl.DataFrame]:
    """What the policy is shown of each frame of examples while it trains: with memory where the recipe trains with it.

    The first frame is the one trained on, and thinned by `experience.dropout`.
    """
    plainly = [verbalizer_inputs(frame) for frame in frames]
    memory = open_memory(recipe, context.inputs) if trains(recipe) else None
    if memory is None:
        return plainly
    from verbalize.experience.verbalizer import dropped_examples

    dropped = dropped_examples(frames[0]["example_id"].to_list(), memory.config.dropout)
    return [memory.recall(inputs, () if place else dropped) for place, inputs in enumerate(plainly)]


def remembering(policy: Verbalizer, memory: "Memory | None") -> Verbalizer:
    """The policy asked with memory; itself where there is none."""
    if memory is None:
        return policy
    from verbalize.experience.verbalizer import RetrievalVerbalizer

    return RetrievalVerbalizer(policy, memory)


def coverage(inputs: pl.DataFrame) -> dict[str, Any]:
    """For a stage's facts: of how many prompts the memory is not empty. Nothing for inputs without memory."""
    return {"prompts_with_memory": int((inputs[MEMORY] != "").sum())} if MEMORY in inputs.columns else {}
