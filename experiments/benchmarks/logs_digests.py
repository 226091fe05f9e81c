"""Digests that say whether the arms of the log benchmarks wrote equal tables, whatever library made them."""

import numpy as np
import polars as pl


def table_digest(table: pl.DataFrame) -> str:
    """Equal for equal values in equal order, whatever library made them."""
    lists = [pl.col(name).list.join("\x1f") for name, dtype in table.schema.items() if isinstance(dtype, pl.List)]
    times = [pl.col(name).dt.epoch("us") for name, dtype in table.schema.items() if isinstance(dtype, pl.Datetime)]
    plain = table.with_columns(*lists, *times).select(pl.all().cast(pl.String))
    total = np.uint64(0)
    for place, name in enumerate(plain.columns):
        values = plain[name].hash(seed=place).to_numpy()
        weights = np.arange(1, 2 * len(values), 2, dtype=np.uint64)  # odd: order matters
        total ^= (values * weights).sum(dtype=np.uint64)
    return f"{len(plain)} rows, {int(total):016x}"


def unordered_digest(table: pl.LazyFrame, columns: list[str]) -> str:
    """Equal for equal rows in any order: a sum of row hashes, modulo 2^64, in bounded memory."""
    total = pl.struct(columns).hash(seed=1).sum().alias("total")
    rows, total = table.select(pl.len(), total).collect(engine="streaming").row(0)
    return f"{rows} rows, {total:016x}"
