"""Times that Polars holds and Python cannot: beyond the years 1 to 9999, less a day at either end, where a zone's
offset may carry them across; and spans of more than a thousand million days. Turning one into a Python value raises
or panics, so readers and refusals look here first."""

from typing import Any

import polars as pl

_PER_SECOND = {"ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY = 86_400
_FIRST, _LAST = -62_135_510_400, 253_402_214_400  # seconds since 1970 of 0001-01-02 and 9999-12-31
_LONGEST = 999_999_999 * _DAY


def representable(name: str, dtype: pl.DataType) -> pl.Expr:
    """Whether each value of a Date, Datetime or Duration column is one that Python can hold; null for a null."""
    low, high = (-_LONGEST, _LONGEST) if isinstance(dtype, pl.Duration) else (_FIRST, _LAST)
    if isinstance(dtype, pl.Datetime | pl.Duration):
        per_second = _PER_SECOND[dtype.time_unit]
        low, high = (max(-(2**63), min(2**63 - 1, bound * per_second)) for bound in (low, high))
    else:
        low, high = low // _DAY, high // _DAY
    return pl.col(name).to_physical().is_between(low, high)


def first_row(rows: pl.DataFrame) -> dict[str, Any]:
    """The first row by column name, to be shown; a time or span that Python cannot hold as the number that is stored.

    >>> first_row(pl.DataFrame({"at": pl.Series([2**60], dtype=pl.Datetime("us"))}))
    {'at': 1152921504606846976}
    """
    row = rows.head(1)
    times = [name for name, dtype in row.schema.items() if isinstance(dtype, pl.Date | pl.Datetime | pl.Duration)]
    far = [name for name in times if row.select(representable(name, row.schema[name])).item() is False]
    return row.with_columns(pl.col(far).to_physical()).row(0, named=True)
