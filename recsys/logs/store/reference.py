"""The frozen reference: everything global that an example depends on, so that a batch changes its own users only.

Split times given as shares of the log, popularity deciles, the release years and dates of candidates: each new event
would move them a little and with them every example of every user. A store fixes them at one moment and keeps them
until `Store.refresh` is called:

- T1 and T2 as times;
- the items that may be negatives, with the year and the date from which each is a candidate;
- events per item and day, from which the popularity snapshot of any cutoff's day is added up.

Counts of days before a cutoff stay before it, so a frozen reference leaks no more than a live one; what it costs is
age. Events that arrive later are histories and targets at once, but no popularity, and an item that arrives later is a
target at once but a negative only after a refresh (as a target it is an item without events, among others without).
"Equal to a full rebuild" means: equal to a rebuild under the same reference. Right after a refresh that is
`canonicalise` and `build_examples` over everything ever delivered.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.logs.engaged import EngagedConfig
from recsys.logs.examples import ExamplesConfig
from recsys.logs.slates import SlateConfig
from recsys.logs.splits import SplitConfig, split_times
from recsys.logs.tables import Log

POLICIES = ("matched", "popularity", "uniform")


@dataclass(frozen=True)
class Reference:
    """`examples` has split times as dates and an engaged rule. `items`: item_id, year, available_from, ordered by id.
    `counts`: day (Int32, since 1970), code (UInt32, row of `items`), count (UInt32), ordered by day. `texts`: what the
    writer of candidate texts says of itself."""

    version: int
    examples: ExamplesConfig
    texts: Mapping[str, Any]
    items: pl.DataFrame = field(repr=False)
    counts: pl.DataFrame = field(repr=False)

    def settings(self) -> dict[str, Any]:
        """All but the tables, as plain values."""
        return {"version": self.version, "examples": asdict(self.examples), "texts": dict(self.texts)}


def frozen(log: Log, config: ExamplesConfig, texts: Mapping[str, Any], version: int) -> Reference:
    """The reference of this log. Raises InputError for a rule or a policy that a store cannot keep."""
    rule = config.engaged or log.engaged
    if rule is None:
        raise InputError(
            "engaged: (nothing)",
            "neither the configuration nor the source says what an engaged target is",
            "set examples.engaged, e.g. {rating_at_least: 4}",
        )
    if config.slate.policy not in POLICIES:
        raise InputError(
            f"slate.policy {config.slate.policy!r}",
            "cannot be kept up to date by a store",
            f"use one of {list(POLICIES)}, or build examples from the whole log",
        )
    first, second = (time.isoformat() for time in split_times(log.events["event_time"], config.split))
    split = replace(config.split, train_until=first, validate_until=second)
    items = log.items.select("item_id", "year", "available_from").sort("item_id")
    codes = items.select("item_id", pl.int_range(pl.len(), dtype=pl.UInt32).alias("code"))
    counts = (
        log.events.select("item_id", pl.col("event_time").dt.epoch("d").cast(pl.Int32).alias("day"))
        .join(codes, on="item_id")
        .group_by("day", "code")
        .agg(pl.len().cast(pl.UInt32).alias("count"))
        .sort("day", "code")
    )
    return Reference(version, replace(config, engaged=rule, split=split), dict(texts), items, counts)


def thawed(settings: Mapping[str, Any], items: pl.DataFrame, counts: pl.DataFrame) -> Reference:
    """The inverse of `Reference.settings`, with its tables."""
    values = dict(settings["examples"])
    parts = {"engaged": EngagedConfig, "split": SplitConfig, "slate": SlateConfig}
    nested = {name: kind(**_tuples(values[name])) for name, kind in parts.items()}
    config = ExamplesConfig(**{**values, **nested})
    return Reference(settings["version"], config, settings["texts"], items, counts)


def slate_items(live: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    """The live catalogue as slates see it: years and dates as frozen, items that came later never candidates."""
    known = reference.items.rename({"year": "frozen_year", "available_from": "frozen_from"})
    known = known.with_columns(pl.lit(True).alias("known"))
    never = pl.lit(np.iinfo(np.int64).max).cast(live.schema["available_from"])
    joined = live.sort("item_id").join(known, on="item_id", how="left", maintain_order="left")
    late = pl.col("known").is_null()
    return joined.with_columns(
        pl.when(late).then("year").otherwise("frozen_year").alias("year"),
        pl.when(late).then(never).otherwise("frozen_from").alias("available_from"),
    ).select(live.columns)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples they were."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
