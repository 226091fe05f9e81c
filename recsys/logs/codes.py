"""Text columns as integers, and rows in order: what makes ten million events cheap.

A text column is hashed once into local codes; whatever must happen to its values (cleaning, ranking, looking up) then
happens once per distinct value. Rows are sorted by one 64-bit key that packs all columns of the order, where they fit.
"""

import numpy as np
import polars as pl

from recsys.logs.text import clean


def distinct(text: pl.Series) -> tuple[pl.Series, pl.DataFrame]:
    """(code per row, null where the text is null; one row per distinct value with columns `text`, `code`)."""
    coded = text.cast(pl.Categorical(pl.Categories.random()))
    values = coded.unique().drop_nulls()
    table = pl.DataFrame({"text": values.cast(pl.String), "code": values.to_physical()})
    return coded.to_physical(), table.sort("code")


def recoded(codes: pl.Series, table: pl.DataFrame, column: str) -> pl.Series:
    """The value in `column` of the row of `table` that each code names."""
    size = (table["code"].max() or 0) + 1 if len(table) else 1
    places = np.full(int(size), len(table), np.int64)  # type: ignore[call-overload]
    places[table["code"].to_numpy()] = np.arange(len(table))
    values = pl.concat([table[column], pl.Series(column, [None], table.schema[column])])
    return values.gather(pl.Series(places).gather(codes.cast(pl.UInt32)).fill_null(len(table)))


def cleaned(text: pl.Series) -> pl.Series:
    """`clean` of a column, computed once per distinct value."""
    codes, table = distinct(text)
    return recoded(codes, table.with_columns(clean(pl.col("text")).alias("clean")), "clean").alias(text.name)


def order(frame: pl.DataFrame, columns: list[str]) -> pl.Series:
    """Row numbers in ascending order of `columns` (integers without negatives, and times; no nulls); ties in any order."""
    key = _packed(frame, columns)
    return key.arg_sort() if key is not None else frame.select(pl.arg_sort_by(columns)).to_series()


def _packed(frame: pl.DataFrame, columns: list[str]) -> pl.Series | None:
    """All columns in one UInt64 whose order is theirs, or None when they need more than 64 bits."""
    if frame.is_empty():
        return None
    key, bits = pl.lit(0, pl.UInt64), 0
    for name in reversed(columns):
        values, width = pl.col(name), 0
        if isinstance(frame.schema[name], pl.Datetime):
            # Most logs count in whole seconds: twenty bits less than microseconds.
            micros = frame[name].to_physical()
            low = int(micros.min())  # type: ignore[arg-type]
            unit = next(unit for unit in (1_000_000, 1_000, 1) if unit == 1 or not (micros % unit).any())
            values, width = (values.to_physical() - low) // unit, ((int(micros.max()) - low) // unit).bit_length()  # type: ignore[arg-type]
        else:
            width = int(frame[name].max()).bit_length()  # type: ignore[arg-type]
        if bits + width > 64:
            return None
        if width:
            key += values.cast(pl.UInt64) * (1 << bits)
        bits += width
    return frame.select(key.alias("key")).to_series() if bits else None
