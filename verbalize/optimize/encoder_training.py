"""Training a sentence encoder as recommender: the loop and the losses of `recommender_training`, with its own scores.

score(c | text) = <e(text), e(c)> / temperature, as at test time, texts and candidates by one encoder. It costs a
hundredth of a language model's slate, so that it can learn from every training example many times and every test
example can be ranked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from recsys.models.embedding import SentenceEncoder


@dataclass(frozen=True)
class TextSlate:
    """One training decision in words: the verbalization, the S candidates as they are shown, which was chosen."""

    text: str
    candidates: Sequence[str]
    target_index: int


def encoder_scores(encoder: "SentenceEncoder", slate: TextSlate, temperature: float) -> torch.Tensor:
    """Cosines over temperature, (S,), differentiable in the encoder's weights. A blank text scores 0 everywhere, as it
    does for the recommender, and teaches nothing.
    """
    vectors = encoder.batch([slate.text, *slate.candidates])
    scores = vectors[1:] @ vectors[0] / temperature
    return scores if slate.text.strip() else 0.0 * scores
