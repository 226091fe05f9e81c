"""The simulator behind the door of every other log, and its truth behind a door of its own.

A recipe names either a folder that `write_simulation` made (`source.path`) or the settings themselves
(`source.inline`); events are then made on the spot, the same ones each time. Truth is never part of a RawLog: only
`truth_of` gives it out, and nothing that makes texts or ranks calls it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import InputError
from recsys.logs.engaged import EngagedConfig
from recsys.logs.tables import RawLog
from recsys.simulator.catalogue import make_catalogue
from recsys.simulator.config import SimulatorConfig, from_mapping
from recsys.simulator.generate import ENGAGED_COMPLETION, TRUTH_SCHEMA, simulate
from recsys.simulator.write import EVENTS, ITEMS, SETTINGS, TRUTH
from recsys.storage import read_json, read_parquet


def read(path: str, inline: Mapping[str, Any] | None) -> RawLog:
    """The log of a simulation. Raises InputError unless exactly one of `path` and `inline` is given."""
    config = settings_of(path, inline)
    engaged = EngagedConfig(completion_at_least=ENGAGED_COMPLETION)
    provenance = {"simulator": str(config)}
    if inline is None:
        folder = Path(path).expanduser()
        events = pl.scan_parquet(folder / EVENTS / "*.parquet")
        return RawLog(events, read_parquet(folder / ITEMS), provenance, engaged)
    events = pl.concat([chunk.events for chunk in simulate(config)]).lazy()
    return RawLog(events, make_catalogue(config).items, provenance, engaged)


def truth_of(path: str, inline: Mapping[str, Any] | None) -> pl.DataFrame:
    """What each event was (`generate.TRUTH_SCHEMA`); joins to events by user_id, item_id, event_time, event_type."""
    config = settings_of(path, inline)
    if inline is None:
        return pl.scan_parquet(Path(path).expanduser() / TRUTH / "*.parquet", schema=TRUTH_SCHEMA).collect()
    return pl.concat([chunk.truth for chunk in simulate(config)])


def settings_of(path: str, inline: Mapping[str, Any] | None) -> SimulatorConfig:
    """The configuration of a simulation, from its folder or from the recipe."""
    if bool(path) == (inline is not None):
        raise InputError(
            f"source.path {path!r} and source.inline {inline!r}",
            "exactly one of them names a simulation",
            "set source.path to a folder of `verbalize simulate`, or write its settings under source.inline",
        )
    if inline is not None:
        return from_mapping(inline)
    file = Path(path).expanduser() / SETTINGS
    if not file.is_file():
        raise InputError(
            f"source.path {path!r}", f"holds no {SETTINGS}: not a finished simulation", "run verbalize simulate"
        )
    return from_mapping(read_json(file))
