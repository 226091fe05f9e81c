"""Slates ranked by nearness: the verbalization and every item's text as vectors of one sentence encoder.

score(c | text) = <e(text), e(c)> / temperature, with unit vectors: a cosine, scaled so that a softmax over candidates
is neither flat nor a maximum. A blank text scores 0 everywhere. Items are embedded once, each distinct text once and in
sorted order, so a score depends on neither slate nor catalogue order; texts are embedded anew in every call, because
the company of a batch moves last bits and a resumed evaluation must give the same ones.

An `Encoder` is anything from texts to unit vectors: as it was downloaded, or with an adapter that learned from slates
(`verbalize.optimize.encoder_training`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from recsys.errors import InputError
from recsys.recommenders.base import Query
from recsys.recommenders.candidates import look_up
from recsys.recommenders.full_catalogue import full_catalogue_log_softmax, full_catalogue_ranks


@dataclass(frozen=True)
class EmbeddingSettings:
    """Which encoder and how its cosines become scores.

    model:       an asset, a folder or a Hugging Face id of a sentence-transformers model
    temperature: divides cosines; it scales margins and softmax rewards and changes no ranking
    max_tokens:  the encoder reads no more of a text (256 for MiniLM)
    cut:         false refuses a longer verbalization; true embeds its beginning and counts how often that happened
    """

    model: str = "minilm"
    temperature: float = 0.05
    max_tokens: int = 256
    batch_size: int = 64
    cut: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"embedding.temperature = {self.temperature}", "must be above 0", "0.05 is usual")
        for name in ("max_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"embedding.{name} = {getattr(self, name)}", "must be at least 1", f"raise {name}")


class Encoder(Protocol):
    """N texts -> (N, D) float32, rows of length 1."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray: ...


