"""The shapes of a log: as a source hands it over, whole or in batches, and canonical."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl

from recsys.logs.coded import Codes, codes_of
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
    impressions: pl.DataFrame | None = None
    """What was shown, in the columns of `data_schemas/impressions.yaml`; None where the log does not say."""
    counts: dict[str, int] = field(default_factory=dict)
    """What the source itself dropped, folded or inferred, and how often."""


@dataclass(frozen=True)
class PassingLog:
    """A `RawLog` without impressions whose events are never all in memory.

    `read(columns)` yields them from the first on, whenever it is called: batches of the source's size, in order, with
    these of the columns in `schema`.
    """

    read: Callable[[Sequence[str]], Iterator[pl.DataFrame]]
    schema: pl.Schema
    items: pl.DataFrame | None
    provenance: dict[str, str] = field(default_factory=dict)
    engaged: EngagedConfig | None = None
    counts: dict[str, int] = field(default_factory=dict)


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
    impressions: pl.DataFrame | None = None
    """Under their contract (`recsys.logs.impressions.carried`); None where the log does not say what was shown."""

    known: tuple[pl.DataFrame, pl.DataFrame, Codes] | None = field(default=None, repr=False, compare=False)
    """Codes left by `canonicalise`, with the events and items they are of."""

    @functools.cached_property
    def codes(self) -> Codes:
        """Users and items as integers, row by row; made on first use where nobody has left those of this very table.

        Raises InputError when the events are not in order.
        """
        if self.known is not None and self.known[0] is self.events and self.known[1] is self.items:
            return self.known[2]
        return codes_of(self.events, self.items)
