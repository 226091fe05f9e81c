"""Every example's target ranked among the whole catalogue: rows that metrics and comparisons take like decisions.

Beside the decisions of sampled slates, which can reverse an ordering of recommenders. A row keeps the rank and the
number of items that competed (`slate_size`, from which chance levels follow), not thousands of scores.
"""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.logs.eligible import Eligible
from recsys.recommenders.base import Query
from recsys.recommenders.collaborative import history_item_ids
from recsys.recommenders.full_catalogue import CatalogueRanker

METRICS = ("recall@1", "recall@10", "recall@50", "ndcg@10")
BLOCK = 256  # queries that meet the catalogue at a time: bounds memory at so many rows of the catalogue's size
SCHEMA = {
    "example_id": pl.String,
    "user_id": pl.String,
    "verbalizer": pl.String,
    "recommender": pl.String,
    "seed": pl.Int64,
    "slate_size": pl.Int32,
    "rank": pl.Int32,
}


def rank_catalogue(
    ranker: CatalogueRanker,
    examples: pl.DataFrame,
    texts: Sequence[str],
    eligible: Eligible,
    *,
    verbalizer: str,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> pl.DataFrame:
    """One row per example (`SCHEMA`), in the examples' order: the target's exact rank among the items of `eligible`.

    `texts`: one per example, read by recommenders of texts; the others read the history. `progress(done)` counts
    examples. Ties are broken by the example alone, so arms that tie share their luck. Raises InputError when texts and
    examples do not match, or the recommender's catalogue is another one.
    """
    if len(texts) != len(examples):
        raise InputError(
            f"{len(texts)} texts for {len(examples)} examples", "there must be one per example", "use aligned_texts"
        )
    if list(ranker.item_ids) != eligible.item_ids:
        raise InputError(
            f"recommender {ranker.name} of {len(ranker.item_ids)} items",
            f"ranks another catalogue than the log's {len(eligible.item_ids)} items",
            "fit it on the items of the same log",
        )
    ids, targets = examples["example_id"].to_list(), examples["target_item_id"].to_list()
    queries = [Query(*row) for row in zip(ids, texts, history_item_ids(examples), strict=True)]
    ranks, sizes = [np.zeros(0, np.int32)], []
    for start in range(0, len(ids), BLOCK):
        block = slice(start, start + BLOCK)
        excluded = eligible.excluded(ids[block])
        ranks.append(ranker.catalogue_ranks(queries[block], targets[block], excluded=excluded))
        sizes += [len(eligible.item_ids) - len(left_out) for left_out in excluded]
        if progress:
            progress(min(start + BLOCK, len(ids)))
    columns = {
        "example_id": ids,
        "user_id": examples["user_id"],
        "verbalizer": [verbalizer] * len(ids),
        "recommender": [ranker.name] * len(ids),
        "seed": [seed] * len(ids),
        "slate_size": sizes,
        "rank": np.concatenate(ranks),
    }
    return pl.DataFrame(columns, schema=SCHEMA)
