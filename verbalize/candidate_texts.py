"""The candidate texts that a store keeps beside its examples: templates and scripted action sequences by name.

Tokens are not counted here: they belong to a recommender's tokenizer, which a recipe names later.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from verbalize.config import build, plain
from verbalize.recipe import Recipe
from verbalize.verbalizers.action_pool import CANDIDATES, ScriptedActionVerbalizer, candidate_actions
from verbalize.verbalizers.actions import ActionConfig, execute
from verbalize.verbalizers.base import verbalizer_inputs
from verbalize.verbalizers.templates import TEMPLATES, TemplateVerbalizer


class CandidateTexts:
    """Writes the texts of `names` (of `TEMPLATES`, the pool's `CANDIDATES` or the constant policies) for examples.

    Raises InputError for an unknown name.
    """

    def __init__(self, names: Sequence[str], actions: ActionConfig | None = None, seed: int = 0) -> None:
        self.names, self.actions, self.seed = tuple(dict.fromkeys(names)), actions or ActionConfig(), seed
        self._scripted = {
            name: TemplateVerbalizer(name) if name in TEMPLATES else ScriptedActionVerbalizer(name, self.actions, seed)
            for name in self.names
        }

    @classmethod
    def of_recipe(cls, recipe: Recipe) -> "CandidateTexts":
        """The recipe's templates, constants and scripted sequences, and the pool where the recipe learns from it."""
        imitates = recipe.warm_start and recipe.warm_start.imitates
        learns = imitates or recipe.experience or (recipe.dpo and recipe.policy.kind == "actions")
        pool = CANDIDATES if learns and recipe.policy.kind != "display" else ()
        listed = (*recipe.templates, *recipe.constants, *recipe.scripted)
        return cls([*listed, *pool], recipe.policy.actions, recipe.examples.seed)

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> "CandidateTexts | None":
        """The writer that a store's reference describes; None where it keeps no texts."""
        if not settings:
            return None
        return cls(settings["names"], build(ActionConfig, settings["actions"]), settings["seed"])

    @property
    def settings(self) -> dict[str, Any]:
        """Names, action settings and seed, as plain values."""
        return {"names": list(self.names), "actions": plain(self.actions), "seed": self.seed}

    def write(self, examples: pl.DataFrame) -> pl.DataFrame:
        """B examples -> example_id, verbalizer, text: B rows per name, name by name."""
        inputs = verbalizer_inputs(examples)
        pooled = [name for name in self.names if name in CANDIDATES]
        # One pass over the histories serves every candidate of the pool.
        actions = candidate_actions(inputs, self.actions, self.seed, pooled) if pooled and len(inputs) else {}
        parts = []
        for name, verbalizer in self._scripted.items():
            texts = execute(inputs, actions[name], self.actions) if name in actions else verbalizer.verbalize(inputs)
            written = pl.Series("text", texts, dtype=pl.String)
            parts.append(examples.select("example_id", pl.lit(name).alias("verbalizer"), written))
        return pl.concat(parts)
