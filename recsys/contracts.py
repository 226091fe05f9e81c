"""The table contracts of `data_schemas/`, loaded once and enforced at every boundary between stages.

A contract names each column's dtype, whether it is required, its range or allowed values, and the table's key. `check`
collects what breaks a rule and refuses with the column, the rule, the number of offending rows and one of them.
"""

import datetime as dt
import difflib
import functools
import importlib.resources
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import yaml

from recsys.calendar_range import first_row
from recsys.errors import ContractError, InputError

_PLAIN: dict[str, Any] = {
    name: getattr(pl, name)
    for name in (
        "String",
        "Boolean",
        "Int8",
        "Int16",
        "Int32",
        "Int64",
        "UInt32",
        "UInt64",
        "Float32",
        "Float64",
        "Date",
    )
}


@dataclass(frozen=True)
class Column:
    """One column's rules. `low` and `high` are inclusive, in the column's own dtype; a `filled` list holds no null."""

    name: str
    dtype: pl.DataType
    required: bool = False
    low: Any = None
    high: Any = None
    values: tuple[str, ...] = ()
    filled: bool = False


@dataclass(frozen=True)
class Contract:
    """A table's columns, in order, and the columns that identify a row."""

    table: str
    key: tuple[str, ...]
    columns: dict[str, Column] = field(default_factory=dict)


def parse_dtype(text: str) -> pl.DataType:
    """The Polars dtype a contract spells.

    >>> parse_dtype("List[Struct[item_id: String, event_time: Datetime[us, UTC]]]")
    List(Struct({'item_id': String, 'event_time': Datetime(time_unit='us', time_zone='UTC')}))
    """
    text = text.strip()
    if text in _PLAIN:
        return _PLAIN[text]()
    head, bracket, rest = text.partition("[")
    if bracket and rest.endswith("]"):
        arguments = _split(rest[:-1])
        if head == "List" and len(arguments) == 1:
            return pl.List(parse_dtype(arguments[0]))
        if head == "Datetime" and len(arguments) == 2:
            return pl.Datetime(arguments[0], arguments[1])  # type: ignore[arg-type]
        if head == "Struct" and all(":" in part for part in arguments):
            return pl.Struct(
                {name.strip(): parse_dtype(kind) for name, kind in (part.split(":", 1) for part in arguments)}
            )
    raise InputError(
        f"dtype {text!r}",
        "is not one the contracts know",
        f"use one of {sorted(_PLAIN)}, List[...], Struct[...], Datetime[us, UTC]",
    )


@functools.cache
def contract(table: str) -> Contract:
    """The contract of a table by name. Raises InputError for an unknown table."""
    folder = importlib.resources.files("data_schemas")
    known = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    if table not in known:
        raise InputError(f"table {table!r}", "has no contract", f"use one of {known}")
    content = yaml.safe_load((folder / f"{table}.yaml").read_text(encoding="utf-8"))
    columns = {}
    for name, rules in content["columns"].items():
        dtype = parse_dtype(rules["dtype"])
        low, high = (_bound(rules.get(side), dtype) for side in ("min", "max"))
        allowed = tuple(rules.get("values", ()))
        columns[name] = Column(name, dtype, bool(rules.get("required")), low, high, allowed, bool(rules.get("filled")))
    return Contract(table, tuple(content["key"]), columns)


def schema(table: str) -> pl.Schema:
    """Column names and dtypes of a table, in the contract's order."""
    return pl.Schema({name: column.dtype for name, column in contract(table).columns.items()})


def empty(table: str) -> pl.DataFrame:
    """A table with no rows."""
    return pl.DataFrame(schema=schema(table))


