"""A mapping file: which of a table's columns are which of ours, in which units. Strict: an unknown key names its
nearest neighbour.

events:                                   # one table of interactions
  file: ratings.dat                       # relative to the source's `path` (leave out when `path` is the file itself);
                                          # or a folder, or a pattern such as days/*.csv, read as one table by name
  separator: "::"                         # csv only; `header` names the columns of a file without a header row
  header: [user, item, rating, time]
  columns:
    user_id: user
    item_id: item
    rating: {from: rating, scale: [0, 10]}      # values outside the scale are refused
    event_time: {from: time, unit: s}           # s, ms, us, ns, or iso (with `zone` where the text has no offset)
  event_type: rating                    # a constant, or columns.event_type: {from: kind, values: {p: play, x: null}}
plays:                                    # start, stop and heartbeat signals, folded into views (see `plays`)
  file: player.csv
  gap_s: 1800                             # silence that ends a view, always declared
  columns:
    user_id: account
    item_id: title_id
    device: device                        # views are folded per user, item and device
    event_time: {from: at, unit: ms}
    signal: {from: kind, values: {play: start, ping: heartbeat, end: stop, ad: null}}
impressions:                              # one row per item shown (see recsys/logs/impressions.py)
  file: pages.parquet
  event_type: click                       # what a clicked row becomes; leave out when `events` or `plays` hold it
  columns:
    impression_id: request
    user_id: user
    item_id: item
    shown_at: {from: at, unit: s}
    position: {from: place}
    clicked: {from: label, values: {"yes": true, "no": false}}   # quoted, or YAML reads truth values
items: {...}                              # the catalogue; leave out when the events carry title and year
engaged: {rating_at_least: 7}             # what counts as an engaged target, unless the recipe says otherwise

At least one of events, plays and impressions; what they give is one log.
"""

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from recsys.contracts import nearest, schema
from recsys.errors import CorruptFileError, InputError
from recsys.logs.engaged import EngagedConfig
from recsys.logs.sources.files import FileConfig
from recsys.logs.sources.plays import SIGNALS, FoldConfig

TIME_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}
DURATION_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
SHARE_UNITS = {"share": 1.0, "percent": 0.01}
TIMES = ("event_time", "available_from", "shown_at", "click_time")
ANSWERS = {"true": True, "false": False, "1": True, "0": False}
"""How a clicked column says yes and no, unless its mapping declares `values`."""
_SECTIONS = ("events", "plays", "impressions", "items", "engaged")
_FOLD = tuple(entry.name for entry in fields(FoldConfig))
DURATIONS, LISTS = ("duration_s", "runtime_s"), ("genres", "tags")
_OPTIONS = {
    "rating": ("scale",),
    "year": ("missing",),
    "event_type": ("values",),
    "signal": ("values",),
    "clicked": ("values",),
    "title": ("year", "article", "missing"),
}


@dataclass(frozen=True)
class ColumnMapping:
    """Where one canonical column comes from and how to read it."""

    source: str
    unit: str = ""
    zone: str = "UTC"
    scale: tuple[float, float] | None = None
    separator: str = "|"
    missing: tuple[str, ...] = ()
    values: Mapping[str, str | None] = field(default_factory=dict)
    year: str = ""
    article: str = ""


@dataclass(frozen=True)
class TableMapping:
    """One file and its columns."""

    file: FileConfig
    columns: Mapping[str, ColumnMapping]
    event_type: str = ""


@dataclass(frozen=True)
class LogMapping:
    """A whole mapping file. `event_type` of `impressions` is what a click becomes; "" makes no events of them."""

    events: TableMapping | None = None
    plays: TableMapping | None = None
    fold: FoldConfig | None = None
    impressions: TableMapping | None = None
    items: TableMapping | None = None
    engaged: EngagedConfig | None = None


