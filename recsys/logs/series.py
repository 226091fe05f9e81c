"""Series in place of their episodes: for whoever recommends shows, not the next episode.

Discovery already looks at `parent_id`, so episodes may stay the items; rolled up, the series *is* the item, in
histories, slates and candidates alike.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import polars as pl

from recsys import contracts
from recsys.errors import InputError
from recsys.logs.batches import derived_catalogue
from recsys.logs.items import derived_items
from recsys.logs.tables import PassingLog, RawLog
from recsys.logs.text import clean

_DESCRIBED = [name for name in contracts.schema("items") if name != "item_id"]


def rolled_up(raw: RawLog) -> RawLog:
    """`raw` with episodes' events, impressions and catalogue rows on their series.

    A series takes the catalogue's own row of that id where there is one; else its title is `series` (its id where that
    is missing), its genres and tags are the episodes' together, its year and available_from their earliest. A runtime
    is an episode's, so series have none; completions stay as they were. Raises InputError when no item has a parent.
    """
    catalogue, to_parent, counts = _with_series(derived_items(raw.events.collect()) if raw.items is None else raw.items)
    impressions = raw.impressions if raw.impressions is None else _lifted(raw.impressions.lazy(), to_parent).collect()
    events = _lifted(raw.events, to_parent).drop(_DESCRIBED, strict=False)
    return dataclasses.replace(raw, events=events, items=catalogue, impressions=impressions, counts=raw.counts | counts)


def rolled_up_passing(log: PassingLog) -> PassingLog:
    """`rolled_up` of a log that passes by."""
    catalogue, to_parent, counts = _with_series(derived_catalogue(log) if log.items is None else log.items)

    def read(columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        for batch in log.read([*{"item_id": None, **dict.fromkeys(columns)}]):
            yield _lifted(batch.lazy(), to_parent).select(columns).collect()

    schema = pl.Schema({name: dtype for name, dtype in log.schema.items() if name not in _DESCRIBED})
    return dataclasses.replace(log, read=read, schema=schema, items=catalogue, counts=log.counts | counts)


def _with_series(items: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """The catalogue with series for episodes; item_id and `_parent` of each episode; how many of both."""
    items = contracts.conform(items, "items").with_columns(clean(pl.col("item_id")), clean(pl.col("parent_id")))
    episodes = items.filter(pl.col("parent_id").is_not_null() & (pl.col("parent_id") != pl.col("item_id")))
    if episodes.is_empty():
        raise InputError(
            f"source.roll_up: {len(items)} items without parent_id",
            "there is no series to roll up to",
            "map parent_id under items.columns, or leave source.roll_up out",
        )
    parents = episodes.sort("item_id").unique("item_id", keep="first", maintain_order=True)
    others = items.join(episodes.select("item_id"), on="item_id", how="anti")
    series = _series(parents).join(others.select("item_id"), on="item_id", how="anti")
    catalogue = pl.concat([others, contracts.conform(series, "items")], how="diagonal_relaxed")
    counts = {"items_rolled_up": len(parents), "series": parents["parent_id"].n_unique()}
    return catalogue, parents.select("item_id", pl.col("parent_id").alias("_parent")), counts


def _lifted(rows: pl.LazyFrame, to_parent: pl.DataFrame) -> pl.LazyFrame:
    rows = rows.with_columns(clean(pl.col("item_id")))
    rows = rows.join(to_parent.lazy(), on="item_id", how="left", maintain_order="left")
    return rows.with_columns(pl.coalesce("_parent", "item_id").alias("item_id")).drop("_parent")


def _series(episodes: pl.DataFrame) -> pl.DataFrame:
    """One row per parent, of all its episodes."""
    together = [
        pl.col(name).explode().drop_nulls().unique(maintain_order=True).alias(name) for name in ("genres", "tags")
    ]
    return episodes.group_by(pl.col("parent_id").alias("item_id"), maintain_order=True).agg(
        pl.coalesce(pl.col("series").drop_nulls().first(), pl.col("parent_id").first()).alias("title"),
        pl.lit("series").first().alias("kind"),
        pl.col("year").min(),
        # A series is there as soon as one episode is; an episode without a date was always there.
        pl.when(pl.col("available_from").null_count() == 0)
        .then(pl.col("available_from").min())
        .alias("available_from"),
        *together,
    )
