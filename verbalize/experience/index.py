"""A FAISS index by inner product that grows row by row: flat (exact), or a graph (HNSW) above a configured size.

Rows are numbered in order of addition and are never removed: the library masks what it has dropped and rebuilds at
compaction. A graph is built by one thread, so the same additions give the same graph.

A batch on a flat CPU index is one matrix product over FAISS's own storage, not FAISS's batched search: in the wheel of
1.15.1 (128 queries, 100,000 rows of 384, one thread) that took as long as its single searches one after another, 1.9 s
of CPU, where numpy's product takes 0.1 s.
"""

from typing import Any

import numpy as np

from recsys.errors import InputError
from verbalize.experience.settings import IndexConfig

_BATCH = 4  # queries from which one matrix product is faster than single searches
_BLOCK = 64  # rows whose largest similarity stands for them while the best are sought
_CELLS = 1 << 24  # similarities held at once
_GPU_LIMIT = 2048  # neighbours per query that faiss-gpu can return


class GrowingMatrix:
    """Rows appended at amortised constant cost; `view` is the filled part, valid until the next `append`."""

    def __init__(self, width: int, dtype: Any = np.float32) -> None:
        self._data = np.zeros((0, width), dtype=dtype)
        self._rows = 0

    @property
    def view(self) -> np.ndarray:
        return self._data[: self._rows]

    def append(self, rows: np.ndarray) -> None:
        needed = self._rows + len(rows)
        if needed > len(self._data):
            larger = np.zeros((max(needed, 2 * len(self._data)), self._data.shape[1]), dtype=self._data.dtype)
            larger[: self._rows] = self.view
            self._data = larger
        self._data[self._rows : needed] = rows
        self._rows = needed


class VectorIndex:
    """`add` (N, D) float32 unit vectors, then `search`. `exact` says whether results are the true neighbours."""

    def __init__(self, dimension: int, config: IndexConfig) -> None:
        self._faiss, self.dimension, self.config = _faiss(), dimension, config
        self.exact = config.kind != "hnsw"
        self._index = self._flat() if self.exact else self._graph()

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, vectors: np.ndarray) -> None:
        """Append rows; turn to a graph when `auto` passes `hnsw_above` (once, O(N log N))."""
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if self.config.kind == "auto" and self.exact and len(self) + len(vectors) > self.config.hnsw_above:
            known = self._index.reconstruct_n(0, len(self)) if len(self) else vectors[:0]
            self._index, self.exact = self._graph(), False
            vectors = np.concatenate([known, vectors])
        if self.exact:
            self._index.add(vectors)
            return
        threads = self._faiss.omp_get_max_threads()
        self._faiss.omp_set_num_threads(1)
        try:
            self._index.add(vectors)
        finally:
            self._faiss.omp_set_num_threads(threads)

    def limit(self, n: int) -> int:
        """How many of n wanted neighbours one search can give."""
        return min(n, len(self), _GPU_LIMIT if self._on_gpu else len(self))

    def search(self, queries: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
        """Similarities and rows, (B, m), best first. A graph may return fewer: row −1."""
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if self.exact and len(queries) >= _BATCH and not self._on_gpu:
            size = len(self) * self.dimension
            stored = self._faiss.rev_swig_ptr(self._index.get_xb(), size).reshape(-1, self.dimension)
            return product_search(stored, queries, m)
        if self.exact:
            return self._index.search(queries, m)  # type: ignore[no-any-return]
        parameters = self._faiss.SearchParametersHNSW(efSearch=max(self.config.hnsw_search, m))
        return self._index.search(queries, m, params=parameters)  # type: ignore[no-any-return]

    @property
    def _on_gpu(self) -> bool:
        return self.exact and type(self._index).__name__.startswith("Gpu")

    def _flat(self) -> Any:
        flat = self._faiss.IndexFlatIP(self.dimension)
        devices = getattr(self._faiss, "get_num_gpus", int)() if hasattr(self._faiss, "StandardGpuResources") else 0
        if self.config.device == "gpu" and not devices:
            raise InputError(
                "index.device gpu",
                "faiss sees no GPU: faiss-gpu is not installed or no device is visible",
                "install the extra `gpu` instead of `cpu`, or set index.device: auto",
            )
        if not devices or self.config.device == "cpu":
            return flat
        self._resources = self._faiss.StandardGpuResources()  # must outlive the index
        return self._faiss.index_cpu_to_gpu(self._resources, 0, flat)

    def _graph(self) -> Any:
        graph = self._faiss.IndexHNSWFlat(self.dimension, self.config.hnsw_links, self._faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = self.config.hnsw_construction
        return graph


def product_search(vectors: np.ndarray, queries: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The m <= N rows of (N, D) with the largest products with each of (B, D): products and rows (B, m), best first.

    The m best lie in the m blocks of rows with the largest maxima, so only those are sorted. Exact in float32; rows of
    equal similarity come in any order.
    """
    n, blocks = len(vectors), len(vectors) // _BLOCK
    scores, rows = np.empty((len(queries), m), np.float32), np.empty((len(queries), m), np.int64)
    step = max(1, _CELLS // max(1, n))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        products = queries[part] @ vectors.T  # (b, N)
        if m < blocks:
            largest = products[:, : blocks * _BLOCK].reshape(-1, blocks, _BLOCK).max(2)
            best = np.argpartition(largest, blocks - m, axis=1)[:, blocks - m :]
            inside = (best[:, :, None] * _BLOCK + np.arange(_BLOCK)).reshape(len(products), -1)
            rest = np.broadcast_to(np.arange(blocks * _BLOCK, n), (len(products), n - blocks * _BLOCK))
            columns = np.concatenate([inside, rest], 1)
            products = np.take_along_axis(products, columns, 1)
        else:
            columns = np.broadcast_to(np.arange(n), products.shape)
        order = np.argsort(-products, axis=1, kind="stable")[:, :m]
        scores[part], rows[part] = np.take_along_axis(products, order, 1), np.take_along_axis(columns, order, 1)
    return scores, rows


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "faiss", "is not installed, and the experience library searches with it", "install the extra `cpu` or `gpu`"
        ) from error
    return faiss
