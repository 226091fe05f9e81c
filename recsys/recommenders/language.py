"""The text recommenders' configuration and builders. Importable without torch; the modes are loaded when built."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recsys.errors import InputError
from recsys.recommenders.base import Recommender
from recsys.recommenders.embedding import EmbeddingSettings
from recsys.recommenders.remote.settings import RemoteSettings

if TYPE_CHECKING:
    from recsys.models.loading import LanguageModel

MODES = ("likelihood", "listwise", "generate")
"""Of a local language model."""
ALL_MODES = (*MODES, "remote", "embedding")


@dataclass(frozen=True)
class LanguageRecommenderConfig:
    """A model that ranks a slate from a text.

    model:            the local language model; in the modes remote and embedding its tokenizer alone, which measures
                      lengths
    mode:             likelihood (ratio of a candidate's probabilities with and without the text), listwise
                      (probabilities of option labels, one forward), generate (decode and parse an answer, as in
                      arXiv 2602.20558), remote (listwise or generate by a server, see `remote`) or embedding
                      (nearness of vectors, see `embedding`)
    adapter:          folder written by `save_adapter`, of the language model or the sentence encoder; one made for
                      another base is refused
    cue:              the sentence before the candidate in likelihood mode; the same for every arm
    kind:             what the prompts of listwise, generate and remote call an item
    token_budget:     tokens of one forward pass, padding included; changes memory and speed, not scores (1024 measured
                      fastest on a CPU; raise it on a GPU)
    max_text_tokens:  a longer text is an error, never silently cut
    cache:            file that keeps scores (remote: answers) between runs; omit while the model's weights are being
                      trained
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
    remote: RemoteSettings | None = None
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)

    def __post_init__(self) -> None:
        if self.mode not in ALL_MODES:
            raise InputError(
                f"recommender mode {self.mode!r}", f"is none of {', '.join(ALL_MODES)}", "choose one of these"
            )
        if self.mode == "remote" and self.remote is None:
            raise InputError(
                "recommender mode 'remote' without a remote section",
                "does not say where texts would go",
                "give recommender.remote: {endpoint: http://localhost:8000/v1, model: name}",
            )
        if self.adapter and self.mode == "remote":
            raise InputError(
                f"adapter {self.adapter} in mode {self.mode}",
                "is for a local model",
                "load the adapter on the server, or use a local mode",
            )
        if not self.cue.strip() or self.cue != self.cue.rstrip():
            raise InputError(
                f"cue {self.cue!r}",
                "must have text and no trailing space (candidates bring their own)",
                "end it with a word or a colon",
            )
        for name in ("token_budget", "max_text_tokens", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}", "must be at least 1", f"raise {name}")


def build_language_recommender(
    config: LanguageRecommenderConfig, candidate_texts: Mapping[str, str], lm: "LanguageModel | None" = None
) -> Recommender:
    """The recommender of `config.mode` over a catalogue rendered by `render_candidates`. `lm` shares an already
    loaded model (its adapter included); otherwise it is loaded as configured.
    """
    if config.mode == "embedding":
        from recsys.recommenders.embedding import build_embedding_recommender

        return build_embedding_recommender(config.embedding, candidate_texts, config.device, config.adapter)
    if config.mode == "remote":
        from recsys.recommenders.remote.recommender import RemoteRecommender

        return RemoteRecommender(candidate_texts, config)
    from recsys.models.loading import load_language_model
    from recsys.recommenders.generate import GenerateRecommender
    from recsys.recommenders.likelihood import LikelihoodRecommender
    from recsys.recommenders.listwise import ListwiseRecommender

    lm = lm or load_language_model(config.model, config.dtype, config.adapter, config.device, merge=True)
    modes = {"likelihood": LikelihoodRecommender, "listwise": ListwiseRecommender, "generate": GenerateRecommender}
    return modes[config.mode](lm, candidate_texts, config)
