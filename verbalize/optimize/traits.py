"""What a reward may know of a text besides its rankings, measured with the definitions every report uses."""

from collections.abc import Collection, Sequence
from typing import Any

import polars as pl

from verbalize.optimize.rewards import TextTraits
from verbalize.optimize.scoring import TextTraitsOf
from verbalize.verbalizers.base import verbalizer_inputs
from verbalize.verbalizers.compression import compression_ratios, log_token_counts, plateau, token_counts
from verbalize.verbalizers.faithfulness import faithfulness


def text_traits(inputs: pl.DataFrame, tokenizer: Any, catalogue_titles: Collection[str] | None = None) -> TextTraitsOf:
    """Compression under the recommender's tokenizer, its plateau reward, and faithfulness where titles are given
    (otherwise 1: executed actions and templates only write what the history holds)."""
    inputs = verbalizer_inputs(inputs)
    row_of = {example_id: row for row, example_id in enumerate(inputs["example_id"])}
    log_tokens = log_token_counts(inputs, tokenizer)

    def traits(example_ids: Sequence[str], texts: Sequence[str]) -> list[TextTraits]:
        rows = [row_of[example_id] for example_id in example_ids]
        ratios = compression_ratios(token_counts(texts, tokenizer), log_tokens[rows])
        faithful = [1.0] * len(texts)
        if catalogue_titles is not None:
            faithful = faithfulness(texts, inputs[rows], catalogue_titles)["share_faithful"].to_list()
        return [
            TextTraits(float(ratio), float(good), float(true))
            for ratio, good, true in zip(ratios, plateau(ratios), faithful, strict=True)
        ]

    return traits
