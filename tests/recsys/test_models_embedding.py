"""Sentence embeddings from the real MiniLM: they mean something, and neither batching nor order changes them."""

import numpy as np
import pytest

from recsys.models.embedding import embed_texts

pytestmark = pytest.mark.real_model

TEXTS = [
    "A space war between rebels and an empire",
    "Rebels fight an empire among the stars",
    "A recipe for onion soup",
    "x",
]


def test_rows_have_unit_length_and_likeness_follows_meaning() -> None:
    vectors = embed_texts(TEXTS)
    assert vectors.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.5 > likeness[0, 2]


def test_batches_and_order_do_not_matter() -> None:
    together = embed_texts(TEXTS)
    one_by_one = np.concatenate([embed_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)
    np.testing.assert_allclose(embed_texts(TEXTS[::-1], batch_size=2)[::-1], together, atol=1e-5)
