"""A raw log made canonical: cleaned, de-duplicated, ordered by user, time and item; every treatment is counted.

Ids and event types become integer codes in the order of their cleaned text (see `codes`), so cleaning is done once per
distinct value and sorting compares integers; the text returns at the end, and the codes stay with the log.
"""

import numpy as np
import polars as pl

from recsys import contracts
from recsys.errors import InputError
from recsys.logs.coded import coded
from recsys.logs.codes import cleaned, distinct, in_order, recoded, run_starts
from recsys.logs.items import available_since, clean_items, derived_items
from recsys.logs.tables import Log, RawLog
from recsys.logs.text import clean

_ORDER = ("user", "time", "item", "type")
_DROPPED = ("without_user_or_item", "of_items_without_title", "of_unknown_items", "without_time_or_type")
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
    log = canonical_events(events, items, untitled, counts, raw)
    refuse_empty(log.counts)
    return log


def canonical_events(
    events: pl.DataFrame, items: pl.DataFrame, untitled: pl.Series, counts: dict[str, int], raw: RawLog
) -> Log:
    """The log of raw `events` under a catalogue that `clean_items` made; `counts` says what that dropped.

    A user's events depend on no other user's, so any part of a log that holds whole users may be passed, and counts
    add up. A part may end up empty.
    """
    counts = dict(counts)
    rows, keys, names = _coded(events, items, untitled, counts)
    rows, keys = _ordered_once(events, rows, keys, counts)
    rows, keys = _available(rows, keys, items, counts)
    opens = run_starts(keys["user"])
    again = ~run_starts(keys["user"], keys["time"])
    counts["events_tied_in_time"] = int((again | np.append(again[1:], False)).sum())
    counts |= {"events_kept": len(rows), "users_kept": int(opens.sum()), "items_kept": len(items)}
    codes = coded(names["user"].gather(keys["user"][opens]), opens, keys["item"], keys["time"])
    columns = {
        "user_id": names["user"].gather(keys["user"]),
        "item_id": names["item"].gather(keys["item"]),
        "event_time": pl.Series(keys["time"]).cast(events.schema["event_time"]),
        "event_type": names["type"].gather(keys["type"]),
    }
    values = _values(events)
    values = values[rows] if values.width else values  # a frame without columns has no rows to gather
    canonical = contracts.conform(pl.DataFrame({**columns, **values.to_dict()}), "events")
    canonical, items = contracts.check(canonical, "events", unique=False), contracts.check(items, "items")
    return Log(canonical, items, counts, raw.engaged, known=(canonical, items, codes))


def refuse_empty(counts: dict[str, int]) -> None:
    """Raises InputError when no event is left."""
    if not counts["events_kept"]:
        raise InputError(
            f"log with {counts['events_read']} events and {counts['items_read']} items",
            f"nothing is left after cleaning: {counts}",
            "see which count took the events, and correct the source or its mapping",
        )


def _coded(
    events: pl.DataFrame, items: pl.DataFrame, untitled: pl.Series, counts: dict[str, int]
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, pl.Series]]:
    """Row numbers of the events of known users and items; user, time, item and type of each as integers that ascend
    with time and cleaned text (items: rows of the catalogue); the text of each code."""
    users, user_table = _ranked(events["user_id"])
    types, type_table = _ranked(events["event_type"])
    things, item_table = distinct(events["item_id"])
    catalogue = items.select(pl.col("item_id").alias("name")).with_row_index("rank")
    item_table = item_table.with_columns(clean(pl.col("text")).alias("name"))
    item_table = item_table.join(catalogue, on="name", how="left", maintain_order="left")
    item_table = item_table.with_columns(pl.col("name").is_in(untitled.to_list()).alias("untitled"))
    coded = pl.DataFrame(
        {
            "user": recoded(users, user_table, "rank"),
            "time": events["event_time"].to_physical(),
            "item": recoded(things, item_table, "rank"),
            "type": recoded(types, type_table, "rank"),
        }
    )
    untitled_rows = recoded(things, item_table, "untitled").alias("untitled")
    kept = coded.select(pl.all_horizontal(pl.all().is_not_null())).to_series()
    rows = np.arange(len(events))
    if kept.all():
        dropped = dict.fromkeys(_DROPPED, 0)
    else:
        dropped = _why_dropped(coded.with_columns(untitled_rows))
        coded, rows = coded.filter(kept), np.flatnonzero(kept.to_numpy())
    counts |= {f"events_{name}_dropped": count for name, count in dropped.items()}
    names = {"user": _named(user_table), "item": catalogue["name"], "type": _named(type_table)}
    return rows, {name: coded[name].to_numpy() for name in _ORDER}, names