def conform(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """`frame` with absent optional columns added as nulls and the contract's columns in the contract's order; extra
    ones stay, last."""
    rules = contract(table).columns
    absent = [
        pl.lit(None, column.dtype).alias(name)
        for name, column in rules.items()
        if name not in frame.columns and not column.required
    ]
    untyped = [
        pl.col(name).cast(rules[name].dtype)
        for name, dtype in frame.schema.items()
        if dtype == pl.Null and name in rules
    ]
    frame = frame.with_columns(*absent, *untyped)
    ordered = [name for name in rules if name in frame.columns]
    return frame.select(*ordered, *(name for name in frame.columns if name not in rules))


def check(frame: pl.DataFrame, table: str, unique: bool = True) -> pl.DataFrame:
    """Return `frame` unchanged if it keeps the contract of `table`; raise ContractError if not.

    Checked in this order: missing and extra columns, dtypes, nulls in required columns, ranges, allowed values,
    duplicate keys. `unique=False` skips the last, for callers that have just removed duplicates themselves (it costs a
    hash of every row).
    """
    rules = contract(table)
    _check_columns(frame, rules)
    if frame.is_empty():
        return frame
    broken = [(name, *pair) for name, column in rules.columns.items() for pair in _broken(column)]
    if unique:
        broken.append((", ".join(rules.key), pl.struct(rules.key).is_duplicated(), "must identify one row"))
    # One pass for all rules; the rows themselves are only looked for when a rule is broken.
    counts = frame.select(rows.sum().alias(str(place)) for place, (_, rows, _) in enumerate(broken)).row(0)
    for (name, rows, rule), count in zip(broken, counts, strict=True):
        if count:
            _refuse(frame, rules, name, rows, rule, count)
    return frame


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """A hint naming the closest known name, or all of them when none is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def _check_columns(frame: pl.DataFrame, rules: Contract) -> None:
    missing = [name for name in rules.columns if name not in frame.columns]
    extra = [name for name in frame.columns if name not in rules.columns]
    if extra:
        raise ContractError(
            f"table {rules.table!r}, column {extra[0]!r}",
            f"is not in the contract ({len(frame)} rows)",
            f"{nearest(extra[0], missing or list(rules.columns))} Rename or drop it",
        )
    if missing:
        raise ContractError(
            f"table {rules.table!r}, column {missing[0]!r}",
            f"is missing; present: {frame.columns}",
            "add it, or call contracts.conform for optional columns",
        )
    for name, column in rules.columns.items():
        if frame.schema[name] != column.dtype:
            example = _short(first_row(frame.select(name))) if len(frame) else "none"
            raise ContractError(
                f"table {rules.table!r}, column {name!r} of dtype {frame.schema[name]}",
                f"must be {column.dtype} ({len(frame)} rows, e.g. {example})",
                "cast it",
            )


def _broken(column: Column) -> Iterator[tuple[pl.Expr, str]]:
    """For each rule of a column: which rows break it, and the rule in words."""
    values = pl.col(column.name)
    if column.required:
        yield values.is_null(), "is required and may not be null"
    if column.dtype.is_float():
        yield ~values.is_finite(), "may not be NaN or infinite (use null for unknown)"
    if column.low is not None:
        yield values < column.low, f"must be at least {column.low}"
    if column.high is not None:
        yield values > column.high, f"must be at most {column.high}"
    if column.filled:
        yield values.list.len() != values.list.drop_nulls().list.len(), "may hold no null"
    if column.values:
        yield ~values.is_in(column.values), f"must be one of {list(column.values)}"


def _refuse(frame: pl.DataFrame, rules: Contract, name: str, broken: pl.Expr, rule: str, count: int) -> None:
    shown = list(dict.fromkeys([*rules.key, *(column for column in rules.columns if column == name)]))
    row = first_row(frame.filter(broken).select(shown))
    raise ContractError(
        f"table {rules.table!r}, column {name!r}, {count} of {len(frame)} rows, e.g. {_short(row)}",
        rule,
        f"correct or drop these rows (contract: data_schemas/{rules.table}.yaml)",
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 300 else text[:297] + "..."


def _bound(value: Any, dtype: pl.DataType) -> Any:
    if value is None or not isinstance(dtype, pl.Datetime):
        return value
    moment = dt.datetime.fromisoformat(str(value))
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _split(text: str) -> list[str]:
    """Split at the commas outside brackets."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()]
