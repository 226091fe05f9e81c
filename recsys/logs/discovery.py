"""Discovery: the user never touched this item, nor another of the same series, at any earlier time of the whole log.

In logs where a user rates an item once, every target is a discovery.
"""

import polars as pl

from recsys.logs.codes import distinct, recoded


def with_discovery(targets: pl.DataFrame, events: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Add `is_discovery` to targets (user_id, item_id, event_time), keeping rows and their order.

    `events` is the whole log, ordered by user: what lies outside the shown history counts as well. An event at the very
    time of the target is not earlier. The item level is parent_id where the catalogue has one.
    """
    series = items.select("item_id", pl.coalesce("parent_id", "item_id").rank("dense").cast(pl.UInt64).alias("series"))
    things, table = distinct(events["item_id"])
    table = table.join(series, left_on="text", right_on="item_id", how="left", maintain_order="left")
    users = pl.col("user_id").rle_id().cast(pl.UInt64)
    # One integer per user and series; only what some target touches matters, and of that the first time.
    width = len(items) + 1
    touches = events.select("user_id", "event_time", users.alias("user"), recoded(things, table, "series"))
    touches = touches.with_columns((pl.col("user") * width + pl.col("series")).alias("touch"))
    numbers = touches.filter((pl.col("user") != pl.col("user").shift()).fill_null(True)).select("user_id", "user")
    wanted = targets.select("user_id", "item_id", "event_time")
    wanted = wanted.join(numbers, on="user_id", how="left", maintain_order="left")
    wanted = wanted.join(series, on="item_id", how="left", maintain_order="left")
    wanted = wanted.select("event_time", (pl.col("user") * width + pl.col("series")).alias("touch"))
    first = touches.select("touch", "event_time").join(wanted.select("touch").unique(), on="touch", how="semi")
    first = first.group_by("touch").agg(pl.col("event_time").min().alias("first_touch"))
    wanted = wanted.join(first, on="touch", how="left", maintain_order="left")
    return targets.with_columns((wanted["first_touch"] >= wanted["event_time"]).alias("is_discovery"))
