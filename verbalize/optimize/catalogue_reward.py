"""A dense reward: how probable a text makes the target among everything that could have been recommended.

    log softmax(<e(text), e(target)> / t)   over the items available before the cutoff that the user had not touched

Sampled slates pay for the luck of their negatives and are flat where the target is far ahead of them; this moves with
every word. It needs a recommender that scores a catalogue at the cost of a slate: the sentence encoder. A language
model would read every item anew for every text.
"""

from collections.abc import Sequence
from dataclasses import replace

from recsys.errors import InputError
from recsys.logs.eligible import Eligible
from recsys.recommenders.base import Query
from recsys.recommenders.embedding import EmbeddingRecommender
from verbalize.optimize.rewards import CATALOGUE, TextTraits
from verbalize.optimize.scoring import TextTraitsOf


def with_catalogue(
    traits: TextTraitsOf, recommender: object, eligible: Eligible, temperature: float = 1.0
) -> TextTraitsOf:
    """`traits` with `catalogue` filled: the target against all items of `eligible`, natural logarithm, at most 0.

    `temperature` divides the recommender's scores, which are cosines over its own. Raises InputError for a recommender
    of another kind.
    """
    if not isinstance(recommender, EmbeddingRecommender):
        raise InputError(
            f"reward.kind = {CATALOGUE} with recommender {getattr(recommender, 'name', recommender)}",
            "scores every item of the catalogue for every text, which only the sentence encoder affords",
            "set recommender.mode: embedding, or reward.kind: log_softmax",
        )
    encoder: EmbeddingRecommender = recommender

    def measured(example_ids: Sequence[str], texts: Sequence[str]) -> list[TextTraits]:
        excluded = eligible.excluded(example_ids)
        targets = [eligible.item_ids[eligible.targets[eligible.row_of[example_id]]] for example_id in example_ids]
        queries = [Query(example_id, text) for example_id, text in zip(example_ids, texts, strict=True)]
        values = encoder.catalogue_log_softmax(queries, targets, excluded=excluded, temperature=temperature)
        return [
            replace(trait, catalogue=float(value))
            for trait, value in zip(traits(example_ids, texts), values, strict=True)
        ]

    return measured
