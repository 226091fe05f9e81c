"""Training a sentence encoder as recommender: the loop and the losses of `recommender_training`, with its own scores.

score(c | text) = <e(text), e(c)> / temperature, as at test time, texts and candidates by one encoder. In training every
slate embeds its candidates anew, since their vectors move; afterwards the catalogue is embedded once, and a ranking
costs its text alone.
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
    # Apart: in one batch the short candidates would be padded to the length of the text.
    text, candidates = encoder.batch([slate.text])[0], encoder.batch(slate.candidates)
    scores = candidates @ text / temperature
    return scores if slate.text.strip() else 0.0 * scores
