"""The column types that Parquet and JSON lines bring, reduced to the few that a mapping converts.

What is text in another coat (categories, bytes that are UTF-8) becomes text, an array a list, a column without a value
text without a value. What has no plain reading for the column it is mapped to is refused: a structure is no id, a date
no rating, and Polars would make numbers or text of some of them without a word.
"""

from collections.abc import Mapping

import polars as pl

from recsys.calendar_range import first_row
from recsys.errors import InputError
from recsys.logs.sources.mapping_columns import DURATIONS, LISTS, TIMES, ColumnMapping

_NUMBERS = ("completion", "rating", "propensity", "year", "position")


def readable(raw: pl.DataFrame, columns: Mapping[str, ColumnMapping], where: str) -> pl.DataFrame:
    """`raw` in the types that a mapping converts. Raises InputError naming the column, its type, the number of rows and
    one of their values."""
    given = raw.schema
    raw = raw.with_columns(_plain(raw[name], where) for name in raw.columns)
    for name, column in columns.items():
        fits, wanted = _fitting(name, raw.schema[column.source])
        if not fits:
            shown = raw.select(pl.col(column.source).drop_nulls().head(1))
            example = str(first_row(shown)[column.source])[:100] if len(shown) else None
            what = f"{where}.{name} (column {column.source!r} of type {given[column.source]})"
            raise InputError(
                f"{what}, {len(raw)} rows, e.g. {example}",
                f"cannot be read as {wanted}",
                f"write the column as {wanted}, or map another one",
            )
    return raw


def _fitting(name: str, dtype: pl.DataType) -> tuple[bool, str]:
    """Whether the canonical column `name` can be read from this type, and from which it can, in words."""
    scalar = dtype == pl.String or dtype.is_numeric() or dtype == pl.Boolean
    number = dtype == pl.String or dtype.is_numeric()
    if name in TIMES:
        return number or dtype == pl.Date or isinstance(dtype, pl.Datetime), "a time, a number or text"
    if name in DURATIONS:
        return number or isinstance(dtype, pl.Duration), "a duration, a number or text"
    if name in LISTS:
        inner = dtype.inner if isinstance(dtype, pl.List) else None
        texts = inner is not None and (inner in (pl.String, pl.Null, pl.Categorical, pl.Enum) or inner.is_numeric())
        return texts or dtype == pl.String, "a list of texts, or text with separators"
    return scalar, "a number or text" if name in _NUMBERS else "text or a number"


def _plain(values: pl.Series, where: str) -> pl.Series:
    if values.dtype in (pl.Categorical, pl.Enum, pl.Null):
        return values.cast(pl.String)
    if isinstance(values.dtype, pl.Array):
        return values.arr.to_list()
    if values.dtype != pl.Binary:
        return values
    try:
        return values.cast(pl.String)
    except pl.exceptions.ComputeError as error:
        broken = [value for value in values if value is not None and not _is_text(value)]
        raise InputError(
            f"{where}, column {values.name!r}, {len(broken)} of {len(values)} rows, e.g. {broken[0][:100]!r}",
            "are bytes that are not UTF-8",
            "write the column as text",
        ) from error


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
