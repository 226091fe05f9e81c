"""Discovery: the user never touched this item, nor another of the same series, at any earlier time of the whole log.

In logs where a user rates an item once, every target is a discovery.
"""

import numpy as np
import polars as pl

from recsys.logs.coded import Codes
from recsys.logs.codes import run_starts, stable_order


def series_of(items: pl.DataFrame) -> np.ndarray:
    """The level at which discovery is judged: a code of parent_id where the catalogue has one, else of the item,
    (items,)."""
    return items.select((pl.coalesce("parent_id", "item_id").rank("dense") - 1).cast(pl.UInt64)).to_series().to_numpy()


def discoveries(codes: Codes, series: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Boolean (B,): whether the event in each of `rows` (B,) is a discovery.

    Every event of the log counts as a touch, whether a history shows it or not. An event at the very time of the target
    is not earlier.
    """
    users = np.repeat(np.arange(len(codes.lengths), dtype=np.uint64), codes.lengths)
    touches = users * np.uint64(len(series)) + series[codes.items]
    order = stable_order(touches)  # rows are in time order within a user, so each run begins with the first touch
    opens = run_starts(touches[order])
    first_rows = np.empty(len(order), np.int64)
    first_rows[order] = order[opens][np.cumsum(opens) - 1]
    return codes.times[first_rows[rows]] >= codes.times[rows]
