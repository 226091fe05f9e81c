"""A raw log as it passes by: so many rows at a time, and what can be known from that."""

from collections.abc import Iterator, Sequence

import polars as pl

from recsys import contracts
from recsys.logs.items import derived_items
from recsys.logs.tables import PassingLog, RawLog

BATCH_ROWS = 2_000_000
"""Raw rows held at once."""


def passing_of(raw: RawLog) -> PassingLog:
    """A log whose events are a lazy frame, read in batches."""

    def read(columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        return raw.events.select(columns).collect_batches(chunk_size=BATCH_ROWS // 4, maintain_order=True)

    return PassingLog(read, raw.events.collect_schema(), raw.items, raw.provenance, raw.engaged, raw.counts)


def batches(log: PassingLog, columns: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[pl.DataFrame]:
    """At least `rows` rows at a time, in order, and not many more: small batches of the source are joined."""
    held: list[pl.DataFrame] = []
    for batch in log.read(columns):
        held.append(batch)
        if sum(map(len, held)) >= rows:
            yield pl.concat(held, rechunk=True)
            held = []
    if held:
        yield pl.concat(held, rechunk=True)


def derived_catalogue(log: PassingLog, rows: int = BATCH_ROWS) -> pl.DataFrame:
    """`derived_items` of all batches: the first of the firsts."""
    columns = [name for name in contracts.schema("items") if name in log.schema and name != "available_from"]
    parts = [derived_items(batch) for batch in batches(log, ["event_time", *columns], rows)]
    return derived_items(pl.concat(parts).rename({"available_from": "event_time"}))
