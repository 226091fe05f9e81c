"""Rewards for (example, text) pairs: each distinct pair meets the recommender once, on all of its slates in one pass.

Rollouts of a group often coincide (dropping an event with or without metadata is the same text), and validation sees
the same texts at every visit, so scores are remembered for the life of the scorer.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.evaluation import TextScorer
from recsys.metrics import rank_of_target
from recsys.recommenders.base import Query, Recommender
from verbalize.optimize.rewards import Ranking, Reward, Scored, TextTraits

TextTraitsOf = Callable[[Sequence[str], Sequence[str]], list[TextTraits]]
ScoreFunction = Callable[[Sequence[str], Sequence[str]], Sequence[Scored]]
"""Example ids and as many texts -> one `Scored` each."""


def no_traits(example_ids: Sequence[str], texts: Sequence[str]) -> list[TextTraits]:
    """For rewards made of rankings alone."""
    return [TextTraits(0.0, 0.0, 0.0)] * len(texts)


class RewardScorer:
    """A `ScoreFunction` over a recommender, M slates per example and a reward."""

    def __init__(
        self, recommender: Recommender, slates: pl.DataFrame, reward: Reward, traits: TextTraitsOf = no_traits
    ) -> None:
        """`slates`: example_id, slate_index, slate, target_index."""
        self.recommender, self.reward, self.traits = recommender, reward, traits
        self.slates: dict[str, list[tuple[int, list[str], int]]] = {}
        for row in slates.sort("example_id", "slate_index").iter_rows(named=True):
            self.slates.setdefault(row["example_id"], []).append(
                (row["slate_index"], row["slate"], row["target_index"])
            )
        self._known: dict[tuple[str, str], Scored] = {}

    def __call__(self, example_ids: Sequence[str], texts: Sequence[str]) -> list[Scored]:
        """N example ids and N texts -> N results. Raises InputError for an example without slates."""
        pairs = list(zip(example_ids, texts, strict=True))
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        unknown = [example_id for example_id, _ in new if example_id not in self.slates]
        if unknown:
            raise InputError(
                f"example {unknown[0]!r}", "has no slates to be rewarded on", "draw slates for every example"
            )
        if new:
            ids, fresh = [pair[0] for pair in new], [pair[1] for pair in new]
            scored = self.reward(self.traits(ids, fresh), self._rankings(ids, fresh))
            self._known.update(zip(new, scored, strict=True))
        return [self._known[pair] for pair in pairs]

    def _rankings(self, example_ids: list[str], texts: list[str]) -> list[list[Ranking]]:
        if not isinstance(self.recommender, TextScorer):
            return self._ranked(example_ids, texts)
        unions = [
            list(dict.fromkeys(item for _, slate, _ in self.slates[example_id] for item in slate))
            for example_id in example_ids
        ]
        scores = [
            dict(zip(union, row, strict=True))
            for union, row in zip(unions, self.recommender.score_texts(texts, unions), strict=True)
        ]
        return [
            [
                _ranking(example_id, index, np.array([known[item] for item in slate]), target)
                for index, slate, target in self.slates[example_id]
            ]
            for example_id, known in zip(example_ids, scores, strict=True)
        ]

    def _ranked(self, example_ids: list[str], texts: list[str]) -> list[list[Ranking]]:
        """For recommenders that need the whole slate at once: one call of `rank` for all, so that batches are full and
        a server is asked several things at a time.
        """
        queries = [
            Query(example_id, text)
            for example_id, text in zip(example_ids, texts, strict=True)
            for _ in self.slates[example_id]
        ]
        slates = [slate for example_id in example_ids for _, slate, _ in self.slates[example_id]]
        scores = iter(self.recommender.rank(queries, slates))
        return [
            [_ranking(example_id, index, next(scores), target) for index, _, target in self.slates[example_id]]
            for example_id in example_ids
        ]


class KnownScores:
    """A `ScoreFunction` over pairs that were all scored before."""

    def __init__(self, known: Mapping[tuple[str, str], Scored]) -> None:
        self._known = known

    def __call__(self, example_ids: Sequence[str], texts: Sequence[str]) -> list[Scored]:
        """N example ids and N texts -> N results. Raises InputError for a pair that was not scored."""
        pairs = list(zip(example_ids, texts, strict=True))
        unknown = [pair for pair in pairs if pair not in self._known]
        if unknown:
            raise InputError(f"{unknown[0]}", "was not scored before", "score every pair the policy can choose")
        return [self._known[pair] for pair in pairs]


def _ranking(example_id: str, slate_index: int, scores: np.ndarray, target: int) -> Ranking:
    return Ranking(scores, target, rank_of_target(scores, target, (example_id, slate_index)))
