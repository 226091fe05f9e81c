"""Exact filtered top-k over an index that knows no filters, with an order that batching cannot change.

FAISS fetches some neighbours; those a query may not see are dropped; when too few survive it fetches more, and at last
all permitted rows are compared directly. Kernels differ between batch sizes in the last bits of a float32 product, so
fetched rows are scored again in float64 and rounded, equal scores are ordered by a hash of their id, and a result
counts as complete only when nothing left unfetched could beat or equal its last row. Filters are therefore exact with
every index, and with an exact index so are the results. A graph misses neighbours; it never shows a forbidden one.
"""

from collections.abc import Callable

import numpy as np

from verbalize.experience.index import VectorIndex

DIGITS = 6
_SLACK = 1e-5  # more than kernels differ by, in float32
_CELLS = 1 << 24  # numbers in one temporary array
_FEW = 2048  # permitted rows that are compared directly at once, without the index

# Rows (B, M) of the index for the queries with positions (B,) -> which of them each query may see, (B, M).
Allowed = Callable[[np.ndarray, np.ndarray], np.ndarray]


def filtered_search(
    index: VectorIndex,
    vectors: np.ndarray,
    ties: np.ndarray,
    queries: np.ndarray,
    k: int,
    permitted: np.ndarray,
    allowed: Allowed,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per query up to k (rows, similarities), best first.

    `vectors` (N, D) are the index's rows, `ties` (N,) uint64 order equal similarities, `permitted` (N,) is what every
    query may see, `allowed` what each of them may. Cost: a batched search, plus a scan of the permitted rows for
    queries whose filters leave too few of the neighbours.
    """
    results: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0, np.int64), np.zeros(0))] * len(queries)
    if k < 1 or not len(queries) or not permitted.any():
        return results
    pending = np.arange(len(queries))
    count = int(permitted.sum())
    share = count / len(permitted)
    if count > _FEW and share > 0.2:
        for wanted in (2 * k + 16, 16 * k + 128):
            m = index.limit(int(wanted / share))
            pending = _fetch(index, vectors, ties, queries, k, permitted, allowed, pending, m, results)
            if not len(pending) or m == len(permitted):
                break
    _scan(vectors, ties, queries, k, permitted, allowed, pending, results)
    return results


def exact_similarities(vectors: np.ndarray, rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(B, M) similarities of the rows (B, M) with the queries (B, D), whatever else is in the batch."""
    found = np.empty(rows.shape)
    step = max(1, _CELLS // max(1, rows.shape[1] * vectors.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        gathered = vectors[rows[part]].astype(np.float64)  # (b, M, D)
        found[part] = np.matmul(gathered, queries[part, :, None].astype(np.float64))[..., 0]
    return np.round(found, DIGITS)


def _fetch(
    index: VectorIndex,
    vectors: np.ndarray,
    ties: np.ndarray,
    queries: np.ndarray,
    k: int,
    permitted: np.ndarray,
    allowed: Allowed,
    pending: np.ndarray,
    m: int,
    results: list[tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Answer what m neighbours suffice for; the positions of the other queries are returned."""
    rough, rows = index.search(queries[pending], m)
    seen = (rows >= 0) & permitted[rows] & allowed(pending, rows)
    scores = np.where(seen, exact_similarities(vectors, rows, queries[pending]), -np.inf)
    order = _order(scores, ties[rows])[:, :k]
    best, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
    done = np.isfinite(scores).sum(1) == k
    if m < len(permitted):
        done &= rough[:, -1] < scores[:, -1] - _SLACK
    for place in np.flatnonzero(done):
        results[pending[place]] = (best[place], scores[place])
    return pending[~done]


def _scan(
    vectors: np.ndarray,
    ties: np.ndarray,
    queries: np.ndarray,
    k: int,
    permitted: np.ndarray,
    allowed: Allowed,
    pending: np.ndarray,
    results: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    """Compare the pending queries with all permitted rows."""
    if not len(pending):
        return
    sparse = 2 * int(permitted.sum()) < len(permitted)  # else copying the permitted rows would cost more than it saves
    rows = np.flatnonzero(permitted) if sparse else np.arange(len(permitted))
    candidates = vectors[rows] if sparse else vectors
    step = max(1, _CELLS // len(rows))
    for start in range(0, len(pending), step):
        part = pending[start : start + step]
        seen = permitted[rows] & allowed(part, np.broadcast_to(rows, (len(part), len(rows))))
        rough = np.where(seen, queries[part] @ candidates.T, -np.inf)
        for place, query in enumerate(part):
            values = rough[place]
            near = np.flatnonzero(seen[place])
            if len(near) > k:
                near = near[values[near] >= np.partition(values[near], -k)[-k] - _SLACK]
            scores = exact_similarities(vectors, rows[near][None], queries[query : query + 1])
            order = _order(scores, ties[rows[near]][None])[0, :k]
            results[query] = (rows[near][order], scores[0, order])


def _order(scores: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Row-wise order by descending score, then ascending tie."""
    first = np.argsort(ties, axis=1, kind="stable")
    second = np.argsort(-np.take_along_axis(scores, first, 1), axis=1, kind="stable")
    return np.take_along_axis(first, second, 1)
