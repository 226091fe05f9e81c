"""Text columns as integers, and rows in order: what makes ten million events cheap.

A text column is hashed once into local codes; whatever must happen to its values (cleaning, ranking, looking up) then
happens once per distinct value. Rows are sorted by one 64-bit key that packs all columns of the order, where they fit.
"""

import polars as pl

from recsys.logs.text import clean


def distinct(text: pl.Series) -> tuple[pl.Series, pl.DataFrame]:
    """(code per row, null where the text is null; one row per distinct value, row c for code c, column `text`)."""
    kind = pl.Categorical(pl.Categories.random())  # categories of its own: codes are dense from 0
    coded = text.cast(kind)
    codes = coded.to_physical()
    size = 0 if codes.null_count() == len(codes) else int(codes.max()) + 1  # type: ignore[arg-type]
    numbers = pl.int_range(size, eager=True).cast(codes.dtype)
    table = pl.DataFrame({"text": numbers.cat.to(kind).cast(pl.String)})
    del coded  # only now: the categories live as long as a column that uses them
    return codes, table


def recoded(codes: pl.Series, table: pl.DataFrame, column: str) -> pl.Series:
    """The value in `column` of the row of `table` that each code names; null for a null code."""
    return table[column].gather(codes)


def cleaned(text: pl.Series) -> pl.Series:
    """`clean` of a column, computed once per distinct value."""
    codes, table = distinct(text)
    return recoded(codes, table.with_columns(clean(pl.col("text")).alias("clean")), "clean").alias(text.name)


def order(frame: pl.DataFrame, columns: list[str]) -> pl.Series:
    """Row numbers in ascending order of `columns` (integers without negatives, and times; no nulls); ties in any
    order."""
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
            unit = next(unit for unit in (1_000_000, 1_000, 1) if unit == 1 or (micros % unit == 0).all())
            values, width = (values.to_physical() - low) // unit, ((int(micros.max()) - low) // unit).bit_length()  # type: ignore[arg-type]
        else:
            width = int(frame[name].max()).bit_length()  # type: ignore[arg-type]
        if bits + width > 64:
            return None
        if width:
            key += values.cast(pl.UInt64) * (1 << bits)
        bits += width
    return frame.select(key.alias("key")).to_series() if bits else None
