"""Columns of foreign tables as ours: converted as a mapping declares, and refused where a value does not fit.

Times are checked against the years a log can come from, because seconds and milliseconds look alike until they are
dates.
"""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from recsys.calendar_range import first_row, representable
from recsys.contracts import nearest
from recsys.errors import InputError
from recsys.logs.sources.dtypes import readable
from recsys.logs.sources.files import scan
from recsys.logs.sources.mapping import TableMapping
from recsys.logs.sources.mapping_columns import (
    ANSWERS,
    DURATION_UNITS,
    DURATIONS,
    LISTS,
    SHARE_UNITS,
    TIME_UNITS,
    TIMES,
    ColumnMapping,
)
from recsys.logs.text import article_first, clean, without_year, year_suffix

EARLIEST = dt.datetime(1990, 1, 1, tzinfo=dt.UTC)
_LARGEST = 2**63 - 1
_RANGES: dict[str, tuple[float | None, float]] = {
    "completion": (0.0, 1.0),
    "duration_s": (0.0, 1e9),
    "runtime_s": (0.0, 1e9),
    "year": (1870.0, 2100.0),
    "position": (1.0, 1e6),
    "propensity": (0.0, 1.0),
}


def opened(table: TableMapping, root: Path, where: str) -> pl.LazyFrame:
    """The rows of a table's files as they are. Raises InputError for a mapped column that they lack."""
    lazy = scan(table.file, root)
    present = lazy.collect_schema()
    for name, column in table.columns.items():
        if column.source not in present:
            raise InputError(
                f"{where}.columns.{name}: column {column.source!r}",
                f"is not in {table.file.file or root.name}; present: {list(present)}",
                nearest(column.source, list(present)),
            )
    return lazy


def sources_of(columns: Mapping[str, ColumnMapping]) -> list[str]:
    """The names of the columns that these are made of, sorted."""
    return sorted({column.source for column in columns.values()})


def typed(raw: pl.DataFrame, columns: Mapping[str, ColumnMapping], where: str) -> pl.DataFrame:
    """Our columns of these rows. Raises InputError for a value that is not what its mapping declares."""
    raw = readable(raw, columns, where)
    converted = raw.select(
        _convert(name, column, raw.schema[column.source]).alias(name) for name, column in columns.items()
    )
    for name, column in columns.items():
        _check_values(raw[column.source], converted[name], name, column, where)
    title = columns.get("title")
    if title is not None and title.year:
        suffix = raw.select(year_suffix(clean(pl.col(title.source).cast(pl.String)))).to_series()
        years = converted["year"].fill_null(suffix) if "year" in converted.columns else suffix
        converted = converted.with_columns(years.alias("year"))
    return converted


def _convert(name: str, column: ColumnMapping, dtype: pl.DataType) -> pl.Expr:
    """The canonical column; values that cannot be converted become null (and are then refused by `_check_values`)."""
    value = pl.col(column.source)
    if name in TIMES:
        return _time(value, column, dtype)
    if name in DURATIONS:
        if isinstance(dtype, pl.Duration):  # which knows its own unit
            return value.dt.total_seconds(fractional=True)
        return _number(value) * DURATION_UNITS[column.unit]
    if name == "completion":
        return _number(value) * SHARE_UNITS[column.unit]
    if name in ("rating", "propensity"):
        return _number(value)
    if name == "clicked":
        given = {key.lower(): answer == "True" for key, answer in column.values.items()}
        answer = value.cast(pl.String).str.strip_chars().str.to_lowercase()
        return answer.replace_strict(given or ANSWERS, default=None, return_dtype=pl.Boolean)
    if name in ("year", "position"):
        number = _number(value)
        return pl.when(number == number.floor()).then(number).cast(pl.Int32, strict=False)
    if name in LISTS:
        parts = (
            value.cast(pl.List(pl.String))
            if isinstance(dtype, pl.List)
            else value.cast(pl.String).fill_null("").str.split(column.separator)
        )
        one = clean(pl.element())
        parts = parts.list.eval(one.filter(one.is_not_null() & ~one.is_in(list(column.missing)).fill_null(False)))
        return parts.fill_null([])
    # In a column of numbers, NaN is how some writers say that there is none.
    text = (value.fill_nan(None) if dtype.is_float() else value).cast(pl.String)
    if name in ("event_type", "signal") and column.values:
        return text.replace_strict(dict(column.values), default=pl.lit("\x00"), return_dtype=pl.String)
    if name == "title":
        text = clean(text)
        text = without_year(text) if column.year else text
        text = article_first(text) if column.article else text
    return pl.when(~text.is_in(list(column.missing))).then(text) if column.missing else text


def _number(value: pl.Expr) -> pl.Expr:
    return value.cast(pl.Float64, strict=False)


