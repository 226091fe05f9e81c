"""The viewing history that a Netflix member can download: `ViewingActivity.csv` of the account's data, or the short
`Title,Date` list of one profile.

Long form: one row per view with its start (UTC, as the file says), duration h:mm:ss and device; the profile is the
user. What the file knows decides the event type:

| event_type | row |
|---|---|
| `play` | a view of at least `engaged_min_s`: the engaged ones |
| `short_play` | a shorter view: tried, resumed for its end, or hit by accident |
| `autoplay` | started by itself and left without any action of the viewer |
| `preview` | a trailer, hook, recap ...: a supplemental video type is given, or the title is a hook's |

A preview is an item of its own: having seen a trailer is not having seen the show. The file has no runtimes, so no
completion; the longest bookmark of a title would be one, but of later views.

Short form: dates without time or profile. They give an order, not a rhythm: rows of a day follow each other by a
second from midnight of `zone` on, the bottom of the file first (it lists the newest first).
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl

from recsys.contracts import nearest
from recsys.errors import InputError
from recsys.logs.engaged import EngagedConfig
from recsys.logs.sources.files import FileConfig, collect, scan
from recsys.logs.sources.mapping_columns import refuse_zone
from recsys.logs.sources.netflix_titles import episode, hook
from recsys.logs.tables import RawLog
from recsys.logs.text import clean

_START = ("Start Time", "Start Time (UTC)")
_LONG = ("Profile Name", "Duration", "Title")
_DATE_ORDERS = ("dmy", "mdy", "ymd")
EARLIEST = dt.datetime(1998, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class NetflixConfig:
    """Under `source.inline`. `engaged_min_s`: seconds that make a view a `play`. `previews`: `keep` them as events of
    their own type, or `drop` them. For the short form: `user` names the viewer, `zone` is where the dates were written,
    `date_order` (dmy, mdy, ymd) is needed where the dates leave it open."""

    engaged_min_s: float = 300.0
    previews: str = "keep"
    user: str = "viewer"
    zone: str = "UTC"
    date_order: str = ""


def read(path: Path, options: Mapping[str, Any] | None = None) -> RawLog:
    """The log in a viewing-activity file, or in the one CSV of a folder whose name says so.

    Raises InputError for other columns, and for durations or times that are not what the format says, with a row.
    """
    config = _config(options or {})
    file = _file(path)
    lazy = scan(FileConfig(file.name, "csv"), file.parent)
    names = lazy.collect_schema().names()
    start = next((name for name in _START if name in names), "")
    if start and all(name in names for name in _LONG):
        views = _long(collect(lazy, file.name), start, config)
    elif len(names) == 2:
        views = _short(collect(lazy.rename(dict(zip(names, ("title", "date"), strict=True))), file.name), config)
    else:
        raise InputError(
            f"{file.name}: columns {names[:12]}",
            f"are neither {[start or _START[0], *_LONG]} nor a title and a date",
            "give ViewingActivity.csv of the account's data, or the list of one profile",
        )
    return _log(views, file.name, config)


def _log(views: pl.DataFrame, name: str, config: NetflixConfig) -> RawLog:
    """Events and the catalogue that their titles spell."""
    read_rows = len(views)
    views = views.with_columns(clean(pl.col("title"))).with_columns(hook("title"))
    is_preview = pl.col("preview") | pl.col("hook")
    views = views.with_columns(is_preview.alias("preview")).with_columns(
        pl.when("preview").then(pl.lit("preview")).otherwise("event_type").alias("event_type"),
        pl.when("preview").then(pl.concat_str(pl.lit("preview:"), "title")).otherwise("title").alias("item_id"),
    )
    counts = {
        "rows_read": read_rows,
        "views_hidden_by_member": int(views["hidden"].sum()),
        "views_autoplayed": int((views["event_type"] == "autoplay").sum()),
        "previews_recognised": int(views["preview"].sum()),
        "previews_dropped": int(views["preview"].sum()) if config.previews == "drop" else 0,
    }
    if config.previews == "drop":
        views = views.filter(~pl.col("preview"))
    items = views.select("item_id", "title", "preview", "event_time").drop_nulls("item_id")
    items = items.group_by("item_id").agg(
        pl.col("title").first(), pl.col("preview").first(), pl.col("event_time").min()
    )
    items = items.sort("item_id").with_columns(episode("title")).unnest("episode")
    own = ~pl.col("preview") & pl.col("series").is_not_null()
    items = items.select(
        "item_id",
        "title",
        pl.when("preview")
        .then(pl.lit("preview"))
        .when(own)
        .then(pl.lit("episode"))
        .otherwise(pl.lit("film"))
        .alias("kind"),
        pl.when(own).then(pl.concat_str(pl.lit("series:"), "series")).alias("parent_id"),
        pl.when(own).then("series").alias("series"),
        pl.col("event_time").alias("available_from"),
    )
    counts["items_rolled_up_to_a_series"] = int((items["kind"] == "episode").sum())
    events = views.select("user_id", "item_id", "event_time", "event_type", "duration_s", "surface")
    rule = EngagedConfig(event_types=("play",))
    return RawLog(events.lazy(), items, {"events": name, "items": "derived from titles"}, rule, None, counts)


def _long(rows: pl.DataFrame, start: str, config: NetflixConfig) -> pl.DataFrame:
    def text(name: str) -> pl.Expr:
        return pl.col(name) if name in rows.columns else pl.lit(None, pl.String)

    parts = pl.col("Duration").str.strip_chars().str.extract_groups(r"^(\d+):([0-5]\d):([0-5]\d)$")
    hours, minutes, rest = (parts.struct.field(str(place)).cast(pl.Float64, strict=False) for place in (1, 2, 3))
    time = pl.col(start).str.strip_chars().str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False)
    attributes = text("Attributes").fill_null("")
    supplemental = clean(text("Supplemental Video Type"))
    views = rows.select(
        clean(pl.col("Profile Name")).alias("user_id"),
        pl.col("Title").alias("title"),
        time.dt.replace_time_zone("UTC").alias("event_time"),
        (hours * 3600 + minutes * 60 + rest).alias("duration_s"),
        clean(text("Device Type")).alias("surface"),
        supplemental.is_not_null().alias("preview"),
        attributes.str.contains("(?i)view was hidden").alias("hidden"),
        attributes.str.contains(r"(?i)autoplayed: user action: none").alias("alone"),
    )
    latest = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    moment = views["event_time"]
    wrong = (moment.is_null() | (moment < EARLIEST) | (moment > latest)).fill_null(True)
    _refuse(rows, wrong, start, "is not a UTC time YYYY-MM-DD hh:mm:ss since 1998")
    _refuse(rows, views["duration_s"].is_null(), "Duration", "is not a duration h:mm:ss")
    _refuse(rows, views["user_id"].is_null(), "Profile Name", "is empty")
    _refuse(rows, views.select(clean(pl.col("title")).is_null()).to_series(), "Title", "is empty")
    long = pl.col("duration_s") >= config.engaged_min_s
    kind = pl.when("alone").then(pl.lit("autoplay")).when(long).then(pl.lit("play")).otherwise(pl.lit("short_play"))
    return views.with_columns(kind.alias("event_type")).drop("alone")


def _short(rows: pl.DataFrame, config: NetflixConfig) -> pl.DataFrame:
    numbers = pl.col("date").str.strip_chars().str.extract_groups(r"^(\d{1,4})\D+(\d{1,2})\D+(\d{1,4})\D*$")
    parts = rows.select(numbers.struct.rename_fields(["a", "b", "c"]).alias("n")).unnest("n")
    parts = parts.with_columns(pl.all().cast(pl.Int32, strict=False))
    _refuse(rows, parts["a"].is_null(), "date", "is not a date of three numbers")
    order = config.date_order or _date_order(parts, rows)
    named = parts.rename(dict(zip(parts.columns, order, strict=True)))
    year = pl.when(pl.col("y") < 100).then(pl.col("y") + 2000).otherwise("y")
    written = pl.concat_str(
        *(part.cast(pl.String).str.zfill(2) for part in (year, pl.col("m"), pl.col("d"))), separator="-"
    )
    days = named.select(written.str.to_date("%Y-%m-%d", strict=False).alias("day"))["day"]
    days = days.set(((days < EARLIEST.date()) | (days > dt.date.today() + dt.timedelta(days=1))).fill_null(False), None)
    _refuse(rows, days.is_null(), "date", f"is no day in the order {order}")
    _refuse(rows, rows.select(clean(pl.col("title")).is_null()).to_series(), "title", "is empty")
    frame = rows.with_columns(days).reverse().with_columns(pl.int_range(pl.len()).over("day").alias("place"))
    midnight = pl.col("day").cast(pl.Datetime("us"))
    # Where clocks skip midnight, the day begins at one.
    begins = pl.coalesce(
        moment.dt.replace_time_zone(config.zone, ambiguous="earliest", non_existent="null")
        for moment in (midnight, midnight + pl.duration(hours=1))
    )
    time = begins.dt.convert_time_zone("UTC") + pl.duration(seconds=pl.col("place"))
    return frame.select(
        pl.lit(config.user).alias("user_id"),
        "title",
        time.alias("event_time"),
        pl.lit(None, pl.Float64).alias("duration_s"),
        pl.lit(None, pl.String).alias("surface"),
        pl.lit(False).alias("preview"),
        pl.lit(False).alias("hidden"),
        pl.lit("play").alias("event_type"),
    )


def _date_order(parts: pl.DataFrame, rows: pl.DataFrame) -> str:
    """The only order of day, month and year that all dates allow."""
    if (parts["a"] > 31).all():
        return "ymd"
    first, second = bool((parts["a"] > 12).any()), bool((parts["b"] > 12).any())
    dotted = bool(rows["date"].str.contains(r"\d\.\s*\d").all())
    if first != second or dotted:  # dots are written day first everywhere
        return "dmy" if first or dotted else "mdy"
    raise InputError(
        f"date, {len(rows)} rows, e.g. {rows['date'][0]!r}",
        "may be day/month or month/day: the whole file leaves it open"
        if not first
        else "changes its order in the file",
        "set source.inline: {date_order: mdy} (or dmy)",
    )


def _refuse(rows: pl.DataFrame, broken: pl.Series, column: str, rule: str) -> None:
    if broken.any():
        row = rows.filter(broken).row(0, named=True)
        raise InputError(
            f"column {column!r}, {broken.sum()} of {len(rows)} rows, e.g. {str(row)[:300]}",
            rule,
            "correct the file, or download it again",
        )


def _config(options: Mapping[str, Any]) -> NetflixConfig:
    known = {entry.name: type(entry.default) for entry in fields(NetflixConfig)}
    for key, value in options.items():
        if key not in known:
            raise InputError(f"source.inline.{key}", "is not a known option", nearest(key, list(known)))
        kinds = (int, float) if known[key] is float else known[key]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise InputError(f"source.inline.{key}: {value!r}", f"is not {known[key].__name__}", "correct it")
    config = NetflixConfig(**options)
    if config.previews not in ("keep", "drop"):
        raise InputError(f"source.inline.previews: {config.previews!r}", "is keep or drop", "write one of them")
    if config.date_order not in ("", *_DATE_ORDERS):
        raise InputError(
            f"source.inline.date_order: {config.date_order!r}", f"is one of {list(_DATE_ORDERS)}", "write one of them"
        )
    refuse_zone(config.zone, "source.inline.zone")
    return config


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() == ".csv")
    named = [entry for entry in found if "viewing" in entry.name.lower()] or found
    if len(named) != 1:
        raise InputError(
            f"folder {path} with {[entry.name for entry in found][:12]}",
            "does not hold exactly one viewing history",
            "give the path of ViewingActivity.csv itself",
        )
    return named[0]
