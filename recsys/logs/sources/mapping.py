"""A mapping file: which of a table's columns are which of ours, in which units. Strict: an unknown key names its
nearest neighbour.

events:                                   # one table of interactions
  file: ratings.dat                       # relative to the source's `path` (leave out when `path` is the file itself)
  separator: "::"                         # csv only; `header` names the columns of a file without a header row
  header: [user, item, rating, time]
  columns:
    user_id: user
    item_id: item
    rating: {from: rating, scale: [0, 10]}      # values outside the scale are refused
    event_time: {from: time, unit: s}           # s, ms, us, ns, or iso (with `zone` where the text has no offset)
  event_type: rating                    # a constant, or columns.event_type: {from: kind, values: {p: play, x: null}}
items: {...}                              # the catalogue; leave out when the events carry title and year
engaged: {rating_at_least: 7}             # what counts as an engaged target, unless the recipe says otherwise
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from recsys.contracts import nearest, schema
from recsys.errors import CorruptFileError, InputError
from recsys.logs.engaged import EngagedConfig
from recsys.logs.sources.files import FileConfig

TIME_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}
DURATION_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
SHARE_UNITS = {"share": 1.0, "percent": 0.01}
_TIMES, _DURATIONS, _LISTS = ("event_time", "available_from"), ("duration_s", "runtime_s"), ("genres", "tags")


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
    """A whole mapping file."""

    events: TableMapping
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
    content = _keys(content, "the mapping", ("events", "items", "engaged"))
    if "events" not in content:
        raise InputError("the mapping", "has no `events`", "say which file holds the interactions, under `events`")
    known_items = [name for name in schema("items") if name != "item_id"]
    known_events = list(schema("events"))
    has_items = content.get("items") is not None
    events = _table(content["events"], "events", known_events if has_items else known_events + known_items)
    required = ["user_id", "item_id", "event_time"] + ([] if has_items else ["title"])
    _require(events, "events", required)
    if bool(events.event_type) == ("event_type" in events.columns):
        raise InputError(
            "events.event_type",
            "must be given once: a constant, or a column",
            "write `event_type: rating` under `events`, or map it under `columns`",
        )
    items = _table(content["items"], "items", ["item_id", *known_items]) if has_items else None
    if items is not None:
        _require(items, "items", ["item_id", "title"])
    return LogMapping(events, items, _engaged(content.get("engaged")))


def _table(content: Any, where: str, known: list[str]) -> TableMapping:
    allowed = [entry.name for entry in fields(FileConfig)] + ["columns"] + (["event_type"] if where == "events" else [])
    content = _keys(content, where, allowed)
    columns = _keys(content.get("columns"), f"{where}.columns", known)
    file = FileConfig(
        file=str(content.get("file", "")),
        format=str(content.get("format", "")),
        separator=str(content.get("separator", "")),
        header=tuple(map(str, content.get("header", ()))),
        encoding=str(content.get("encoding", "utf-8")),
    )
    return TableMapping(
        file,
        {name: _column(name, spec, f"{where}.columns.{name}") for name, spec in columns.items()},
        str(content.get("event_type", "")),
    )


def _column(name: str, spec: Any, where: str) -> ColumnMapping:
    options = {"from"}
    units: tuple[str, ...] = ()
    if name in _TIMES:
        options, units = {"from", "unit", "zone"}, (*TIME_UNITS, "iso")
    elif name in _DURATIONS:
        options, units = {"from", "unit"}, tuple(DURATION_UNITS)
    elif name == "completion":
        options, units = {"from", "unit"}, tuple(SHARE_UNITS)
    elif name == "rating":
        options = {"from", "scale"}
    elif name in _LISTS:
        options = {"from", "separator", "missing"}
    elif name == "year":
        options = {"from", "missing"}
    elif name == "event_type":
        options = {"from", "values"}
    elif name == "title":
        options = {"from", "year", "article", "missing"}
    spec = _keys({"from": spec} if isinstance(spec, str) else spec, where, tuple(sorted(options)))
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
    if "scale" in spec and not (
        isinstance(spec["scale"], list | tuple) and len(spec["scale"]) == 2 and spec["scale"][0] < spec["scale"][1]
    ):
        raise InputError(f"{where}.scale: {spec['scale']!r}", "must be [lowest, highest]", "write e.g. scale: [0, 10]")
    given = {"source" if key == "from" else key: value for key, value in spec.items()}
    if "scale" in given:
        given["scale"] = (float(given["scale"][0]), float(given["scale"][1]))
    if "missing" in given:
        given["missing"] = tuple(map(str, given["missing"]))
    if "values" in given:
        given["values"] = {str(key): value if value is None else str(value) for key, value in given["values"].items()}
    return ColumnMapping(**given)


def _engaged(content: Any) -> EngagedConfig | None:
    if content is None:
        return None
    content = dict(_keys(content, "engaged", tuple(entry.name for entry in fields(EngagedConfig))))
    if "event_types" in content:
        content["event_types"] = tuple(content["event_types"])
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
                f"{where}.{key}" if "." in where or where in ("events", "items", "engaged") else f"{key!r} in {where}",
                "is not a known key",
                nearest(str(key), tuple(known)),
            )
    return content
