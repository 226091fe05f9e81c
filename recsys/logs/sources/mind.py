"""News logs in the layout of MIND (Wu et al. 2020): `behaviors.tsv` (impression id, user, time, earlier clicks, shown
items with labels) beside `news.tsv` (id, category, subcategory, title, abstract, ...).

What was shown becomes impressions, and each click of an impression an event `click` at its time. The earlier clicks of
a user carry no times: those of the user's *first* behaviour become events `click_undated`, in their order, one
microsecond apart, the last one microsecond before that behaviour. That is the latest they can have happened, so nothing
is in anyone's past too early; it is an order, not a rhythm, and no target. Later lists of the same user only repeat
these and the clicks in between.

Times carry no zone and are read as UTC. An article is no candidate before it was first shown or clicked (the files give
no publication times). Category is the genre, subcategory a tag.
"""

from pathlib import Path

import polars as pl

from recsys.calendar_range import first_row
from recsys.errors import CorruptFileError, InputError
from recsys.logs.engaged import EngagedConfig
from recsys.logs.impressions import click_events
from recsys.logs.sources.files import FileConfig, collect, scan
from recsys.logs.tables import RawLog

BEHAVIORS = ("impression_id", "user_id", "time", "history", "shown")
NEWS = ("item_id", "category", "subcategory", "title", "synopsis", "url", "title_entities", "abstract_entities")
_TIMES = ("%m/%d/%Y %I:%M:%S %p", "%Y-%m-%d %H:%M:%S")
_CLICK, _UNDATED = "click", "click_undated"


def read(path: Path) -> RawLog:
    """The log in a folder with both files. Raises InputError for absent labels and unreadable times, with a row;
    CorruptFileError for files of another shape."""
    folder = path if path.is_dir() else path.parent
    behaviors = _tsv(folder, "behaviors.tsv", BEHAVIORS)
    news = _tsv(folder, "news.tsv", NEWS)
    time = pl.coalesce(pl.col("time").str.strip_chars().str.to_datetime(form, strict=False) for form in _TIMES)
    behaviors = behaviors.with_columns(time.cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("shown_at"))
    _refuse(behaviors, pl.col("shown_at").is_null(), "time", "is not a time like 11/11/2019 9:05:58 AM")
    _refuse(behaviors, pl.col("user_id").is_null() | pl.col("impression_id").is_null(), "user_id", "is empty")
    impressions = _impressions(behaviors)
    undated, counts = _undated(behaviors)
    events = pl.concat([click_events(impressions, _CLICK), undated], how="diagonal_relaxed")
    items = _items(news, impressions, events)
    empty = behaviors.select(pl.col("shown").fill_null("").str.strip_chars(" ") == "").to_series()
    counts = {"behaviors_read": len(behaviors), "behaviors_showing_nothing": int(empty.sum()), **counts}
    provenance = {"events": "behaviors.tsv", "items": "news.tsv"}
    return RawLog(events.lazy(), items, provenance, EngagedConfig(event_types=(_CLICK,)), impressions, counts)


def _impressions(behaviors: pl.DataFrame) -> pl.DataFrame:
    """One row per item shown, positions as listed."""
    rows = behaviors.select("impression_id", "user_id", "shown_at", pl.col("shown").fill_null("").str.split(" "))
    rows = rows.with_columns(pl.col("shown").list.eval(pl.element().filter(pl.element() != "")))
    rows = rows.with_columns(pl.int_ranges(1, pl.col("shown").list.len() + 1, dtype=pl.Int32).alias("position"))
    rows = rows.filter(pl.col("shown").list.len() > 0).explode("shown", "position")
    parts = pl.col("shown").str.extract_groups(r"^(.+)-([01])$")
    rows = rows.with_columns(parts.struct.field("1").alias("item_id"), parts.struct.field("2").alias("label"))
    _refuse(
        rows, pl.col("label").is_null(), "shown", "has no label -0 or -1 (a test file without labels gives no targets)"
    )
    clicked = pl.col("label") == "1"
    return rows.select(
        "impression_id",
        "user_id",
        "item_id",
        "shown_at",
        "position",
        clicked.alias("clicked"),
        pl.when(clicked).then("shown_at").alias("click_time"),
    )


def _undated(behaviors: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Clicks before each user's first behaviour, and how many later lists were not needed."""
    listed = behaviors.with_columns(pl.col("history").fill_null("").str.strip_chars())
    first = listed.sort("user_id", "shown_at", "impression_id").unique("user_id", keep="first", maintain_order=True)
    again = listed.join(first.select("user_id", pl.col("history").alias("first")), on="user_id")
    rows = first.select("user_id", "shown_at", pl.col("history").str.split(" ").alias("item_id"))
    rows = rows.with_columns(pl.int_ranges(pl.col("item_id").list.len(), 0, step=-1).alias("back"))
    rows = rows.explode("item_id", "back").filter(pl.col("item_id") != "")
    events = rows.select(
        "user_id",
        "item_id",
        (pl.col("shown_at") - pl.duration(microseconds=pl.col("back"))).alias("event_time"),
        pl.lit(_UNDATED).alias("event_type"),
    )
    counts = {
        "undated_clicks_placed_before_first_impression": len(events),
        "later_click_lists_that_differ": again.select((pl.col("history") != pl.col("first")).sum()).item(),
    }
    return events, counts


def _items(news: pl.DataFrame, impressions: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    shown = impressions.select("item_id", pl.col("shown_at").alias("event_time"))
    seen = (
        pl.concat([shown, events.select("item_id", "event_time")]).group_by("item_id").agg(pl.col("event_time").min())
    )
    return news.join(seen, on="item_id", how="left", maintain_order="left").select(
        "item_id",
        "title",
        pl.lit("article").alias("kind"),
        pl.concat_list("category").list.drop_nulls().alias("genres"),
        pl.concat_list("subcategory").list.drop_nulls().alias("tags"),
        "synopsis",
        pl.col("event_time").alias("available_from"),
    )


def _tsv(folder: Path, name: str, columns: tuple[str, ...]) -> pl.DataFrame:
    lazy = scan(FileConfig(name, "csv", "\t"), folder)
    width = len(lazy.collect_schema())
    if width != len(columns):
        raise CorruptFileError(
            str(folder / name),
            f"has {width} tab-separated columns, expected {len(columns)} ({', '.join(columns)})",
            "give a folder with behaviors.tsv and news.tsv as MIND ships them",
        )
    return collect(scan(FileConfig(name, "csv", "\t", columns), folder), name)


def _refuse(rows: pl.DataFrame, broken: pl.Expr, column: str, rule: str) -> None:
    found = rows.filter(broken)
    if len(found):
        raise InputError(
            f"column {column!r}, {len(found)} of {len(rows)} rows, e.g. {str(first_row(found))[:300]}",
            rule,
            "correct or drop these rows",
        )
