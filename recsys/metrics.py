"""Ranks and the metrics on them. A slate has one relevant item, so every metric is a function of the target's rank
alone.

Metrics are Polars expressions on a column `rank` (1 = best), so they compose lazily:

>>> frame = pl.DataFrame({"rank": [1, 2, 5]})
>>> frame.select(expression("recall@1").mean().round(4).alias("r"), expression("mrr").mean().round(4).alias("m")).row(0)
(0.3333, 0.5667)
"""

import re
from collections.abc import Hashable, Sequence

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.seeding import unit_hash


def rank_of_target(scores: Sequence[float] | np.ndarray, target_index: int, key: Hashable) -> int:
    """Rank of the target, 1 = best; see `target_ranks`.

    >>> rank_of_target([0.1, 0.9, 0.5], 2, "example-7")
    2
    """
    return int(target_ranks([np.asarray(scores, dtype=np.float64)], [target_index], [key])[0])


def target_ranks(
    scores: Sequence[np.ndarray], target_index: Sequence[int] | np.ndarray, keys: Sequence[Hashable]
) -> np.ndarray:
    """Ranks (N,) of N targets in score arrays of shapes (S_n,).

        rank = 1 + #{c : score_c > score_target} + floor(u (t + 1)),   t = #{c ≠ target : score_c = score_target}

    u in [0, 1) comes from the key alone: among tied candidates the target's place is uniform over keys and does not
    depend on the slate's order. Arms that share keys share their luck, so it cancels in paired differences. -inf is
    a valid score. Raises InputError on NaN and on a target outside its slate.
    """
    sizes = np.array([len(row) for row in scores], dtype=np.int64)
    target = np.asarray(target_index, dtype=np.int64)
    if not len(sizes):
        return np.zeros(0, dtype=np.int32)
    outside = np.flatnonzero((target < 0) | (target >= sizes))
    if len(outside):
        at = int(outside[0])
        raise InputError(
            f"target_index {target[at]} in a slate of {sizes[at]}",
            "the target must be in its slate",
            "build the slates again",
        )
    flat = np.concatenate([np.asarray(row, dtype=np.float64) for row in scores])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    if np.isnan(flat).any():
        spoiled = int(np.searchsorted(starts, int(np.flatnonzero(np.isnan(flat))[0]), side="right")) - 1
        raise InputError(
            f"NaN score for key {keys[spoiled]!r}",
            "a score that is not a number has no place in a ranking",
            "look at the recommender: a non-finite loss or an empty candidate text is the usual cause",
        )
    targets = np.repeat(flat[starts + target], sizes)
    greater = np.add.reduceat((flat > targets).astype(np.int64), starts)
    ties = np.add.reduceat((flat == targets).astype(np.int64), starts) - 1
    luck = np.zeros(len(sizes), dtype=np.int64)
    for row in np.flatnonzero(ties).tolist():
        luck[row] = int(unit_hash("tie", keys[row]) * (ties[row] + 1))
    return (1 + greater + luck).astype(np.int32)


def recall_at(k: int) -> pl.Expr:
    """Recall@k = [rank ≤ k]. With one relevant item it equals the hit rate; 1 whenever k ≥ S."""
    return (pl.col("rank") <= _positive(k)).cast(pl.Float64)


def reciprocal_rank() -> pl.Expr:
    """MRR's term 1 / rank; never 0: every slate holds its target."""
    return 1.0 / pl.col("rank").cast(pl.Float64)


def ndcg_at(k: int) -> pl.Expr:
    """NDCG@k = [rank ≤ k] / log2(1 + rank); the ideal ranking has the relevant item first, hence ideal gain 1."""
    gain = 1.0 / (1.0 + pl.col("rank").cast(pl.Float64)).log(2.0)
    return pl.when(pl.col("rank") <= _positive(k)).then(gain).otherwise(0.0)


def expression(metric: str) -> pl.Expr:
    """The expression of `recall@k`, `ndcg@k` or `mrr`; raises InputError on another name."""
    name, k = _parse(metric)
    return reciprocal_rank() if name == "mrr" else recall_at(k) if name == "recall" else ndcg_at(k)


def chance_level(metric: str, slate_size: int) -> float:
    """Expected value under a uniformly random ranking of S candidates: the mean of the metric over ranks 1..S.

    >>> chance_level("recall@1", 10), chance_level("recall@3", 10)
    (0.1, 0.3)
    """
    if slate_size < 2:
        raise InputError(
            f"slate size {slate_size}", "a ranking needs a target and at least one negative", "draw larger slates"
        )
    return float(pl.DataFrame({"rank": np.arange(1, slate_size + 1)}).select(expression(metric).mean()).item())


def chance_corrected(value: float, chance: float) -> float:
    """(value - chance) / (1 - chance): 0 for a random ranking, 1 for a perfect one, negative below chance.

    For Recall@1 on slates of S candidates it is (R - 1/S) / (1 - 1/S). At chance 1 (k ≥ S) nothing can be told: 0.

    >>> round(chance_corrected(0.19, chance_level("recall@1", 10)), 6)
    0.1
    """
    return (value - chance) / (1.0 - chance) if chance < 1.0 else 0.0


def _parse(metric: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:(recall|ndcg)@([1-9]\d*)|(mrr))", metric)
    if match is None:
        raise InputError(
            f"metric {metric!r}", "is not one of recall@k, ndcg@k (k = 1, 2, ...) and mrr", "name one of these"
        )
    return (match[3], 0) if match[3] else (match[1], int(match[2]))


def _positive(k: int) -> int:
    if k < 1:
        raise InputError(f"k = {k}", "a cut-off is at least 1", "set k >= 1")
    return k