class EmbeddingRecommender:
    """`candidate_texts` as in `render_candidates`. `tokenizer`, where given, is the encoder's and guards lengths.

    `texts_cut` counts verbalizations of which only the beginning was read.
    """

    def __init__(
        self,
        candidate_texts: Mapping[str, str],
        encoder: Encoder,
        settings: EmbeddingSettings,
        tokenizer: Any = None,
    ) -> None:
        self.candidate_texts, self.encoder, self.settings = candidate_texts, encoder, settings
        self.name = f"{settings.model.rstrip('/').rsplit('/', 1)[-1]}-embedding"
        self.digest = repr(settings)
        self.encoder_tokenizer = tokenizer
        self.texts_cut = 0
        self.item_ids: Sequence[str] = sorted(candidate_texts)
        self._distinct = sorted(set(candidate_texts.values()))
        place = {text: row for row, text in enumerate(self._distinct)}
        self.row_of = np.array([place[candidate_texts[item]] for item in self.item_ids], dtype=np.int64)
        self._item = {item: number for number, item in enumerate(self.item_ids)}

    @cached_property
    def vectors(self) -> np.ndarray:
        """Distinct item texts, (V, D) float32; item number n of the sorted ids has row `row_of[n]`."""
        return self.encoder(self._distinct)

    def rank(self, queries: Sequence[Query], slates: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """See `Recommender.rank`; reads only the queries' texts."""
        return self.score_texts([query.text for query in queries], slates)

    def score_texts(self, texts: Sequence[str], candidate_lists: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """B texts and B lists of item ids -> B float64 arrays. Raises InputError for an unknown item, or a text longer
        than the encoder reads unless `cut`.
        """
        texts_vectors = self.embed(texts).astype(np.float64)
        # Products and sums row by row: a matrix product may give the last bits of a row by its place in the matrix.
        return [
            (self.vectors[self.row_of[self._numbers(items)]] * vector).sum(axis=1) / self.settings.temperature
            for vector, items in zip(texts_vectors, candidate_lists, strict=True)
        ]

    def catalogue_ranks(
        self,
        queries: Sequence[Query],
        targets: Sequence[str],
        *,
        excluded: Sequence[Sequence[int] | np.ndarray] | None = None,
        depth: int | None = None,
    ) -> np.ndarray:
        """Ranks (B,) int32 of the targets among all items (see `full_catalogue_ranks`), ties by example id.

        `excluded`: numbers of items that do not compete, per query; None leaves out what the queries' histories show.
        """
        return full_catalogue_ranks(
            self.embed([query.text for query in queries]),
            self.vectors,
            self._numbers(targets),
            [query.example_id for query in queries],
            row_of=self.row_of,
            excluded=self._seen(queries) if excluded is None else excluded,
            depth=depth,
        )

    def catalogue_log_softmax(
        self,
        queries: Sequence[Query],
        targets: Sequence[str],
        *,
        excluded: Sequence[Sequence[int] | np.ndarray] | None = None,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """log softmax of the targets' scores / temperature over all items, (B,) float64: a dense reward. `excluded` as
        in `catalogue_ranks`; scores are already cosines over the recommender's own temperature.
        """
        return full_catalogue_log_softmax(
            self.embed([query.text for query in queries]),
            self.vectors,
            self._numbers(targets),
            temperature=self.settings.temperature * temperature,
            row_of=self.row_of,
            excluded=self._seen(queries) if excluded is None else excluded,
        )

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(B, D) float32: unit vectors, and zeros for blank texts. Equal texts are embedded once."""
        distinct = sorted({text for text in texts if text.strip()})
        self._check_lengths(distinct)
        rows = np.zeros((len(texts), self.vectors.shape[1]), dtype=np.float32)
        if distinct:
            place = {text: number for number, text in enumerate(distinct)}
            embedded = self.encoder(distinct)
            for number, text in enumerate(texts):
                if text in place:
                    rows[number] = embedded[place[text]]
        return rows

    def report(self) -> dict[str, Any]:
        """What should be known of this recommender's scores besides themselves."""
        return {"encoder": self.settings.model, "texts_cut": self.texts_cut}

    def _check_lengths(self, texts: Sequence[str]) -> None:
        if self.encoder_tokenizer is None or not texts:
            return
        lengths = [len(ids) for ids in self.encoder_tokenizer(list(texts), verbose=False)["input_ids"]]
        longer = [number for number, length in enumerate(lengths) if length > self.settings.max_tokens]
        if longer and not self.settings.cut:
            text = texts[longer[0]]
            raise InputError(
                f"text of {lengths[longer[0]]} tokens, beginning {text[:60]!r}",
                f"is longer than the {self.settings.max_tokens} tokens the encoder reads",
                "shorten the history, choose an encoder that reads more and raise recommender.embedding.max_tokens, or "
                "set recommender.embedding.cut=true to embed beginnings, which is counted",
            )
        self.texts_cut += len(longer)

    def _numbers(self, items: Sequence[str]) -> np.ndarray:
        return np.array(look_up(items, self._item), dtype=np.int64)

    def _seen(self, queries: Sequence[Query]) -> list[list[int]]:
        return [[self._item[item] for item in query.history if item in self._item] for query in queries]


def build_embedding_recommender(
    settings: EmbeddingSettings,
    candidate_texts: Mapping[str, str],
    device: str | None = None,
    adapter: str | None = None,
) -> EmbeddingRecommender:
    """With the encoder loaded as configured, on `device` (default CPU), and its `adapter`. Raises InputError when
    `max_tokens` is more than the encoder has positions for, or the adapter was made for another encoder.
    """
    from recsys.models.embedding import SentenceEncoder

    encoder = SentenceEncoder(settings.model, settings.batch_size, settings.max_tokens, device, adapter)
    positions = getattr(encoder.encoder.config, "max_position_embeddings", settings.max_tokens)
    if settings.max_tokens > positions:
        raise InputError(
            f"embedding.max_tokens = {settings.max_tokens}",
            f"is more than {settings.model} reads ({positions})",
            "lower it, or choose an encoder that reads more",
        )
    recommender = EmbeddingRecommender(candidate_texts, encoder, settings, encoder.tokenizer)
    if adapter is not None:
        from recsys.models.loading import weights_digest

        recommender.digest += f" {weights_digest(Path(adapter))}"
    return recommender
