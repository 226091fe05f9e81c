"""Texts of an earlier run's policy for the recommender to learn from: the second half of an alternating round, and the
paper's second stage (arXiv 2602.20558), where the verbalizer is frozen and the recommender reads what it writes.
"""

from dataclasses import replace
from pathlib import Path

import polars as pl

from recsys.errors import InputError
from recsys.storage import read_json, write_json
from verbalize.config import plain
from verbalize.recipe import Recipe
from verbalize.recipe_sections import LEARNED
from verbalize.verbalizers.base import verbalizer_inputs

CHUNK = 32
"""Examples whose texts are kept together."""


def identity(recipe: Recipe, folder: str) -> dict[str, object]:
    """What the texts depend on. A train stage's folder is named by its key, so wherever the store lies, its last parts
    say which policy it is; the recipe's own policy section says how it is read.
    """
    policy = {name: value for name, value in plain(recipe.policy).items() if name != "display"}  # which writes no texts
    return {"of": list(Path(folder).parts[-3:]), "policy": policy}


def learned_texts(recipe: Recipe, folder: str, examples: pl.DataFrame, parts: Path) -> list[str]:
    """B examples -> B greedy texts of the policy in `folder`, a `seed-N` of a finished train stage; kept in `parts`.

    Raises InputError when no finished training lies there, or one of another kind than this recipe's policy.
    """
    from verbalize.stages.saved_policies import trained_policies

    place = Path(folder)
    name = f"recommender_training.learned = {folder}"
    if not (place / "result.json").exists() or not place.name.startswith("seed-"):
        raise InputError(name, "holds no finished training", "name runs/artefacts/train/<key>/seed-<N> of another run")
    if ("instruction" in read_json(place / "result.json")) != (recipe.gepa is not None) or recipe.experience:
        raise InputError(
            name, "was trained in another way than this recipe's policy is", "give both the same policy and gepa"
        )
    own = replace(recipe, seeds=(int(place.name.removeprefix("seed-")),))
    ((_, load),) = trained_policies(own, place.parent, LEARNED)
    verbalizer, texts = None, []
    for number, start in enumerate(range(0, len(examples), CHUNK)):
        path = parts / f"learned-{number:05d}.json"
        if not path.exists():
            verbalizer = verbalizer or load()
            write_json(verbalizer.verbalize(verbalizer_inputs(examples[start : start + CHUNK])), path)
        texts += read_json(path)
    return texts
