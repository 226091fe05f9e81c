"""Conditional logit (McFadden 1974) on genre, year, popularity and mean rating: the bar a text claim has to clear.

    P(target c | slate) = exp(βᵀ x_c) / Σ over c' in slate of exp(βᵀ x_c')       β by L2-penalised maximum likelihood

Popularity and rating features of a *training* slate are taken as of that example's cutoff, not of the split's
start: counted over the whole training period they would contain the very targets to be predicted, and β would trust
them too much. When ranking they are taken as of `before`, the start of the ranked split.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

import numpy as np
import polars as pl
from scipy.optimize import minimize

from recsys.errors import InputError
from recsys.recommenders.collaborative import Catalogue, HistoryRecommender, check_before, history_item_ids
from recsys.recommenders.content import Content, genre_cosine, genre_overlap, year_distance
from recsys.recommenders.item_statistics import ItemStatistics

FEATURES = (
    "genre_overlap",
    "genre_cosine",
    "log_year_distance_median",
    "log_year_distance_recent",
    "log_popularity",
    "mean_rating",
)


@dataclass(frozen=True)
class LogitConfig:
    """`l2` penalty per example on standardised features; `rating_prior` pseudo-ratings that shrink an item's mean
    rating.
    """

    l2: float = 1e-3
    rating_prior: float = 10.0


class ConditionalLogit(HistoryRecommender):
    """Scores are βᵀx; `coefficients` are per standard deviation of each of `FEATURES`."""

    name = "logit"

    def __init__(
        self,
        catalogue: Catalogue,
        content: Content,
        popularity: np.ndarray,
        rating: np.ndarray,
        coefficients: np.ndarray,
        scale: np.ndarray,
    ) -> None:
        super().__init__(catalogue)
        self.content, self.popularity, self.rating = content, popularity, rating  # (D,) each, as of the split's start
        self.coefficients, self.scale = coefficients, scale  # (F,)

    @classmethod
    def fit(
        cls,
        events: pl.DataFrame,
        items: pl.DataFrame,
        examples: pl.DataFrame,
        *,
        before: datetime,
        config: LogitConfig | None = None,
    ) -> Self:
        """Fit on the slates of training `examples` (cutoffs before `before`); `events` all strictly before `before`.

        Raises InputError on later events or cutoffs, on no examples, and on slates with unknown items.
        """
        config = config or LogitConfig()
        check_before(events, before)
        check_before(examples.select(event_time="cutoff_time"), before, "training cutoffs")
        if not examples.height:
            raise InputError(
                "0 training examples",
                "the conditional logit learns from training slates",
                "widen the train split or leave this baseline out",
            )
        catalogue = Catalogue(items["item_id"].to_list())
        content = Content.of(items, catalogue, events)
        statistics = ItemStatistics(events, catalogue)
        slates = [catalogue.slate(slate) for slate in examples["slate"].to_list()]
        histories = [catalogue.known(history) for history in history_item_ids(examples)]
        sizes = np.array([len(slate) for slate in slates])
        flat, times = np.concatenate(slates), np.repeat(examples["cutoff_time"].to_physical().to_numpy(), sizes)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        popularity = statistics.log_popularity(flat, times)
        rating = statistics.mean_rating(flat, times, config.rating_prior)
        matching = np.concatenate(
            [match_features(content, history, slate) for history, slate in zip(histories, slates, strict=True)]
        )
        features = np.column_stack([matching, popularity, rating])  # (ΣS, F)
        scale = features.std(axis=0)
        scale[scale < 1e-12] = np.inf  # a feature the data set lacks is constant: divide it away
        places = [
            slate.index(target) if target in slate else -1
            for slate, target in zip(examples["slate"].to_list(), examples["target_item_id"].to_list(), strict=True)
        ]
        if min(places) < 0:
            raise InputError(
                f"example {examples['example_id'][places.index(-1)]}",
                "its slate lacks its target",
                "build the examples again",
            )
        coefficients = fit_conditional_logit(features / scale, starts, starts + np.array(places), config.l2)
        everything = np.arange(len(catalogue))
        now = np.full(len(catalogue), pl.Series([before]).cast(pl.Datetime("us", "UTC")).to_physical()[0])
        return cls(
            catalogue,
            content,
            statistics.log_popularity(everything, now),
            statistics.mean_rating(everything, now, config.rating_prior),
            coefficients,
            scale,
        )

    def score(self, history: np.ndarray, slate: np.ndarray) -> np.ndarray:
        features = np.column_stack(
            [match_features(self.content, history, slate), self.popularity[slate], self.rating[slate]]
        )
        return features / self.scale @ self.coefficients


def match_features(content: Content, history: np.ndarray, slate: np.ndarray) -> np.ndarray:
    """(S, 4): the features that compare a candidate with the history. Years enter as log(1 + years): near misses
    matter most.
    """
    return np.column_stack(
        [
            genre_overlap(content.genres, history, slate),
            genre_cosine(content.genres, history, slate),
            np.log1p(year_distance(content.years, history, slate)),
            np.log1p(year_distance(content.years, history, slate, recent=True)),
        ]
    )


def fit_conditional_logit(features: np.ndarray, starts: np.ndarray, chosen: np.ndarray, l2: float) -> np.ndarray:
    """β (F,) minimising  -(1/N) Σ log P(chosen) + (l2 / 2) ||β||².

    `features` (ΣS, F) stacks the N slates, `starts` (N,) is each slate's first row, `chosen` (N,) the target's row. The
    objective is convex; the gradient is analytic: -(1/N) Σ (x_chosen - E_P[x]) + l2 β.
    """
    sizes = np.diff(np.append(starts, len(features)))
    n = len(starts)
    target = features[chosen].sum(axis=0)

    def objective(beta: np.ndarray) -> tuple[float, np.ndarray]:
        utility = features @ beta
        utility -= np.repeat(np.maximum.reduceat(utility, starts), sizes)
        exponential = np.exp(utility)
        total = np.add.reduceat(exponential, starts)
        expected = (exponential / np.repeat(total, sizes)) @ features
        loss = np.log(total).sum() - utility[chosen].sum()
        return loss / n + l2 / 2 * float(beta @ beta), (expected - target) / n + l2 * beta

    solution = minimize(
        objective,
        np.zeros(features.shape[1]),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-8},
    )
    return solution.x
