"""Texts computed once per distinct value and looked up: for millions of events, which repeat one catalogue.

Each function returns an expression that may stand inside `list.eval`, and equals the plain one, value for value.
"""

from collections.abc import Callable

import polars as pl

from recsys.logs.codes import distinct, recoded

_SPARSE = 10  # days between the first and the last event, per event, above which a table of all days does not pay


def by_value(values: pl.Expr, rule: Callable[[pl.Expr], pl.Expr]) -> pl.Expr:
    """`rule`, from one value to a String, of every value; null stays null, -0.0 is 0.0. Pays where values repeat."""

    def texts(column: pl.Series) -> pl.Series:
        if column.dtype == pl.String:
            codes, table = distinct(column)
            return recoded(codes, table.with_columns(rule(pl.col("text")).alias("to")), "to").alias(column.name)
        if column.dtype.is_float():
            column = column.set(column == 0.0, 0.0)  # the two zeros are equal: one would be written as the other
        once = column.drop_nulls().unique().to_frame("value").with_columns(rule(pl.col("value")).alias("to"))
        return column.replace_strict(once["value"], once["to"], default=None, return_dtype=pl.String)

    return values.map_batches(texts, return_dtype=pl.String, is_elementwise=True)


def dates(times: pl.Expr, form: str) -> pl.Expr:
    """The UTC date of every time in a strftime form without time of day, written once per day."""

    def texts(column: pl.Series) -> pl.Series:
        day = column.dt.date().to_physical().cast(pl.Int64)
        first, last = day.min(), day.max()
        if not isinstance(first, int) or not isinstance(last, int) or last - first > _SPARSE * len(day):
            return column.dt.strftime(form)
        days = pl.int_range(first, last + 1, dtype=pl.Int32, eager=True).cast(pl.Date)
        return days.dt.strftime(form).gather(day - first).alias(column.name)

    return times.map_batches(texts, return_dtype=pl.String, is_elementwise=True)


def without_repeats(lists: pl.Expr) -> pl.Expr:
    """Each list of strings without its repeats, first occurrences in order."""

    def unique(column: pl.Series) -> pl.Series:
        # Telling that nothing repeats costs a third of taking repeats out, and catalogues rarely hold any.
        repeated = column.list.n_unique() < column.list.len()
        return column.list.unique(maintain_order=True) if repeated.any() else column

    return lists.map_batches(unique, return_dtype=pl.List(pl.String), is_elementwise=True)
