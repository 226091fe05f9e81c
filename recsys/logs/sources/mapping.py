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

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from recsys.contracts import schema
from recsys.errors import CorruptFileError, InputError
from recsys.logs.engaged import EngagedConfig
from recsys.logs.sources.files import FileConfig
from recsys.logs.sources.mapping_columns import SECTIONS, ColumnMapping, column_of, keys_of, list_of
from recsys.logs.sources.plays import FoldConfig

_FOLD = tuple(entry.name for entry in fields(FoldConfig))


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
    content = keys_of(content, "the mapping", SECTIONS)
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
    content = keys_of(content, where, allowed)
    columns = keys_of(content.get("columns"), f"{where}.columns", known)
    for name in ("file", "format", "separator", "encoding", "event_type"):
        if not isinstance(content.get(name, ""), str):
            raise InputError(f"{where}.{name}: {content[name]!r}", "must be text", "quote it, or leave it out")
    file = FileConfig(
        file=content.get("file", ""),
        format=content.get("format", ""),
        separator=content.get("separator", ""),
        header=list_of(content.get("header", ()), f"{where}.header"),
        encoding=content.get("encoding", "utf-8"),
    )
    return TableMapping(
        file,
        {name: column_of(name, spec, f"{where}.columns.{name}") for name, spec in columns.items()},
        content.get("event_type", ""),
    )


def _engaged(content: Any) -> EngagedConfig | None:
    if content is None:
        return None
    content = dict(keys_of(content, "engaged", tuple(entry.name for entry in fields(EngagedConfig))))
    if "event_types" in content:
        content["event_types"] = list_of(content["event_types"], "engaged.event_types")
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
