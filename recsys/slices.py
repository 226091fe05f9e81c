"""Where an arm wins and where it loses: by the target's place in the slate, by history length, by the target's
popularity.

A slice table names the level of each ranking: example_id, optionally slate_index, then `slice` and `level`
(String). Levels are made to sort as text.
"""

from collections.abc import Sequence

import polars as pl

from recsys.comparison import summarise
from recsys.errors import InputError
from recsys.significance import RESAMPLES


def by_target_position(decisions: pl.DataFrame) -> pl.DataFrame:
    """Levels "01", "02", ...: the target's place in the slate as shown. A difference reveals a recommender's taste
    for places.
    """
    level = (pl.col("target_index") + 1).cast(pl.String).str.zfill(2)
    return decisions.select(
        "example_id", "slate_index", pl.lit("target position").alias("slice"), level.alias("level")
    ).unique(maintain_order=True)


def by_history_length(examples: pl.DataFrame, edges: Sequence[int] = (10, 20, 50)) -> pl.DataFrame:
    """Levels such as "010-019" events, cut at `edges` (each the first length of its level)."""
    bounds = [0, *edges]
    labels = [f"{low:03d}-{high - 1:03d}" for low, high in zip(bounds, edges, strict=False)] + [f"{bounds[-1]:03d}+"]
    level = (
        pl.col("history").list.len().cast(pl.Int64).cut(list(edges), labels=labels, left_closed=True).cast(pl.String)
    )
    return examples.select("example_id", pl.lit("history length").alias("slice"), level.alias("level"))


def by_popularity_tercile(examples: pl.DataFrame, events: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Levels "1 rare", "2 middle", "3 popular": thirds of the examples by their target's number of events before
    each cutoff.

    Equal counts are kept together, so thirds may be uneven. `events` may hold later ones; they are not counted.
    """
    counts = (
        examples.lazy()
        .select("example_id", "cutoff_time", item_id="target_item_id")
        .join(events.lazy().select("item_id", "event_time"), on="item_id", how="left")
        .group_by("example_id")
        .agg((pl.col("event_time") < pl.col("cutoff_time")).sum().alias("events"))
        .collect(engine="streaming")
    )
    third = ((pl.col("events").rank("average") - 0.5) * 3 / pl.len()).floor().cast(pl.Int32).clip(0, 2)
    names = {0: "1 rare", 1: "2 middle", 2: "3 popular"}
    levels = counts.select("example_id", third.replace_strict(names, return_dtype=pl.String).alias("level"))
    return examples.select("example_id", pl.lit("target popularity").alias("slice")).join(
        levels, on="example_id", how="left", maintain_order="left"
    )


def by_target_kind(examples: pl.DataFrame, events: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Levels "1 discovery"; "2 known series", another episode of a series the user had touched; "3 again", the item
    itself had been touched before the cutoff. `events` may hold later ones; they are not looked at.
    """
    touched = (
        examples.lazy()
        .select("example_id", "user_id", "cutoff_time", item_id="target_item_id")
        .join(events.lazy().select("user_id", "item_id", "event_time"), on=["user_id", "item_id"])
        .filter(pl.col("event_time") < pl.col("cutoff_time"))
        .collect(engine="streaming")
    )
    again = pl.col("example_id").is_in(touched["example_id"].unique().implode())
    level = pl.when("is_discovery").then(pl.lit("1 discovery")).when(again).then(pl.lit("3 again"))
    return examples.select(
        "example_id", pl.lit("target").alias("slice"), level.otherwise(pl.lit("2 known series")).alias("level")
    )


def summarise_slices(
    decisions: pl.DataFrame,
    slices: Sequence[pl.DataFrame],
    metric: str = "recall@1",
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pl.DataFrame:
    """`summarise` within each level of each slice table: its columns behind `slice` and `level`, sorted by both.

    Levels are looked at one by one: an interval is that level's own, no correction for their number is made.
    """
    frames = []
    for table in slices:
        keys = [name for name in ("example_id", "slate_index") if name in table.columns]
        joined = decisions.join(table, on=keys, how="left")
        if joined["level"].null_count():
            raise InputError(
                f"slice table {table['slice'].first()!r}",
                f"names no level for {joined['level'].null_count()} of {joined.height} rankings",
                "make it from the examples that were ranked",
            )
        for (name, value), part in joined.group_by(["slice", "level"]):
            summary = summarise(part.drop("slice", "level"), [metric], level=level, resamples=resamples, seed=seed)
            frames.append(summary.select(pl.lit(name).alias("slice"), pl.lit(value).alias("level"), pl.all()))
    if not frames:
        raise InputError(
            "no rankings or no slice tables", "there is nothing to cut", "pass decisions and at least one slice table"
        )
    return pl.concat(frames).sort("slice", "level", "verbalizer", "recommender")
