"""The card of an adapter that a run trained: recommender, warm start and policies say the same of themselves."""

from pathlib import Path
from typing import TYPE_CHECKING

from recsys.models.loading import LanguageModel
from recsys.models.settings import AdapterCard
from verbalize.recipe import Recipe
from verbalize.report.provenance import revision

if TYPE_CHECKING:
    from recsys.models.embedding import SentenceEncoder


def card_of(recipe: Recipe, lm: "LanguageModel | SentenceEncoder", command: str, note: str) -> AdapterCard:
    """Base model, data, split, licence, command and revision; `note` is what this adapter is."""
    return AdapterCard(
        base_name=Path(lm.name).name,
        base_hash=lm.base_digest,
        data=recipe.source.path or recipe.source.kind,
        split="train",
        licence=recipe.licence,
        command=command,
        revision=revision(),
        note=note,
    )
