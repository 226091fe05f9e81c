"""Exact filtered top-k over an index that knows no filters, with an order that batching cannot change.

FAISS fetches some neighbours; those a query may not see are dropped; when too few survive it fetches more, and at last
all permitted rows are compared directly. Kernels differ between batch sizes in the last bits of a float32 product, so
fetched rows are scored again in float64 and rounded, equal scores are ordered by a hash of their id, and a result
counts as complete only when nothing left unfetched could beat or equal its last row. Filters are therefore exact with
every index, and with an exact index so are the results. A graph misses neighbours; it never shows a forbidden one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from verbalize.experience.index import VectorIndex

DIGITS = 6
_SLACK = 1e-5  # more than kernels differ by, in float32
_CELLS = 1 << 24  # numbers in one temporary array
_FEW = 2048  # permitted rows that are compared directly at once, without the index

# Rows (B, M) of the index for the queries with positions (B,) -> which of them each query may see, (B, M).
Allowed = Callable[[np.ndarray, np.ndarray], np.ndarray]
Found = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class FilteredSearch:
    """The k nearest rows that each of B queries may see.

    Cost: a batched search, plus a scan of the permitted rows for queries whose filters leave too few of the neighbours.
    """

    index: VectorIndex
    vectors: np.ndarray
    """(N, D), the index's rows."""
    ties: np.ndarray
    """(N,) uint64, the order of equal similarities."""
    queries: np.ndarray
    """(B, D)."""
    k: int
    permitted: np.ndarray
    """(N,), what every query may see."""
    allowed: Allowed
    """What each of them may."""

    def run(self) -> list[Found]:
        """Per query up to k (rows, similarities), best first."""
        results: list[Found] = [(np.zeros(0, np.int64), np.zeros(0))] * len(self.queries)
        if self.k < 1 or not len(self.queries) or not self.permitted.any():
            return results
        pending = np.arange(len(self.queries))
        count = int(self.permitted.sum())
        share = count / len(self.permitted)
        if count > _FEW and share > 0.2:
            for wanted in (2 * self.k + 16, 16 * self.k + 128):
                m = self.index.limit(int(wanted / share))
                pending = self._fetch(pending, m, results)
                if not len(pending) or m == len(self.permitted):
                    break
        self._scan(pending, results)
        return results

    def _fetch(self, pending: np.ndarray, m: int, results: list[Found]) -> np.ndarray:
        """Answer what m neighbours suffice for; the positions of the other queries are returned."""
        queries = self.queries[pending]
        rough, rows = self.index.search(queries, m)
        seen = (rows >= 0) & self.permitted[rows] & self.allowed(pending, rows)
        scores = np.where(seen, exact_similarities(self.vectors, rows, queries), -np.inf)
        order = _order(scores, self.ties[rows])[:, : self.k]
        best, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
        done = np.isfinite(scores).sum(1) == self.k
        if m < len(self.permitted):
            done &= rough[:, -1] < scores[:, -1] - _SLACK
        for place in np.flatnonzero(done):
            results[pending[place]] = (best[place], scores[place])
        return pending[~done]

    def _scan(self, pending: np.ndarray, results: list[Found]) -> None:
        """Compare the pending queries with all permitted rows."""
        if not len(pending):
            return
        total = len(self.permitted)
        sparse = 2 * int(self.permitted.sum()) < total  # else copying the permitted rows would cost more than it saves
        rows = np.flatnonzero(self.permitted) if sparse else np.arange(total)
        candidates = self.vectors[rows] if sparse else self.vectors
        step = max(1, _CELLS // len(rows))
        for start in range(0, len(pending), step):
            part = pending[start : start + step]
            seen = self.permitted[rows] & self.allowed(part, np.broadcast_to(rows, (len(part), len(rows))))
            rough = np.where(seen, self.queries[part] @ candidates.T, -np.inf)
            for place, query in enumerate(part):
                values = rough[place]
                near = np.flatnonzero(seen[place])
                if len(near) > self.k:
                    near = near[values[near] >= np.partition(values[near], -self.k)[-self.k] - _SLACK]
                scores = exact_similarities(self.vectors, rows[near][None], self.queries[query : query + 1])
                order = _order(scores, self.ties[rows[near]][None])[0, : self.k]
                results[query] = (rows[near][order], scores[0, order])


def exact_similarities(vectors: np.ndarray, rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(B, M) similarities of the rows (B, M) with the queries (B, D), whatever else is in the batch."""
    found = np.empty(rows.shape)
    step = max(1, _CELLS // max(1, rows.shape[1] * vectors.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        gathered = vectors[rows[part]].astype(np.float64)  # (b, M, D)
        found[part] = np.matmul(gathered, queries[part, :, None].astype(np.float64))[..., 0]
    return np.round(found, DIGITS)


def _order(scores: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Row-wise order by descending score, then ascending tie."""
    first = np.argsort(ties, axis=1, kind="stable")
    second = np.argsort(-np.take_along_axis(scores, first, 1), axis=1, kind="stable")
    return np.take_along_axis(first, second, 1)
