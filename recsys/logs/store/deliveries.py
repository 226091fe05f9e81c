"""What arrives, made comparable: an event's identity is its cleaned content, so a second delivery adds nothing.

Everything delivered is kept, also events of items that nobody has described yet: their description may arrive later.
Which of them are valid is decided when they are read, by `recsys.logs.events.canonicalise`. Its rules (equal rows once,
of rows that share a key the smallest) do not depend on order, so reading the store equals canonicalising everything
that was ever delivered.
"""

import polars as pl

from recsys import contracts
from recsys.errors import InputError
from recsys.logs.codes import cleaned
from recsys.logs.items import clean_items, derived_items
from recsys.logs.text import clean

KEYS = ("user_id", "item_id", "event_time", "event_type")
_TEXTS = ("user_id", "item_id", "event_type", "surface")
DELIVERY = "delivery"
"""Column of the kept item rows: which delivery brought the row first."""


def delivered_events(events: pl.DataFrame, counts: dict[str, int]) -> pl.DataFrame:
    """Distinct events with cleaned text, in the contract's columns; rows without user, item, time or type are dropped
    and counted. Raises ContractError where a column or a value breaks the contract: nothing of the batch is stored."""
    counts["events_read"] = len(events)
    names = [name for name in contracts.schema("events") if name in events.columns]
    missing = [name for name in KEYS if name not in names]
    if missing:
        raise InputError(
            f"a batch with columns {events.columns}", f"lacks {missing}", "read it through a mapping that names them"
        )
    events = contracts.conform(events.select(names), "events")
    events = events.with_columns(cleaned(events[name]) for name in _TEXTS if events.schema[name] == pl.String)
    known = events.drop_nulls(list(KEYS))
    counts["events_without_user_item_time_or_type_dropped"] = len(events) - len(known)
    contracts.check(known, "events", unique=False)
    once = known.unique(maintain_order=True)
    counts["events_repeated_in_batch"] = len(known) - len(once)
    return once


def unseen(batch: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Rows of `batch` that `known` does not hold, by all columns of the events contract."""
    # Few of the known rows share a moment with the batch; the rest cannot be equal.
    known = known.filter(pl.col("event_time").is_in(batch["event_time"].unique().implode()))
    return batch.join(known, on=list(contracts.schema("events")), how="anti", nulls_equal=True, maintain_order="left")


def described_items(
    kept: pl.DataFrame | None, items: pl.DataFrame | None, events: pl.DataFrame, titles: str, delivery: int
) -> pl.DataFrame | None:
    """The item rows to keep after a delivery: one per item where events carry titles (its first titled event), every
    distinct row with the number of its first delivery where items have tables of their own; None while there is none.

    A row that was delivered before keeps its number, so a second delivery of an old table reverts nothing.
    """
    if titles == "events":
        new = _well_typed(contracts.conform(derived_items(events), "items"))
        if kept is None:
            return new
        # The first of the firsts is the first of all: nothing but one row per item needs keeping.
        both = pl.concat([contracts.conform(kept, "items"), new])
        return contracts.conform(derived_items(both.rename({"available_from": "event_time"})), "items")
    if items is None or items.is_empty():
        return kept
    names = [name for name in contracts.schema("items") if name in items.columns]
    new = _well_typed(contracts.conform(items.select(names), "items"))
    new = new.with_columns(pl.lit(delivery, pl.Int64).alias(DELIVERY))
    rows = new if kept is None else pl.concat([contracts.conform(kept, "items").select(new.columns), new])
    return rows.unique([name for name in rows.columns if name != DELIVERY], keep="first", maintain_order=True)


def _well_typed(items: pl.DataFrame) -> pl.DataFrame:
    """Raises ContractError where titled rows break the contract of items; untitled ones count as not described yet."""
    titled = items.filter(pl.col("title").is_not_null()) if "title" in items.columns else items
    contracts.check(titled, "items", unique=False)
    return items


def catalogue(kept: pl.DataFrame | None) -> pl.DataFrame:
    """The live items table: of each item the titled rows of its latest delivery, reduced as `clean_items` reduces."""
    if kept is None or kept.is_empty():
        return contracts.empty("items")
    rows = contracts.conform(kept, "items")
    if DELIVERY in rows.columns:
        rows = rows.filter(clean(pl.col("title")).is_not_null()).with_columns(clean(pl.col("item_id")).alias("_id"))
        rows = rows.filter(pl.col(DELIVERY) == pl.col(DELIVERY).max().over("_id")).drop(DELIVERY, "_id")
    return contracts.check(clean_items(rows, {})[0], "items")


def changed_items(before: pl.DataFrame, after: pl.DataFrame) -> list[str]:
    """Ids of items that are new or described differently, sorted."""
    sides = [
        frame.with_columns(
            pl.col(name).list.join("\x1f") for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)
        )
        for frame in (before, after)
    ]
    new = sides[1].join(sides[0], on=sides[0].columns, how="anti", nulls_equal=True)
    return new["item_id"].sort().to_list()
