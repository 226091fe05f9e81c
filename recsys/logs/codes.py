"""Text columns as integers, and rows in order: what makes a hundred million events cheap.

A text column is hashed once into local codes; whatever must happen to its values (cleaning, ranking, looking up) then
happens once per distinct value. Rows are sorted by one 64-bit key that packs all columns of the order, where they fit,
and the sorted columns are read back out of the sorted key.
"""

import numpy as np
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


def in_order(columns: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(row numbers in ascending order of `columns`, earlier rows first among equals; the columns in that order).

    Columns are integer arrays without negatives, (N,) each; the first is the most significant.
    """
    packed = _packed(columns)
    if packed is None:
        rows = np.lexsort(list(columns.values())[::-1])
        return rows, {name: values[rows] for name, values in columns.items()}
    key, fields = packed
    rows = stable_order(key)
    key, read = key[rows], {}
    for name in columns:
        shift, bits, low, unit = fields[name]
        values = ((key >> np.uint64(shift)) & np.uint64(2**bits - 1)).astype(columns[name].dtype)
        read[name] = values * unit + low if unit > 1 or low else values
    return rows, read


def stable_order(key: np.ndarray) -> np.ndarray:
    """Row numbers that sort an unsigned integer array (N,); among equal keys earlier rows come first.

    numpy's vectorised sorts are several times faster than its stable ones: where key and row number fit 64 bits they
    are sorted together, and else only runs of equal keys are put right afterwards.
    """
    row_bits = max(len(key) - 1, 1).bit_length()
    if len(key) and int(key.max()).bit_length() + row_bits <= 64:
        both = (key.astype(np.uint64) << np.uint64(row_bits)) | np.arange(len(key), dtype=np.uint64)
        both.sort()
        return (both & np.uint64(2**row_bits - 1)).astype(np.int64)
    rows = np.argsort(key)
    ordered = key[rows]
    again = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(again):
        tied = np.union1d(again, again + 1)
        rows[tied] = rows[tied][np.lexsort((rows[tied], ordered[tied]))]
    return rows


def run_starts(*columns: np.ndarray) -> np.ndarray:
    """Boolean (N,): whether a row differs from the row before in any of the columns; the first row does."""
    starts = np.ones(len(columns[0]), bool)
    if len(starts):
        starts[1:] = columns[0][1:] != columns[0][:-1]
        for values in columns[1:]:
            starts[1:] |= values[1:] != values[:-1]
    return starts


def _packed(columns: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, tuple[int, int, int, int]]] | None:
    """All columns in one uint64 whose order is theirs, and (shift, bits, low, unit) of each; None when they need more
    than 64 bits."""
    key = np.zeros(len(next(iter(columns.values()))), np.uint64)
    fields, used = {}, 0
    if not len(key):
        return None
    for name in reversed(columns):
        values = columns[name]
        low, unit = 0, 1
        if values.dtype == np.int64:
            # Times: most logs count in whole seconds, twenty bits less than microseconds.
            low = int(values.min())
            values = values - low
            for unit in (1_000_000, 1_000, 1):
                shorter = values // unit
                if unit == 1 or (shorter * unit == values).all():
                    values = shorter
                    break
        bits = int(values.max()).bit_length()
        if used + bits > 64:
            return None
        if bits:
            key |= values.astype(np.uint64) << np.uint64(used)
        fields[name] = (used, bits, low, unit) if bits else (0, 0, low, unit)
        used += bits
    return key, fields
