"""The catalogue: cleaned, titled, each item once; or derived from events that carry their items' columns."""

import polars as pl

from recsys import contracts
from recsys.logs.text import clean

_TEXTS = ("kind", "parent_id", "series", "synopsis")
_LISTS = ("genres", "tags")


def clean_items(items: pl.DataFrame, counts: dict[str, int]) -> tuple[pl.DataFrame, pl.Series]:
    """Items with titles, ordered by item_id, each once; and the ids of those without a title.

    Of rows with the same id the smallest in column order stays (titled ones first), whatever the input's order.
    """
    counts["items_read"] = len(items)
    items = contracts.conform(items, "items")
    title = clean(pl.col("title"))
    changed = title.ne_missing(pl.col("title")) & title.is_not_null()
    counts["titles_cleaned"] = items.select(changed.sum()).item()
    items = items.with_columns(
        clean(pl.col("item_id")),
        title,
        *(clean(pl.col(name)) for name in _TEXTS),
        *(pl.col(name).fill_null([]) for name in _LISTS),
    )
    named = items.filter(pl.col("item_id").is_not_null())
    counts["items_without_id_dropped"] = len(items) - len(named)
    items = named
    plain = [name for name in items.columns if name not in _LISTS]
    joined = [pl.col(name).list.join("\x1f") for name in _LISTS]
    items = items[items.select(pl.arg_sort_by(*plain, *joined, nulls_last=True)).to_series()]
    once = items.unique("item_id", keep="first", maintain_order=True)
    counts["items_repeated_dropped"] = len(items) - len(once)
    titled = once.filter(pl.col("title").is_not_null())
    counts["items_without_title_dropped"] = len(once) - len(titled)
    counts["items_sharing_title_and_year"] = titled.select(pl.struct("title", "year").is_duplicated().sum()).item()
    return titled, once.filter(pl.col("title").is_null())["item_id"]


def derived_items(events: pl.DataFrame) -> pl.DataFrame:
    """A catalogue from events that carry titles: the first titled event of an item describes it and dates it.

    Taking the first keeps the catalogue leak-proof: later events cannot change what an item looked like before, and an
    item is no candidate before it was seen.
    """
    columns = [name for name in contracts.schema("items") if name in events.columns and name != "available_from"]
    titled = events.filter(pl.col("item_id").is_not_null() & pl.col("title").is_not_null())
    first = titled.sort("event_time", *columns).group_by("item_id", maintain_order=True).first()
    return first.select(*columns, pl.col("event_time").alias("available_from"))


def available_since(items: pl.DataFrame) -> pl.Series | None:
    """`available_from`, or None when no item has one."""
    return None if items["available_from"].null_count() == len(items) else items["available_from"]
