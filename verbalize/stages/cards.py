"""The card of an adapter that a run trained: recommender, warm start and policies say the same of themselves."""

from recsys.models.loading import LanguageModel
from recsys.models.settings import AdapterCard
from verbalize.recipe import Recipe
from verbalize.report.provenance import revision


def card_of(recipe: Recipe, lm: LanguageModel, command: str, note: str) -> AdapterCard:
    """Base model, data, split, licence, command and revision; `note` is what this adapter is."""
    return AdapterCard(
        base_name=lm.name,
        base_hash=lm.base_digest,
        data=recipe.source.path or recipe.source.kind,
        split="train",
        licence=recipe.licence,
        command=command,
        revision=revision(),
        note=note,
    )
