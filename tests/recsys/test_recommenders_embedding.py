"""The embedding recommender: scores by definition, the whole catalogue against brute force, and the real encoder."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.evaluation import TextScorer
from recsys.metrics import expression, target_ranks
from recsys.recommenders.base import Query, Recommender
from recsys.recommenders.embedding import EmbeddingRecommender, EmbeddingSettings, build_embedding_recommender
from recsys.recommenders.full_catalogue import full_catalogue_log_softmax, full_catalogue_ranks
from recsys.recommenders.language import LanguageRecommenderConfig, build_language_recommender
from recsys.seeding import rng

TITLES = {"a": "war film", "b": "love story", "c": "war film", "d": "space opera", "e": "night train"}


def letters(texts: Sequence[str]) -> np.ndarray:
    """Letter counts as unit vectors: an encoder one can follow."""
    counts = np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], dtype=np.float64)
    return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


class Counting:
    """Remembers which texts were embedded."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        return letters(texts)


def brute_ranks(
    queries: np.ndarray, items: np.ndarray, targets: Sequence[int], excluded: Sequence[Sequence[int]], keys: list[int]
) -> np.ndarray:
    """By the definition of `recsys.metrics.target_ranks`, on the items that count."""
    scores, places = [], []
    for query, target, gone in zip(queries.astype(np.float64), targets, excluded, strict=True):
        kept = [item for item in range(len(items)) if item == target or item not in gone]
        scores.append(items[kept].astype(np.float64) @ query)
        places.append(kept.index(target))
    return target_ranks(scores, places, keys)


@given(seed=st.integers(0, 10_000), depth=st.one_of(st.none(), st.integers(1, 12)), shared=st.booleans())
@settings(max_examples=60, deadline=None)
def test_catalogue_ranks_equal_brute_force(seed: int, depth: int | None, shared: bool) -> None:
    """Small whole numbers: products are exact and ties abound. `shared` lets several items be shown alike."""
    random = rng(seed, "catalogue")
    n_rows, n_queries = int(random.integers(1, 25)), int(random.integers(1, 6))
    vectors = random.integers(-2, 3, (n_rows, 3)).astype(np.float32)
    row_of = random.integers(0, n_rows, n_rows + 7) if shared else np.arange(n_rows)
    queries = random.integers(-2, 3, (n_queries, 3)).astype(np.float32)
    queries[0] = 0  # a blank text: everything ties
    targets = random.integers(0, len(row_of), n_queries)
    excluded = [random.integers(0, len(row_of), int(random.integers(0, 5))).tolist() for _ in range(n_queries)]
    keys = list(range(n_queries))
    expected = brute_ranks(queries, vectors[row_of], targets.tolist(), excluded, keys)
    found = full_catalogue_ranks(queries, vectors, targets, keys, row_of=row_of, excluded=excluded, depth=depth)
    assert found.dtype == np.int32
    assert found.tolist() == (expected if depth is None else np.minimum(expected, depth + 1)).tolist()


def test_metrics_of_a_shallow_search_are_those_of_the_whole_catalogue() -> None:
    random = rng(0, "metrics")
    items, queries = (random.standard_normal((n, 16)).astype(np.float32) for n in (300, 80))
    items, queries = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (items, queries))
    targets = (queries @ items.T).argsort(axis=1)[:, -12:][np.arange(80), random.integers(0, 12, 80)]
    whole, shallow = (full_catalogue_ranks(queries, items, targets, range(80), depth=depth) for depth in (None, 10))
    assert whole.max() > 10 == shallow.max() - 1
    for metric in ("recall@1", "recall@10", "ndcg@10"):
        one, other = (
            pl.DataFrame({"rank": ranks}).select(expression(metric).mean()).item() for ranks in (whole, shallow)
        )
        assert one == other and 0 < one < 1


def test_log_softmax_is_a_distribution_over_what_counts() -> None:
    random = rng(1, "softmax")
    vectors, query = (
        random.standard_normal((9, 4)).astype(np.float32),
        random.standard_normal((1, 4)).astype(np.float32),
    )
    row_of, gone = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1]), [2, 3]
    values = [
        full_catalogue_log_softmax(query, vectors, [item], temperature=0.5, row_of=row_of, excluded=[gone])[0]
        for item in range(11)
        if item not in gone
    ]
    assert float(np.exp(values).sum()) == pytest.approx(1.0, abs=1e-6)
    expected = np.exp(vectors[row_of].astype(np.float64) @ query[0].astype(np.float64) / 0.5)
    assert values[0] == pytest.approx(np.log(expected[0] / np.delete(expected, gone).sum()), abs=1e-5)
    several = np.repeat(query, 5, axis=0)
    blocks = full_catalogue_log_softmax(several, vectors, [0] * 5, temperature=0.5, row_of=row_of, block=2)
    assert blocks == pytest.approx(np.full(5, blocks[0]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"targets": [9]}, "item 9"),
        ({"excluded": [[-1]]}, "item -1"),
        ({"depth": 0}, "depth 0"),
        ({"keys": []}, "0 keys"),
        ({"queries": np.full((1, 2), np.nan, dtype=np.float32)}, "not finite"),
    ],
)
def test_bad_requests_to_the_catalogue_are_refused(change: dict, words: str) -> None:
    good = {
        "queries": np.ones((1, 2), np.float32),
        "vectors": np.eye(2, dtype=np.float32),
        "targets": [0],
        "keys": ["k"],
    }
    with pytest.raises(InputError, match=words):
        full_catalogue_ranks(**{**good, **change})


