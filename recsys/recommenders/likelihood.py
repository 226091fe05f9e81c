"""Slates ranked by how much a text raises each candidate's probability.

score(c | text) = log p(c | frame(text)) - log p(c | frame("")), summed over the candidate's tokens, natural
logarithm, with frame(text) = text + newline + cue and frame("") = cue. The second term removes what the model thinks
of a title as a string: its length, its fame. An empty (or blank) text scores exactly 0 everywhere. The two frames and
the leading space of the candidate belong to the recommender: every verbalizer is read through the same ones.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from recsys.errors import InputError
from recsys.models.loading import LanguageModel
from recsys.models.packed import packed_logprobs
from recsys.models.packing import PackedRequest
from recsys.models.tokenisation import encode_text, encode_texts
from recsys.recommenders.base import Query
from recsys.recommenders.candidates import look_up
from recsys.recommenders.language import LanguageRecommenderConfig
from recsys.recommenders.score_cache import ScoreCache, content_key

PRIOR_CHUNK = 32  # candidates whose unconditional probability is computed together, in catalogue order


class LikelihoodRecommender:
    """`candidate_texts` maps item ids to what is shown (see `render_candidates`)."""

    def __init__(
        self,
        lm: LanguageModel,
        candidate_texts: Mapping[str, str],
        config: LanguageRecommenderConfig,
        cache: ScoreCache | None = None,
    ) -> None:
        self.lm, self.config, self.candidate_texts = lm, config, candidate_texts
        self.name = f"{lm.name}-likelihood"
        self.cache = cache or ScoreCache(config.cache)
        self._catalogue = sorted(set(candidate_texts.values()))
        self._position = {text: number for number, text in enumerate(self._catalogue)}
        self._tokens: dict[str, list[int]] = {}
        self._prior: dict[str, float] = {}

    def rank(self, queries: Sequence[Query], slates: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """See `Recommender.rank`; reads only the queries' texts."""
        return self.score_texts([query.text for query in queries], slates, [query.example_id for query in queries])

    def score_texts(
        self, texts: Sequence[str], candidate_lists: Sequence[Sequence[str]], example_ids: Sequence[str] | None = None
    ) -> list[np.ndarray]:
        """B texts and B lists of item ids -> B float64 arrays of ratios. Ragged: give the union of M slates as one
        list.

        Equal texts are computed once over the union of their candidates. Raises InputError for an unknown item or a
        text longer than `max_text_tokens`, naming the example.
        """
        shown = [look_up(items, self.candidate_texts) for items in candidate_lists]
        wanted: dict[str, dict[str, None]] = {}
        first: dict[str, int] = {}
        for number, (text, candidates) in enumerate(zip(texts, shown, strict=True)):
            if text.strip():
                wanted.setdefault(text, {}).update(dict.fromkeys(candidates))
                first.setdefault(text, number)
        names = {text: str(example_ids[number] if example_ids else number) for text, number in first.items()}
        conditional = self._conditional({text: list(candidates) for text, candidates in wanted.items()}, names)
        self._ensure_prior({candidate for candidates in wanted.values() for candidate in candidates})
        return [
            np.array(
                [conditional[text][candidate] - self._prior[candidate] for candidate in candidates], dtype=np.float64
            )
            if text.strip()
            else np.zeros(len(candidates))
            for text, candidates in zip(texts, shown, strict=True)
        ]

    def frame(self, text: str) -> str:
        """What the model reads before a candidate."""
        return f"{text}\n{self.config.cue}" if text.strip() else self.config.cue

    def candidate_tokens(self, candidates: Sequence[str]) -> list[list[int]]:
        """Ids of " " + candidate text, kept for the life of the recommender."""
        new = [candidate for candidate in dict.fromkeys(candidates) if candidate not in self._tokens]
        self._tokens.update(zip(new, encode_texts(self.lm.tokenizer, [f" {text}" for text in new]), strict=True))
        return [self._tokens[candidate] for candidate in candidates]

    def _conditional(self, wanted: dict[str, list[str]], names: dict[str, str]) -> dict[str, dict[str, float]]:
        """log p(c | frame(text)) for every text and its candidates.

        Never cached: what a cache happens to hold would change how requests are batched, and with it the last bits of
        the scores, so that a resumed evaluation would differ from an uninterrupted one.
        """
        prefixes = encode_texts(self.lm.tokenizer, [self.frame(text) for text in wanted])
        for text, prefix in zip(wanted, prefixes, strict=True):
            if len(prefix) > self.config.max_text_tokens:
                raise InputError(
                    f"text of example {names[text]} with {len(prefix)} tokens",
                    f"exceeds max_text_tokens {self.config.max_text_tokens}",
                    "shorten the history or raise recommender.max_text_tokens",
                )
        requests = [
            PackedRequest(prefix, self.candidate_tokens(candidates))
            for candidates, prefix in zip(wanted.values(), prefixes, strict=True)
        ]
        return {
            text: dict(zip(candidates, row, strict=True))
            for (text, candidates), row in zip(wanted.items(), self._sums(requests), strict=True)
        }

    def _ensure_prior(self, candidates: set[str]) -> None:
        """log p(c | cue) in fixed groups of the catalogue, so that a value never depends on which slate asked first."""
        chunks = sorted(
            {self._position[candidate] // PRIOR_CHUNK for candidate in candidates if candidate not in self._prior}
        )
        groups = [self._catalogue[chunk * PRIOR_CHUNK : (chunk + 1) * PRIOR_CHUNK] for chunk in chunks]
        prefix = encode_text(self.lm.tokenizer, self.frame(""))
        for group in groups:
            keys = [self._key(self.frame(""), candidate) for candidate in group]
            stored = [self.cache.get(key) for key in keys]
            known = [value for value in stored if value is not None]
            if len(known) < len(group):
                known = self._sums([PackedRequest(prefix, self.candidate_tokens(group))])[0]
                for key, value in zip(keys, known, strict=True):
                    self.cache.put(key, value)
            self._prior.update(zip(group, known, strict=True))
        if groups:
            self.cache.flush()

    def _sums(self, requests: list[PackedRequest]) -> list[list[float]]:
        with torch.inference_mode():
            values = packed_logprobs(self.lm.model, requests, self.config.token_budget)
        return [[float(branch.double().sum()) for branch in row] for row in values]

    def _key(self, frame: str, candidate: str) -> bytes:
        return content_key(self.lm.digest, frame, f" {candidate}")
