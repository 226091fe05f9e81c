"""Discovery: the user never touched this item, nor another of the same series, at any earlier time of the whole log.

In logs where a user rates an item once, every target is a discovery.
"""

import polars as pl


def with_discovery(targets: pl.DataFrame, events: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Add `is_discovery` to targets (user_id, item_id, event_time), keeping rows and their order.

    `events` is the whole log: what lies outside the shown history counts as well. An event at the very time of the target is not
    earlier. The item level is parent_id where the catalogue has one.
    """
    if items["parent_id"].null_count() < len(items):
        series = items.select("item_id", pl.coalesce("parent_id", "item_id").alias("series"))
        targets = targets.join(series, on="item_id", how="left", maintain_order="left")
        events = events.select("user_id", "item_id", "event_time").join(series, on="item_id", how="left")
    else:
        targets = targets.with_columns(pl.col("item_id").alias("series"))
        events = events.select("user_id", pl.col("item_id").alias("series"), "event_time")
    # Only what some target touches matters, and of that the first time.
    first = events.join(targets.select("user_id", "series").unique(), on=["user_id", "series"], how="semi")
    first = first.group_by("user_id", "series").agg(pl.col("event_time").min().alias("first_touch"))
    joined = targets.join(first, on=["user_id", "series"], how="left", maintain_order="left")
    return joined.with_columns((pl.col("first_touch") >= pl.col("event_time")).alias("is_discovery")).drop(
        "series", "first_touch"
    )