def test_scores_are_scaled_cosines_and_blank_texts_score_zero() -> None:
    recommender = EmbeddingRecommender(TITLES, letters, EmbeddingSettings(temperature=0.1))
    assert isinstance(recommender, Recommender) and isinstance(recommender, TextScorer)
    slate = ["d", "a", "c", "b"]
    scores = recommender.rank([Query("e", "wars in space"), Query("f", " \n")], [slate, slate])
    cosines = letters([TITLES[item] for item in slate]) @ letters(["wars in space"])[0]
    assert scores[0] == pytest.approx(cosines / 0.1, abs=1e-4) and scores[0].dtype == np.float64
    assert scores[0][1] == scores[0][2] and scores[1].tolist() == [0.0] * 4
    backwards = recommender.rank([Query("e", "wars in space")], [slate[::-1]])[0]
    assert backwards.tolist() == scores[0].tolist()[::-1]  # to the last bit


def test_items_are_embedded_once_and_equal_texts_once_per_call() -> None:
    encoder = Counting()
    recommender = EmbeddingRecommender(TITLES, encoder, EmbeddingSettings())
    for _ in range(2):
        recommender.score_texts(["x war", "love", "x war", ""], [["a"], ["b"], ["c", "d"], ["e"]])
    assert encoder.calls == [sorted(set(TITLES.values())), ["love", "x war"], ["love", "x war"]]


def test_the_catalogue_of_a_recommender_leaves_history_out_and_knows_items_shown_alike() -> None:
    recommender = EmbeddingRecommender(TITLES, letters, EmbeddingSettings())
    query = Query("e1", "war film", ("a", "unknown"))
    alone = recommender.catalogue_ranks([query], ["c"])
    assert alone.tolist() == [1]  # its double is in the history
    both = {
        int(recommender.catalogue_ranks([Query(f"e{n}", "war film", ("a",))], ["c"], excluded=[()])[0])
        for n in range(30)
    }
    assert both == {1, 2}  # a fair draw between the two
    assert recommender.catalogue_ranks([query] * 2, ["c", "b"], depth=1).tolist() == [1, 2]
    softmax = [recommender.catalogue_log_softmax([query], [item])[0] for item in "bcde"]
    assert float(np.exp(softmax).sum()) == pytest.approx(1.0, abs=1e-6) and max(softmax) == softmax[1]
    with pytest.raises(InputError, match="item 'zz'"):
        recommender.catalogue_ranks([query], ["zz"])
    with pytest.raises(InputError, match="item 'zz'"):
        recommender.rank([query], [["a", "zz"]])


def test_settings_are_checked() -> None:
    for bad in ({"temperature": 0.0}, {"max_tokens": 0}, {"batch_size": 0}):
        with pytest.raises(InputError):
            EmbeddingSettings(**bad)  # type: ignore[arg-type]


@pytest.mark.real_model
def test_the_real_encoder_finds_what_a_text_is_about() -> None:
    titles = {
        "w": "Saving Private Ryan",
        "r": "My Best Friend's Wedding",
        "s": "Star Trek: First Contact",
        "k": "Toy Story",
    }
    config = LanguageRecommenderConfig(mode="embedding", embedding=EmbeddingSettings(max_tokens=40))
    recommender = build_language_recommender(config, titles)
    assert isinstance(recommender, EmbeddingRecommender) and recommender.name == "minilm-embedding"
    texts = [
        "Star Wars; Star Trek: Generations; Alien",
        "Four Weddings and a Funeral; The Wedding Singer",
    ]
    scores = recommender.score_texts(texts, [list(titles)] * 2)
    assert int(scores[0].argmax()) == 2 and int(scores[1].argmax()) == 1
    queries = [Query("a", texts[0], ("s",)), Query("b", texts[1])]
    assert recommender.catalogue_ranks(queries, ["s", "r"]).tolist() == [1, 1]
    with pytest.raises(InputError, match=r"text of \d+ tokens.*embedding.cut"):
        recommender.score_texts([texts[0] * 20], [list(titles)])
    cutting = EmbeddingRecommender(
        titles, recommender.encoder, EmbeddingSettings(max_tokens=40, cut=True), recommender.encoder_tokenizer
    )
    cutting.score_texts([texts[0] * 20, texts[1]], [list(titles)] * 2)
    assert cutting.report() == {"encoder": "minilm", "texts_cut": 1}
    with pytest.raises(InputError, match=r"max_tokens = 9999.*reads \(512\)"):
        build_embedding_recommender(EmbeddingSettings(max_tokens=9999), titles)


@pytest.mark.real_model
def test_an_adapter_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="somewhere"):
        build_language_recommender(LanguageRecommenderConfig(mode="embedding", adapter="somewhere"), {"a": "Heat"})
