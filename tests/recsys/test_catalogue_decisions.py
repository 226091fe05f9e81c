"""Ranks among the whole catalogue: those of one long slate, for every kind of recommender; and their metrics."""

from collections.abc import Sequence

import logs_factory as factory
import numpy as np
import polars as pl
import pytest

from recsys import catalogue_decisions
from recsys.catalogue_decisions import METRICS, rank_catalogue
from recsys.comparison import compare, summarise
from recsys.errors import InputError
from recsys.logs.eligible import Eligible
from recsys.logs.examples import build_examples
from recsys.logs.tables import Log
from recsys.metrics import rank_of_target
from recsys.recommenders.base import Query
from recsys.recommenders.collaborative import history_item_ids
from recsys.recommenders.content import GenreOverlap
from recsys.recommenders.ease import Ease
from recsys.recommenders.embedding import EmbeddingRecommender, EmbeddingSettings
from recsys.recommenders.full_catalogue import CatalogueRanker
from recsys.recommenders.item_knn import ItemKNN
from recsys.recommenders.popularity import Popularity

BEFORE = factory.hour(15)


def directions(texts: Sequence[str]) -> np.ndarray:
    """One of three directions by the text's length: whole products, and ties in plenty."""
    return np.eye(3, dtype=np.float32)[[len(text) % 3 for text in texts]]


@pytest.fixture(scope="module")
def world() -> tuple[Log, pl.DataFrame, list[str]]:
    log = factory.make_log(factory.random_rows(np.random.default_rng(3), 160))
    examples, _ = build_examples(log, factory.small_config())
    later = examples.filter(pl.col("cutoff_time") >= BEFORE)
    texts = ["" if place % 5 == 0 else "x" * place for place in range(len(later))]
    return log, later, texts


def rankers(log: Log) -> dict[str, CatalogueRanker]:
    past = log.events.filter(pl.col("event_time") < BEFORE)
    shown = dict(log.items.select("item_id", pl.col("title") + pl.col("item_id").str.slice(2)).iter_rows())
    fitted = (model.fit(past, log.items, before=BEFORE) for model in (Popularity, ItemKNN, Ease, GenreOverlap))
    encoder = EmbeddingRecommender(shown, directions, EmbeddingSettings(temperature=1.0))
    return {one.name: one for one in (*fitted, encoder)}


@pytest.mark.parametrize("name", ["popularity", "item_knn", "ease", "genre_overlap", "minilm-embedding"])
def test_ranks_are_those_of_one_slate_that_holds_all_that_competes(
    world: tuple[Log, pl.DataFrame, list[str]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, examples, texts = world
    ranker = rankers(log)[name]
    assert isinstance(ranker, CatalogueRanker)
    eligible = Eligible(examples, log)
    monkeypatch.setattr(catalogue_decisions, "BLOCK", 4)  # several blocks
    found = rank_catalogue(ranker, examples, texts, eligible, verbalizer="v", seed=2)
    expected, sizes = [], []
    histories = history_item_ids(examples)
    for row, (example_id, target) in enumerate(examples.select("example_id", "target_item_id").iter_rows()):
        slate = [item for item, counts in zip(eligible.item_ids, eligible.allowed(row), strict=True) if counts]
        (scores,) = ranker.rank([Query(example_id, texts[row], histories[row])], [slate])  # type: ignore[attr-defined]
        expected.append(rank_of_target(scores, slate.index(target), example_id))
        sizes.append(len(slate))
    assert found["rank"].to_list() == expected and found["slate_size"].to_list() == sizes
    assert len(set(expected)) > 3 and min(sizes) > 20
    assert found["example_id"].equals(examples["example_id"]) and found["seed"].unique().to_list() == [2]


def test_metrics_intervals_and_comparisons_take_the_ranks_like_decisions(
    world: tuple[Log, pl.DataFrame, list[str]],
) -> None:
    log, examples, texts = world
    eligible = Eligible(examples, log)
    ranks = pl.concat(
        [
            rank_catalogue(one, examples, texts, eligible, verbalizer="text" if "embedding" in name else "history")
            for name, one in rankers(log).items()
        ]
    )
    table = summarise(ranks, METRICS, resamples=200)
    mine = ranks.filter(recommender="popularity")
    recall, ndcg = (
        table.filter(recommender="popularity", metric=metric).row(0, named=True) for metric in ("recall@10", "ndcg@10")
    )
    per_example = mine.select(hit=(pl.col("rank") <= 10).cast(pl.Float64), size="slate_size")
    assert recall["value"] == pytest.approx(per_example["hit"].mean())
    assert recall["chance"] == pytest.approx((10 / per_example["size"]).mean()) and recall["chance"] < 0.5
    gains = [1 / np.log2(1 + rank) if rank <= 10 else 0.0 for rank in mine["rank"]]
    assert ndcg["value"] == pytest.approx(np.mean(gains)) and ndcg["low"] <= ndcg["value"] <= ndcg["high"]
    one = compare(ranks, ("history", "popularity"), ("text", "minilm-embedding"), "recall@10", resamples=200)
    assert one.n == len(examples) and one.value == pytest.approx(one.value_a - one.value_b)


def test_another_catalogue_and_missing_texts_are_refused(world: tuple[Log, pl.DataFrame, list[str]]) -> None:
    log, examples, texts = world
    eligible = Eligible(examples, log)
    smaller = EmbeddingRecommender({"i00": "a"}, directions, EmbeddingSettings())
    with pytest.raises(InputError, match=r"of 1 items.*another catalogue than the log's 60"):
        rank_catalogue(smaller, examples, texts, eligible, verbalizer="v")
    with pytest.raises(InputError, match="0 texts"):
        rank_catalogue(rankers(log)["ease"], examples, [], eligible, verbalizer="v")
