"""A raw log made canonical: cleaned, de-duplicated, ordered by user, time and item; every treatment is counted.

Ids and event types become integer codes in the order of their cleaned text (see `codes`), so cleaning is done once per
distinct value and sorting compares integers; the text returns at the end.
"""

import polars as pl

from recsys import contracts
from recsys.errors import InputError
from recsys.logs.codes import cleaned, distinct, order, recoded
from recsys.logs.items import available_since, clean_items, derived_items
from recsys.logs.tables import Log, RawLog
from recsys.logs.text import clean

_ORDER = ("user_code", "event_time", "item_code", "type_code")
_VALUES = ("duration_s", "completion", "rating", "surface")


def canonicalise(raw: RawLog) -> Log:
    """Events and items under their contracts.

    Dropped and counted: items without a title (with their events), repeated items, events of unknown items, events
    lacking a user or an item, exact duplicates, rows that repeat user, item, time and type with other values (the
    smallest in column order stays), events before their item was available. Counted only: ties in time within a user,
    rows that came before an earlier event of their user (the one count that depends on the order of the input), titles
    that needed cleaning.

    The result does not depend on the order of the input's rows. Raises InputError when nothing remains.
    """
    events = raw.events.collect()
    counts = {"events_read": len(events)}
    items, untitled = clean_items(derived_items(events) if raw.items is None else raw.items, counts)
    coded, names = _coded(events, items, untitled, counts)
    coded = _ordered_once(coded, counts)
    coded = _available(coded, items, counts)
    if coded.is_empty():
        raise InputError(
            f"log with {counts['events_read']} events and {counts['items_read']} items",
            f"nothing is left after cleaning: {counts}",
            "see which count took the events, and correct the source or its mapping",
        )
    tied = _same("user_code") & _same("event_time")
    counts["events_tied_in_time"] = coded.select((tied | tied.shift(-1).fill_null(False)).sum()).item()
    users = coded.select((~_same("user_code")).sum()).item()
    counts |= {"events_kept": len(coded), "users_kept": users, "items_kept": len(items)}
    texts = [table["name"].gather(coded[code]).alias(name) for name, code, table in names]
    canonical = contracts.conform(coded.drop("user_code", "item_code", "type_code").with_columns(texts), "events")
    return Log(contracts.check(canonical, "events", unique=False), contracts.check(items, "items"), counts, raw.engaged)


def _coded(
    events: pl.DataFrame, items: pl.DataFrame, untitled: pl.Series, counts: dict[str, int]
) -> tuple[pl.DataFrame, list[tuple[str, str, pl.DataFrame]]]:
    """Events of known users and items with user_code, item_code, type_code in place of text, and the text of each code.

    Codes ascend with the cleaned text. Optional columns that are null throughout are left out, not carried along.
    """
    users, user_table = _ranked(events["user_id"])
    types, type_table = _ranked(events["event_type"])
    things, item_table = distinct(events["item_id"])
    catalogue = items.select(pl.col("item_id").alias("name")).with_row_index("rank")
    item_table = item_table.with_columns(clean(pl.col("text")).alias("name"))
    item_table = item_table.join(catalogue, on="name", how="left", maintain_order="left")
    item_table = item_table.with_columns(pl.col("name").is_in(untitled.to_list()).alias("untitled"))
    values = [name for name in _VALUES if name in events.columns and events[name].null_count() < len(events)]
    coded = events.select(
        recoded(users, user_table, "rank").alias("user_code"),
        recoded(things, item_table, "rank").alias("item_code"),
        recoded(types, type_table, "rank").alias("type_code"),
        recoded(things, item_table, "untitled"),
        "event_time",
        *(cleaned(events[name]) if name == "surface" else pl.col(name) for name in values),
    )
    nameless = pl.col("user_code").is_null() | pl.col("untitled").is_null()
    unknown = pl.col("item_code").is_null() & ~pl.col("untitled")
    found = coded.select(
        nameless.sum().alias("without_user_or_item"),
        (~nameless & pl.col("untitled")).sum().alias("of_items_without_title"),
        (~nameless & unknown).sum().alias("of_unknown_items"),
        (pl.col("event_time").is_null() | pl.col("type_code").is_null()).sum().alias("without_time_or_type"),
    ).row(0, named=True)
    counts |= {f"events_{name}_dropped": count for name, count in found.items()}
    if any(found.values()):
        coded = coded.drop_nulls(["user_code", "item_code", "type_code", "event_time"])
    names = [
        ("user_id", "user_code", _named(user_table)),
        ("item_id", "item_code", catalogue),
        ("event_type", "type_code", _named(type_table)),
    ]
    return coded.drop("untitled"), names


def _ranked(text: pl.Series) -> tuple[pl.Series, pl.DataFrame]:
    """Local codes, and for each its cleaned text (`name`) and the dense rank of that (`rank`, UInt32)."""
    codes, table = distinct(text)
    table = table.with_columns(clean(pl.col("text")).alias("name"))
    return codes, table.with_columns((pl.col("name").rank("dense") - 1).cast(pl.UInt32).alias("rank"))


def _named(table: pl.DataFrame) -> pl.DataFrame:
    """One row per rank."""
    return table.drop_nulls("name").unique("rank").sort("rank").select("name")


def _ordered_once(events: pl.DataFrame, counts: dict[str, int]) -> pl.DataFrame:
    """Sorted by user, time, item, type; one row for each. Duplicates are neighbours after the sort."""
    rows = order(events, list(_ORDER))
    events = events[rows]
    later = _same("user_code") & (pl.col("event_time") > pl.col("event_time").shift())
    counts["events_out_of_order_in_input"] = events.select((later & (rows < rows.shift())).sum()).item()
    counts["events_exact_duplicates_dropped"] = counts["events_conflicting_dropped"] = 0
    same_key = pl.all_horizontal(_same(name) for name in _ORDER)
    again = events.select(same_key.alias("again")).to_series()
    if not again.any():
        return events
    values = [name for name in _VALUES if name in events.columns]
    equal = pl.all_horizontal(pl.lit(True), *(pl.col(name).eq_missing(pl.col(name).shift()) for name in values))
    if not events.select((pl.lit(again) & ~equal).any()).item():
        counts["events_exact_duplicates_dropped"] = int(again.sum())
        return events.filter(~again)
    # Only rows that repeat a key are ordered by their values too: which of them stays may not depend on the input.
    group = again | again.shift(-1).fill_null(False)
    some = events.filter(group).sort(*_ORDER, *values, nulls_last=True)
    counts["events_exact_duplicates_dropped"] = some.select((same_key & equal).sum()).item()
    counts["events_conflicting_dropped"] = int(again.sum()) - counts["events_exact_duplicates_dropped"]
    first = some.filter(some.select(~same_key).to_series())
    kept = events.filter(~again)
    places = group.filter(~again).arg_true()
    return kept.with_columns(kept[name].scatter(places, first[name]) for name in values)


def _available(events: pl.DataFrame, items: pl.DataFrame, counts: dict[str, int]) -> pl.DataFrame:
    since = available_since(items)
    if since is None:
        counts["events_before_available_dropped"] = 0
        return events
    early = (events["event_time"] < since.gather(events["item_code"])).fill_null(False)
    counts["events_before_available_dropped"] = int(early.sum())
    return events.filter(~early)


def _same(name: str) -> pl.Expr:
    """Whether a row repeats the value of the row before."""
    return (pl.col(name) == pl.col(name).shift()).fill_null(False)