def load_mapping(source: Path | str | Mapping[str, Any]) -> LogMapping:
    """Parse a mapping from a YAML file or from its content. Raises InputError naming the key, the rule and the nearest
    known key."""
    if isinstance(source, Mapping):
        return _mapping(source)
    path = Path(source)
    if not path.is_file():
        raise InputError(
            f"mapping {str(path)!r}", "no such file", "write one (about ten lines; see experiments/mappings/)"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CorruptFileError(str(path), f"not valid YAML ({error})", "correct the mapping") from error
    return _mapping(content)


def _mapping(content: Any) -> LogMapping:
    content = _keys(content, "the mapping", _SECTIONS)
    if not any(content.get(name) is not None for name in ("events", "plays", "impressions")):
        raise InputError(
            "the mapping",
            "has no `events`, no `plays` and no `impressions`",
            "say which file holds the interactions, under one of them",
        )
    of_items = [name for name in schema("items") if name != "item_id"]
    items = _section(content, "items", ["item_id", *of_items], ["item_id", "title"])
    described, title = ([], []) if items else (of_items, ["title"])
    events = _section(content, "events", [*schema("events"), *described], ["user_id", "item_id", "event_time", *title])
    if events is not None and bool(events.event_type) == ("event_type" in events.columns):
        raise InputError(
            "events.event_type",
            "must be given once: a constant, or a column",
            "write `event_type: rating` under `events`, or map it under `columns`",
        )
    signals = ["user_id", "item_id", "device", "event_time", "signal", "surface"]
    plays = _section(content, "plays", [*signals, *described], ["user_id", "item_id", "event_time", "signal", *title])
    shown = ["impression_id", "user_id", "item_id", "shown_at", "clicked"]
    impressions = _section(content, "impressions", list(schema("impressions")), shown)
    if impressions is not None and items is None:
        raise InputError(
            "impressions",
            "need a catalogue: what was shown and never clicked has no other description",
            "describe the items under `items`",
        )
    if impressions is not None and events is None and plays is None and not impressions.event_type:
        raise InputError(
            "impressions.event_type",
            "is required where nothing else gives events",
            "write `event_type: click` under `impressions`",
        )
    fold = _fold(content["plays"]) if plays is not None else None
    return LogMapping(events, plays, fold, impressions, items, _engaged(content.get("engaged")))


def _section(content: Mapping[str, Any], where: str, known: list[str], required: list[str]) -> TableMapping | None:
    if content.get(where) is None:
        return None
    table = _table(content[where], where, known)
    _require(table, where, required)
    return table


def _fold(content: Mapping[str, Any]) -> FoldConfig:
    given = {key: content[key] for key in _FOLD if key in content}
    if not isinstance(given.get("gap_s"), int | float) or isinstance(given["gap_s"], bool):
        raise InputError(
            f"plays.gap_s: {given.get('gap_s', 'nothing')!r}",
            "the silence that ends a view must be declared, in seconds",
            "write e.g. gap_s: 1800; in a log without heartbeats, longer than the longest item",
        )
    paused = given.get("heartbeats_while_paused", False)
    if not isinstance(paused, bool):
        raise InputError(f"plays.heartbeats_while_paused: {paused!r}", "is not true or false", "write one of them")
    return FoldConfig(float(given["gap_s"]), paused)


def _table(content: Any, where: str, known: list[str]) -> TableMapping:
    own = {"events": ["event_type"], "impressions": ["event_type"], "plays": list(_FOLD)}.get(where, [])
    allowed = [entry.name for entry in fields(FileConfig)] + ["columns", *own]
    content = _keys(content, where, allowed)
    columns = _keys(content.get("columns"), f"{where}.columns", known)
    for name in ("file", "format", "separator", "encoding", "event_type"):
        if not isinstance(content.get(name, ""), str):
            raise InputError(f"{where}.{name}: {content[name]!r}", "must be text", "quote it, or leave it out")
    file = FileConfig(
        file=content.get("file", ""),
        format=content.get("format", ""),
        separator=content.get("separator", ""),
        header=_list(content.get("header", ()), f"{where}.header"),
        encoding=content.get("encoding", "utf-8"),
    )
    return TableMapping(
        file,
        {name: _column(name, spec, f"{where}.columns.{name}") for name, spec in columns.items()},
        content.get("event_type", ""),
    )


def _column(name: str, spec: Any, where: str) -> ColumnMapping:
    options = ("from", *_OPTIONS.get(name, ()))
    units: tuple[str, ...] = ()
    if name in TIMES:
        options, units = ("from", "unit", "zone"), (*TIME_UNITS, "iso")
    elif name in DURATIONS:
        options, units = ("from", "unit"), tuple(DURATION_UNITS)
    elif name == "completion":
        options, units = ("from", "unit"), tuple(SHARE_UNITS)
    elif name in LISTS:
        options = ("from", "separator", "missing")
    spec = _keys({"from": spec} if isinstance(spec, str) else spec, where, options)
    if not isinstance(spec.get("from"), str):
        raise InputError(
            f"{where}: {spec}",
            "does not say which column it comes from",
            "write the source's column name, or {from: NAME, ...}",
        )
    if units and spec.get("unit") not in units:
        found = repr(spec["unit"]) if "unit" in spec else "no unit"
        raise InputError(
            f"{where}: {found}",
            f"the unit must be one of {list(units)}",
            f"declare it: {name}: {{from: {spec['from']}, unit: {units[0]}}}",
        )
    for option in ("year", "article"):
        if spec.get(option, "suffix") != "suffix":
            raise InputError(
                f"{where}.{option}: {spec[option]!r}",
                "the only known place is `suffix`",
                f"write {option}: suffix, or leave it out",
            )
    if "scale" in spec and not _is_scale(spec["scale"]):
        raise InputError(f"{where}.scale: {spec['scale']!r}", "must be [lowest, highest]", "write e.g. scale: [0, 10]")
    given = {"source" if key == "from" else key: value for key, value in spec.items()}
    if "scale" in given:
        given["scale"] = (float(given["scale"][0]), float(given["scale"][1]))
    if "missing" in given:
        given["missing"] = _list(given["missing"], f"{where}.missing")
    if not isinstance(given.get("separator", "|"), str):
        raise InputError(f"{where}.separator: {given['separator']!r}", "must be text", "quote it")
    if "zone" in given:
        refuse_zone(given["zone"], f"{where}.zone")
    if "values" in given:
        if not isinstance(given["values"], Mapping):
            raise InputError(f"{where}.values: {given['values']!r}", "must be {theirs: ours}", "write it so")
        values = _keys(given["values"], f"{where}.values", list(map(str, given["values"])))
        given["values"] = {str(key): value if value is None else str(value) for key, value in values.items()}
        _check_targets(name, given["values"], where)
    return ColumnMapping(**given)


def _check_targets(name: str, values: Mapping[str, str | None], where: str) -> None:
    """Signals and answers have a fixed vocabulary; event types do not."""
    known = {"signal": SIGNALS, "clicked": ("True", "False")}.get(name)
    for theirs, ours in values.items():
        if known is not None and ours not in known and not (name == "signal" and ours is None):
            raise InputError(
                f"{where}.values.{theirs}: {ours!r}", f"must be one of {list(known)}", nearest(str(ours), list(known))
            )


def refuse_zone(zone: Any, where: str) -> None:
    """Raises InputError where this is no time zone."""
    try:
        pl.select(pl.lit(dt.datetime(2020, 1, 1)).dt.replace_time_zone(zone))
    except (pl.exceptions.ComputeError, TypeError) as error:
        raise InputError(f"{where}: {zone!r}", "is not a time zone", "write one like Europe/Berlin") from error


def _list(values: Any, where: str) -> tuple[str, ...]:
    if not isinstance(values, list | tuple):
        raise InputError(f"{where}: {values!r}", "must be a list", "write e.g. [a, b]")
    return tuple(map(str, values))


def _is_scale(scale: Any) -> bool:
    """Two finite numbers, the lower first."""
    if not isinstance(scale, list | tuple) or len(scale) != 2:
        return False
    numbers = all(isinstance(bound, int | float) and math.isfinite(bound) for bound in scale)
    return numbers and scale[0] < scale[1]


def _engaged(content: Any) -> EngagedConfig | None:
    if content is None:
        return None
    content = dict(_keys(content, "engaged", tuple(entry.name for entry in fields(EngagedConfig))))
    if "event_types" in content:
        content["event_types"] = _list(content["event_types"], "engaged.event_types")
    for name in ("rating_at_least", "completion_at_least"):
        if not isinstance(content.get(name), int | float | None):
            raise InputError(f"engaged.{name}: {content[name]!r}", "must be a number", "write e.g. 4")
    return EngagedConfig(**content)


def _require(table: TableMapping, where: str, names: list[str]) -> None:
    for name in names:
        if name not in table.columns:
            raise InputError(
                f"{where}.columns", f"does not map {name}", f"add `{name}: YOUR COLUMN` under {where}.columns"
            )


def _keys(content: Any, where: str, known: list[str] | tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise InputError(
            f"{where}: {content!r}", "must be a mapping of keys to values", f"known keys: {', '.join(known)}"
        )
    for key in content:
        if key not in known:
            raise InputError(
                f"{where}.{key}" if "." in where or where in _SECTIONS else f"{key!r} in {where}",
                "is not a known key",
                nearest(str(key), tuple(known)),
            )
    return content
