"""The target's place in the whole catalogue: exact, with what does not compete left out and ties by seed.

Sampled slates can reverse an ordering of recommenders (Krichene & Rendle, KDD 2020); these ranks cannot. They take the
metrics of `recsys.metrics` (Recall@k, NDCG@k), valid for every k up to `depth`. From vectors by FAISS, or from any
scores over all items; both follow one definition, so recommenders of either kind stand in one table.
"""

from collections.abc import Hashable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from recsys.errors import InputError
from recsys.recommenders.base import Query
from recsys.seeding import unit_hash

CLOSE = 1e-5  # relative: two ways of computing one inner product differ by less


@runtime_checkable
class CatalogueRanker(Protocol):
    """A recommender that ranks all its items at the cost of one slate or little more."""

    name: str

    @property
    def item_ids(self) -> Sequence[str]:
        """All items, sorted; numbers elsewhere are places in it."""
        ...

    def catalogue_ranks(
        self, queries: Sequence[Query], targets: Sequence[str], *, excluded: Sequence[Sequence[int] | np.ndarray]
    ) -> np.ndarray:
        """B queries and targets -> ranks (B,) int32, 1 best, among the items not `excluded`; a target never is. Ties
        by the query's example."""
        ...


def full_catalogue_ranks(
    queries: np.ndarray,
    vectors: np.ndarray,
    targets: Sequence[int] | np.ndarray,
    keys: Sequence[Hashable],
    *,
    row_of: Sequence[int] | np.ndarray | None = None,
    excluded: Sequence[Sequence[int] | np.ndarray] | None = None,
    depth: int | None = None,
) -> np.ndarray:
    """Ranks (B,) int32 of B targets among N items by inner product; 1 is best.

        rank = 1 + #{items better} + floor(u (t + 1)),   t = #{other items equal},   u from the key (see `target_ranks`)

    queries (B, D) and vectors (V, D) float32. `row_of` (N,) gives each item's vector, so that items shown alike tie
    exactly; by default N = V. `targets` are items. `excluded` lists items that do not count, such as the history's; a
    target is never excluded. With `depth`, a rank is exact up to it and depth + 1 beyond: only so many items are
    fetched. Raises InputError for a target or an excluded item outside 0..N-1, numbers that are not finite, or a depth
    below 1.
    """
    import faiss

    rows = np.arange(len(vectors)) if row_of is None else np.asarray(row_of, dtype=np.int64)
    wanted = np.asarray(targets, dtype=np.int64)
    left_out = [np.unique(np.asarray(items, dtype=np.int64)) for items in excluded or [()] * len(queries)]
    _check(queries, vectors, rows, wanted, keys, left_out, depth)
    if not len(queries):
        return np.zeros(0, dtype=np.int32)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    items_of_row = np.bincount(rows, minlength=len(vectors))
    ranks = np.zeros(len(queries), dtype=np.int32)
    waiting = np.arange(len(queries))
    # Enough rows to fill `depth` places once all that may be left out is; all rows for those still undecided then.
    few = len(vectors) if depth is None else min(len(vectors), depth + max(map(len, left_out)) + 1)
    for fetched in dict.fromkeys((few, len(vectors))):
        scores, found = index.search(np.ascontiguousarray(queries[waiting], dtype=np.float32), fetched)
        undecided = []
        for query, own_scores, own_rows in zip(waiting, scores, found, strict=True):
            target = wanted[query]
            at = np.flatnonzero(own_rows == rows[target])
            mine = own_scores[at[0]] if len(at) else queries[query] @ vectors[rows[target]]
            gone = left_out[query][left_out[query] != target]
            counting = (items_of_row - np.bincount(rows[gone], minlength=len(vectors)))[own_rows]
            may_tie = mine >= own_scores[-1] - CLOSE * (1 + abs(own_scores[-1]))  # with rows that were not fetched
            if fetched < len(vectors) and (may_tie or counting.sum() < (depth or 0)):
                undecided.append(query)
            elif not len(at):
                ranks[query] = len(rows) + 1  # beyond depth, to which it is cut below
            else:
                tied = int(counting[own_scores == mine].sum()) - 1
                better = int(counting[own_scores > mine].sum())
                ranks[query] = 1 + better + int(unit_hash("tie", keys[int(query)]) * (tied + 1))
        waiting = np.array(undecided, dtype=np.int64)
        if not undecided:
            break
    return ranks if depth is None else np.minimum(ranks, depth + 1)


def full_catalogue_log_softmax(
    queries: np.ndarray,
    vectors: np.ndarray,
    targets: Sequence[int] | np.ndarray,
    *,
    temperature: float,
    row_of: Sequence[int] | np.ndarray | None = None,
    excluded: Sequence[Sequence[int] | np.ndarray] | None = None,
    block: int = 256,
) -> np.ndarray:
    """log softmax(scores / temperature) of each target over all items that count, (B,) float64, at most 0.

    Arguments as in `full_catalogue_ranks`. A dense reward: it moves whenever the text does, whatever the negatives.
    `block` queries meet the catalogue at a time.
    """
    rows = np.arange(len(vectors)) if row_of is None else np.asarray(row_of, dtype=np.int64)
    wanted = np.asarray(targets, dtype=np.int64)
    left_out = [np.unique(np.asarray(items, dtype=np.int64)) for items in excluded or [()] * len(queries)]
    _check(queries, vectors, rows, wanted, [None] * len(queries), left_out, None)
    if temperature <= 0:
        raise InputError(f"temperature {temperature}", "must be above 0", "0.05 is usual for unit vectors")
    values = np.zeros(len(queries))
    for start in range(0, len(queries), block):
        logits = (queries[start : start + block] @ vectors.T).astype(np.float64)[:, rows] / temperature  # (b, N)
        for place, row in enumerate(logits, start):
            own = row[wanted[place]]
            row[left_out[place]] = -np.inf
            row[wanted[place]] = own
            values[place] = own - np.logaddexp.reduce(row)
    return values


def _check(
    queries: np.ndarray,
    vectors: np.ndarray,
    rows: np.ndarray,
    targets: np.ndarray,
    keys: Sequence[Hashable],
    left_out: Sequence[np.ndarray],
    depth: int | None,
) -> None:
    if not len(queries) == len(targets) == len(keys) == len(left_out):
        raise InputError(
            f"{len(queries)} queries, {len(targets)} targets, {len(keys)} keys, {len(left_out)} exclusions",
            "there must be as many of each",
            "pass one of each per query",
        )
    if depth is not None and depth < 1:
        raise InputError(f"depth {depth}", "must be at least 1", "use the largest k of your metrics, or None")
    named = np.concatenate([targets, *left_out]) if len(targets) else targets
    outside = named[(named < 0) | (named >= len(rows))]
    if len(outside):
        raise InputError(
            f"item {int(outside[0])} in a catalogue of {len(rows)}",
            "is outside it",
            "use its places 0..N-1",
        )
    if not (np.isfinite(queries).all() and np.isfinite(vectors).all()):
        raise InputError(
            "a vector that is not finite", "cannot be ranked by", "look at the encoder: its weights may be damaged"
        )
