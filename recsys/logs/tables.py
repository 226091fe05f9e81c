"""The two shapes of a log: as a source hands it over, and canonical."""

from dataclasses import dataclass, field

import polars as pl

from recsys.logs.engaged import EngagedConfig


@dataclass(frozen=True)
class RawLog:
    """Canonical column names, dtypes and units, but not yet cleaned, de-duplicated or ordered.

    `events` holds at least user_id, item_id, event_time, event_type. `items` holds at least item_id and title; None
    means that the events carry their items' columns themselves (title, year, ...): the catalogue is then derived from
    them.
    """

    events: pl.LazyFrame
    items: pl.DataFrame | None
    provenance: dict[str, str] = field(default_factory=dict)
    engaged: EngagedConfig | None = None


@dataclass(frozen=True)
class Log:
    """`events` and `items` under their contracts, events ordered by user, time, item; `counts` says what was dropped
    and why.

    `engaged` is the source's own idea of an engaged target, used where a recipe names none.
    """

    events: pl.DataFrame
    items: pl.DataFrame
    counts: dict[str, int] = field(default_factory=dict)
    engaged: EngagedConfig | None = None
