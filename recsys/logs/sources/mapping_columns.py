"""The columns of a mapping file: where each comes from and how it is read. Refusals name the key, the rule and the
remedy."""

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from recsys.contracts import nearest
from recsys.errors import InputError
from recsys.logs.sources.plays import SIGNALS

TIME_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}
DURATION_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
SHARE_UNITS = {"share": 1.0, "percent": 0.01}
TIMES = ("event_time", "available_from", "shown_at", "click_time")
ANSWERS = {"true": True, "false": False, "1": True, "0": False}
"""How a clicked column says yes and no, unless its mapping declares `values`."""
SECTIONS = ("events", "plays", "impressions", "items", "engaged")
"""The keys of a mapping file."""
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


def column_of(name: str, spec: Any, where: str) -> ColumnMapping:
    """What `where` says of the canonical column `name`: their column's name, or {from: NAME, ...}; else InputError."""
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
    spec = keys_of({"from": spec} if isinstance(spec, str) else spec, where, options)
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
        given["missing"] = list_of(given["missing"], f"{where}.missing")
    if not isinstance(given.get("separator", "|"), str):
        raise InputError(f"{where}.separator: {given['separator']!r}", "must be text", "quote it")
    if "zone" in given:
        refuse_zone(given["zone"], f"{where}.zone")
    if "values" in given:
        if not isinstance(given["values"], Mapping):
            raise InputError(f"{where}.values: {given['values']!r}", "must be {theirs: ours}", "write it so")
        values = keys_of(given["values"], f"{where}.values", list(map(str, given["values"])))
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


def list_of(values: Any, where: str) -> tuple[str, ...]:
    """A list of texts. Raises InputError for anything else."""
    if not isinstance(values, list | tuple):
        raise InputError(f"{where}: {values!r}", "must be a list", "write e.g. [a, b]")
    return tuple(map(str, values))


def _is_scale(scale: Any) -> bool:
    """Two finite numbers, the lower first."""
    if not isinstance(scale, list | tuple) or len(scale) != 2:
        return False
    numbers = all(isinstance(bound, int | float) and math.isfinite(bound) for bound in scale)
    return numbers and scale[0] < scale[1]


def keys_of(content: Any, where: str, known: list[str] | tuple[str, ...]) -> Mapping[str, Any]:
    """`content`, seen to be a mapping with known keys only. Raises InputError naming the nearest one."""
    if not isinstance(content, Mapping):
        raise InputError(
            f"{where}: {content!r}", "must be a mapping of keys to values", f"known keys: {', '.join(known)}"
        )
    for key in content:
        if key not in known:
            raise InputError(
                f"{where}.{key}" if "." in where or where in SECTIONS else f"{key!r} in {where}",
                "is not a known key",
                nearest(str(key), tuple(known)),
            )
    return content
