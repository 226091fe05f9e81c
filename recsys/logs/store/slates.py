"""Slates under a frozen reference: `recsys.logs.slates` with the reference's popularity, years and dates.

The draw of one example depends on its id, its user's past and the reference, on no other user: that is what makes a
recomputation of touched users complete.
"""

import numpy as np
import polars as pl

from recsys.logs.popularity import Popularity
from recsys.logs.slates import draw_counted
from recsys.logs.store.reference import Reference, slate_items
from recsys.logs.tables import Log


def frozen_slates(examples: pl.DataFrame, log: Log, reference: Reference) -> pl.Series:
    """List[String] slates of `examples`, in their order; `log` needs to hold no other users than theirs.

    Raises InputError when an example has too few candidates.
    """
    items = slate_items(log.items, reference)
    seen = Log(log.events, items, known=(log.events, items, log.codes))
    config = reference.examples
    popularity = frozen_popularity(log.items, reference)
    drawn, _ = draw_counted(examples, seen, config.slate, 1, config.seed, None, popularity)
    return drawn["slate"]


def frozen_popularity(live: pl.DataFrame, reference: Reference) -> Popularity:
    """The reference's events by item and day, its items named by their rows in the live catalogue."""
    rows = live.select("item_id").with_row_index("row")
    here = reference.items.join(rows, on="item_id", how="left", maintain_order="left")["row"].to_numpy()
    day, code, count = (reference.counts[name].to_numpy() for name in ("day", "code", "count"))
    # Both catalogues are ordered by id, so the order by day and item is kept.
    return Popularity(day.astype(np.int64), here[code].astype(np.uint32), count.astype(np.int64), len(live))
