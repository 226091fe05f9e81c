"""Batches for tests of the store: a small universe in which ties, conflicts and unknown items are common."""

from collections.abc import Mapping
from typing import Any

import logs_factory as factory
import polars as pl

from recsys import contracts
from recsys.logs.engaged import EngagedConfig
from recsys.logs.events import canonicalise
from recsys.logs.examples import ExamplesConfig
from recsys.logs.store import Reference, Store
from recsys.logs.store.examples import ORDER, canonical, examples_of, targets_of
from recsys.logs.tables import Log, RawLog

ENGAGED = EngagedConfig(rating_at_least=3, event_types=("click",))
Row = tuple[int, int, int, int, str]  # user, item, hour, rating, event type


class Lengths:
    """A writer of two texts per example that differ whenever the history does."""

    settings: Mapping[str, Any] = {"names": ["titles", "count"]}

    def write(self, examples: pl.DataFrame) -> pl.DataFrame:
        history = pl.col("history").list
        texts = {
            "titles": history.eval(pl.element().struct.field("title")).list.join(";"),
            "count": history.len().cast(pl.String),
        }
        parts = [examples.select("example_id", verbalizer=pl.lit(name), text=text) for name, text in texts.items()]
        return pl.concat(parts)


def events_of(rows: list[Row]) -> pl.DataFrame:
    """Raw events; an odd rating comes with a surface that needs cleaning."""
    frame = factory.events_frame([row[:4] for row in rows])
    return frame.with_columns(
        pl.Series("event_type", [row[4] for row in rows], pl.String),
        pl.Series("surface", [f" row\t{row[3]}" if row[3] % 2 else None for row in rows], pl.String),
    )


def items_of(numbers: list[int], version: int = 0) -> pl.DataFrame:
    """Rows of the catalogue; another version has other titles, years, series and dates."""
    full = factory.catalogue().with_columns(pl.lit(None, pl.Datetime("us", "UTC")).alias("available_from"))[numbers]
    if version == 0:
        return full
    since = pl.lit(factory.hour(version), pl.Datetime("us", "UTC"))
    return full.with_columns(
        pl.col("title") + f" {version}",
        pl.col("year") + version,
        pl.lit(f"s{version}").alias("parent_id"),
        pl.when(pl.col("year").is_null()).then(since).alias("available_from"),
    )


def config(policy: str = "uniform", **changes: object) -> ExamplesConfig:
    return factory.small_config(policy, engaged=ENGAGED, **changes)


def raw(rows: list[Row], items: pl.DataFrame | None = None) -> RawLog:
    return RawLog(events_of(rows).lazy(), items, {}, ENGAGED)


def everything(batches: list[list[Row]], items: pl.DataFrame) -> Log:
    """What the ordinary pipeline makes of all batches at once; an empty log where none of it is valid."""
    events = pl.concat([events_of([]), *(events_of(rows) for rows in batches)])
    if events.join(items, on="item_id", how="semi").is_empty():
        return Log(contracts.empty("events"), items)
    return canonicalise(RawLog(events.lazy(), items))


def full_rebuild(log: Log, reference: Reference) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Examples and texts of a whole log at once, under a reference."""
    log = canonical(log.events, log.items)
    examples = examples_of(log, reference, targets_of(log, reference)).sort(*ORDER)
    return examples, Lengths().write(examples).sort("example_id", "verbalizer")


def same(store: Store, log: Log) -> None:
    """Assert that the store holds this log, and under its reference these examples and texts."""
    mine = store.log()
    assert mine.events.equals(log.events) and mine.items.equals(log.items)
    reference = store.reference()
    if reference is not None:
        examples, texts = full_rebuild(log, reference)
        assert store.examples().equals(examples)
        assert store.texts().equals(texts)
