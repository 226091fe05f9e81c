"""The language-model recommender's configuration and builder. Importable without torch; the modes are loaded when
built.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys.errors import InputError
from recsys.recommenders.base import Recommender

if TYPE_CHECKING:
    from recsys.models.loading import LanguageModel

MODES = ("likelihood", "listwise", "generate")


@dataclass(frozen=True)
class LanguageRecommenderConfig:
    """A language model that ranks a slate from a text.

    mode:             likelihood (ratio of a candidate's probabilities with and without the text), listwise
                      (probabilities of option labels, one forward) or generate (decode and parse an answer,
                      as in arXiv 2602.20558)
    adapter:          folder written by `save_adapter`; one made for another base is refused
    cue:              the sentence before the candidate in likelihood mode; the same for every arm
    kind:             what the prompts of listwise and generate call an item
    token_budget:     tokens of one forward pass, padding included; changes memory and speed, not scores (1024 measured
                      fastest on a CPU; raise it on a GPU)
    max_text_tokens:  a longer text is an error, never silently cut
    cache:            file that keeps scores between runs; omit while the model's weights are being trained
    """

    model: str = "smollm2-135m"
    mode: str = "likelihood"
    adapter: str | None = None
    dtype: str = "float32"
    device: str | None = None
    cue: str = "Next, this viewer will enjoy watching:"
    kind: str = "film"
    token_budget: int = 1024
    max_text_tokens: int = 4096
    max_new_tokens: int = 24
    cache: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"recommender mode {self.mode!r}", f"is none of {', '.join(MODES)}", "choose one of these")
        if not self.cue.strip() or self.cue != self.cue.rstrip():
            raise InputError(
                f"cue {self.cue!r}",
                "must have text and no trailing space (candidates bring their own)",
                "end it with a word or a colon",
            )
        for field in ("token_budget", "max_text_tokens", "max_new_tokens"):
            if getattr(self, field) < 1:
                raise InputError(f"{field} {getattr(self, field)}", "must be at least 1", f"raise {field}")


def build_language_recommender(
    config: LanguageRecommenderConfig, candidate_texts: Mapping[str, str], lm: "LanguageModel | None" = None
) -> Recommender:
    """The recommender of `config.mode` over a catalogue rendered by `render_candidates`. `lm` shares an already
    loaded model (its adapter included); otherwise it is loaded as configured.
    """
    from recsys.models.loading import load_language_model
    from recsys.recommenders.generate import GenerateRecommender
    from recsys.recommenders.likelihood import LikelihoodRecommender
    from recsys.recommenders.listwise import ListwiseRecommender

    lm = lm or load_language_model(config.model, config.dtype, config.adapter, config.device)
    modes = {"likelihood": LikelihoodRecommender, "listwise": ListwiseRecommender, "generate": GenerateRecommender}
    return modes[config.mode](lm, candidate_texts, config)