def _time(value: pl.Expr, column: ColumnMapping, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        value = pl.when(representable(column.source, dtype)).then(value)
        if isinstance(dtype, pl.Datetime) and dtype.time_zone:
            return value.cast(pl.Datetime("us", "UTC"))
        return _localise(value.cast(pl.Datetime("us")), column.zone)
    if column.unit != "iso":
        factor = TIME_UNITS[column.unit]
        micros = _number(value) * factor
        if dtype.is_integer() or dtype == pl.String:
            whole = value.cast(pl.Int64, strict=False)  # floats lose microseconds past 2**53
            fitting = pl.when(whole.is_between(-_LARGEST // factor, _LARGEST // factor)).then(whole)  # or it wraps
            exact = fitting * int(factor) if factor >= 1 else whole // 1000
            micros = pl.coalesce(exact, micros.round().cast(pl.Int64, strict=False))
        return micros.cast(pl.Int64, strict=False).cast(pl.Datetime("us", "UTC"))
    text = value.cast(pl.String).str.strip_chars().str.replace(" ", "T", literal=True)
    naive = [
        text.str.to_datetime(pattern, time_unit="us", strict=False)
        for pattern in ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
    ]
    naive[-1] = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    return pl.coalesce(
        text.str.to_datetime("%+", time_unit="us", strict=False), *(_localise(moment, column.zone) for moment in naive)
    )


def _localise(value: pl.Expr, zone: str) -> pl.Expr:
    """Local times of a zone as UTC; a repeated hour is read as its first pass, a skipped one as invalid."""
    return value.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")


def _check_values(raw: pl.Series, converted: pl.Series, name: str, column: ColumnMapping, where: str) -> None:
    def refuse(broken: pl.Series, rule: str, remedy: str) -> None:
        broken = broken.fill_null(False)
        if broken.any():
            value = first_row(raw.filter(broken).to_frame())[raw.name]
            raise InputError(
                f"{where}.{name} (column {column.source!r}), {broken.sum()} of {len(raw)} rows, e.g. {value!r}",
                rule,
                remedy,
            )

    given = raw.is_not_null()
    if raw.dtype == pl.String:
        given &= (raw.str.strip_chars() != "") & ~raw.is_in(list(column.missing))
    if name in ("event_type", "signal") and column.values:
        refuse(
            converted == "\x00",
            f"is not among the declared values {list(column.values)}",
            "add it under `values` (map it to null to leave such events out)",
        )
    elif name in TIMES:
        needed = name in ("event_time", "shown_at")
        refuse(
            converted.is_null() if needed else given & converted.is_null(),
            f"is {'missing or ' if needed else ''}not a time in unit {column.unit!r}",
            f"correct the rows, or declare another unit: {', '.join(TIME_UNITS)}, iso",
        )
        latest = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
        refuse(
            (converted < EARLIEST) | (converted > latest)
            if name != "available_from"  # which may lie ahead, or before all logs
            else ~converted.to_frame(name).select(representable(name, converted.dtype)).to_series(),
            f"read in unit {column.unit!r} falls outside "
            f"{'1990 .. tomorrow' if name != 'available_from' else 'the years 1 .. 9999'}",
            _other_unit(raw, converted, latest),
        )
    elif name == "clicked":
        refuse(
            converted.is_null(),
            f"is neither of {list(column.values or ANSWERS)}",
            'declare `values: {"theirs": true, "others": false}`',
        )
    elif converted.dtype in (pl.Float64, pl.Int32):
        refuse(given & converted.is_null(), f"cannot be read as {converted.dtype}", "correct the rows or the mapping")
    low, high = _range(name, column)
    if low is not None:
        refuse(
            (converted < low) | (converted > high),
            f"falls outside {low:g} .. {high:g}",
            "correct the rows, or declare the scale or unit they are in",
        )


def _range(name: str, column: ColumnMapping) -> tuple[float | None, float]:
    if name == "rating" and column.scale:
        return column.scale
    return _RANGES.get(name, (None, 0.0))


def _other_unit(raw: pl.Series, converted: pl.Series, latest: dt.datetime) -> str:
    """The unit under which the first offending value would be a plausible time."""
    if raw.dtype.is_temporal():
        return "correct the column: its type says these times by itself, whatever unit the mapping declares"
    value = raw.filter((converted < EARLIEST) | (converted > latest)).head(1).cast(pl.Float64, strict=False).to_list()
    for unit, factor in TIME_UNITS.items():
        if value and value[0] is not None and EARLIEST.timestamp() <= value[0] * factor / 1e6 <= latest.timestamp():
            return f"declare unit: {unit}"
    return f"declare the right unit ({', '.join(TIME_UNITS)}, iso) or drop these rows"
