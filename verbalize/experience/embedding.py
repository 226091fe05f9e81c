"""Texts to unit vectors for the library: any callable, behind a cache, because rollouts repeat their texts."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from recsys.errors import InputError

# N texts -> (N, D) float32, rows of length 1.
Embedder = Callable[[Sequence[str]], np.ndarray]


class CachedEmbedder:
    """Embeds each distinct text once and keeps the `capacity` most recently used vectors.

    Without a callable, the sentence encoder `name` is loaded on first use.
    """

    def __init__(self, name: str, embed: Embedder | None = None, capacity: int = 20_000) -> None:
        self._name, self._embed, self._capacity = name, embed, capacity
        self._known: OrderedDict[str, np.ndarray] = OrderedDict()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) float32. Raises InputError when the callable does not give unit vectors."""
        new = sorted({text for text in texts if text not in self._known})
        fresh = dict(zip(new, self._vectors(new), strict=True)) if new else {}
        rows = [fresh[text] if text in fresh else self._known[text] for text in texts]
        for text, row in zip(texts, rows, strict=True):
            self._known[text] = row
            self._known.move_to_end(text)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)

    def forget(self) -> None:
        """Drop all cached texts."""
        self._known.clear()

    def _vectors(self, texts: Sequence[str]) -> np.ndarray:
        if self._embed is None:
            from recsys.models.embedding import SentenceEncoder

            self._embed = SentenceEncoder(self._name)
        return unit_vectors(self._embed(texts), len(texts))


def unit_vectors(vectors: np.ndarray, n: int, dimension: int | None = None) -> np.ndarray:
    """The same as (n, D) float32. Raises InputError for another shape, or rows that are not of length 1."""
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != n or dimension not in (None, vectors.shape[1]):
        raise InputError(
            f"vectors of shape {vectors.shape}",
            f"must be ({n}, {dimension or 'D'})",
            "embed with the model the library was made with",
        )
    lengths = np.linalg.norm(vectors, axis=1)
    if n and not bool((np.abs(lengths - 1) < 1e-3).all()):
        worst = float(lengths[np.abs(lengths - 1).argmax()])
        raise InputError(
            f"a vector of length {worst:.4g}", "similarities are inner products of unit vectors", "normalise the rows"
        )
    return vectors