def _why_dropped(coded: pl.DataFrame) -> dict[str, int]:
    nameless = pl.col("user").is_null() | pl.col("untitled").is_null()
    unknown = pl.col("item").is_null() & ~pl.col("untitled")
    conditions = (
        nameless,
        ~nameless & pl.col("untitled"),
        ~nameless & unknown,
        pl.col("time").is_null() | pl.col("type").is_null(),
    )
    return coded.select(rows.sum().alias(name) for name, rows in zip(_DROPPED, conditions, strict=True)).row(
        0, named=True
    )


def _ranked(text: pl.Series) -> tuple[pl.Series, pl.DataFrame]:
    """Local codes, and for each its cleaned text (`name`) and the dense rank of that (`rank`, UInt32)."""
    codes, table = distinct(text)
    table = table.with_columns(clean(pl.col("text")).alias("name"))
    return codes, table.with_columns((pl.col("name").rank("dense") - 1).cast(pl.UInt32).alias("rank"))


def _named(table: pl.DataFrame) -> pl.Series:
    """The text of each rank."""
    return table.drop_nulls("name").unique("rank").sort("rank")["name"]


def _values(events: pl.DataFrame) -> pl.DataFrame:
    """The optional columns; those that are null throughout are left out, not carried along."""
    held = [name for name in _VALUES if name in events.columns and events[name].null_count() < len(events)]
    return events.select(cleaned(events[name]) if name == "surface" else pl.col(name) for name in held)


def _ordered_once(
    events: pl.DataFrame, rows: np.ndarray, keys: dict[str, np.ndarray], counts: dict[str, int]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows and keys sorted by user, time, item, type; one row for each. Duplicates are neighbours after the sort."""
    order, keys = in_order(keys)
    rows = rows[order]
    later = ~run_starts(keys["user"])
    later[1:] &= (keys["time"][1:] > keys["time"][:-1]) & (rows[1:] < rows[:-1])
    counts["events_out_of_order_in_input"] = int(later.sum())
    counts["events_exact_duplicates_dropped"] = counts["events_conflicting_dropped"] = 0
    first = run_starts(*keys.values())
    if first.all():
        return rows, keys
    # Only rows that repeat a key are ordered by their values too: which of them stays may not depend on the input.
    group = np.flatnonzero(~first | ~np.append(first[1:], True))
    values = _values(events[rows[group]])
    some = pl.DataFrame({"_run": np.cumsum(first[group]), "_row": rows[group], **values.to_dict()})
    some = some.sort("_run", *values.columns, nulls_last=True, maintain_order=True)
    equal = [pl.col(name).eq_missing(pl.col(name).shift()) for name in ("_run", *values.columns)]
    exact = int(some.select(pl.all_horizontal(equal).fill_null(False).sum()).item())
    counts["events_exact_duplicates_dropped"] = exact
    counts["events_conflicting_dropped"] = int((~first).sum()) - exact
    rows[group[first[group]]] = some.filter(pl.col("_run").is_first_distinct())["_row"].to_numpy()
    return rows[first], {name: column[first] for name, column in keys.items()}


def _available(
    rows: np.ndarray, keys: dict[str, np.ndarray], items: pl.DataFrame, counts: dict[str, int]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    since = available_since(items)
    counts["events_before_available_dropped"] = 0
    if since is None:
        return rows, keys
    earliest = since.dt.epoch("us").fill_null(np.iinfo(np.int64).min).to_numpy()
    early = keys["time"] < earliest[keys["item"]]
    counts["events_before_available_dropped"] = int(early.sum())
    return rows[~early], {name: column[~early] for name, column in keys.items()}
