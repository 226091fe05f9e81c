"""The log of `logs_at_scale`: the project's simulator as a load generator, and the mess of real deliveries on top.

Accounts of the simulated service (`recsys.simulator`) over three months: about 100 events each, 20,000 films and
episodes, previews and accidental plays among the plays. What its events lack and real logs have is added, by seed:

  order       rows lie anywhere in any file
  ties        times are whole minutes, so that short plays of an account tie
  repeats     0.5% of the events are delivered twice, mostly in different files
  unknown     the catalogue lacks 1% of its items; their events are of items nobody knows

Memory is bounded by one chunk of accounts and one file of the log, whatever the number of events.
"""

import shutil
from pathlib import Path

import numpy as np
import polars as pl

from recsys.seeding import rng
from recsys.simulator.catalogue import make_catalogue
from recsys.simulator.config import SimulatorConfig
from recsys.simulator.generate import simulate

FILE_EVENTS = 5_000_000
REPEATED, UNKNOWN = 0.005, 0.01
_ACCOUNTS = 8192  # simulated at once: 1.6 times as fast as 2048 and 0.7 GB
_COLUMNS = ("user_id", "item_id", "event_time", "event_type", "duration_s", "completion")


def generate(n_events: int, folder: Path) -> None:
    """FOLDER/events/*.parquet and FOLDER/items.parquet; nothing where they are there already.

    The first `n_events` of the simulation, account by account, and their repeats on top.
    """
    if (folder / "complete").exists():
        return
    for left in (folder / "dealt", folder / "events"):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    # More accounts than needed: an account's events do not depend on how many there are.
    config = SimulatorConfig(users=n_events // 10 + _ACCOUNTS, days=90, works=9000)
    files = [folder / "dealt" / f"{number:04d}" for number in range(-(-n_events // FILE_EVENTS))]
    for file in files:
        file.mkdir(parents=True)
    left = n_events
    for number, chunk in enumerate(simulate(config, _ACCOUNTS)):
        events = chunk.events.select(_COLUMNS).head(left)
        left -= len(events)
        _deal(events, files, number)
        if not left:
            break
    (folder / "events").mkdir()
    for number, file in enumerate(files):
        events = pl.read_parquet(file)
        order = rng("logs at scale, order", number).permutation(len(events))
        events[order].write_parquet(folder / "events" / f"{number:04d}.parquet")
        shutil.rmtree(file)
    items = make_catalogue(config).items
    known = rng("logs at scale, catalogue").random(len(items)) >= UNKNOWN
    items.filter(pl.Series(known)).write_parquet(folder / "items.parquet")
    (folder / "dealt").rmdir()
    (folder / "complete").touch()


def _deal(events: pl.DataFrame, files: list[Path], number: int) -> None:
    """Times to the minute, some events twice, each row to a file of its own luck."""
    generator = rng("logs at scale, chunk", number)
    events = events.with_columns(pl.col("event_time").dt.truncate("1m"))
    repeats = events.filter(pl.Series(generator.random(len(events)) < REPEATED))
    delivered = pl.concat([events, repeats])
    lot = generator.integers(len(files), size=len(delivered))
    for place, file in enumerate(files):
        delivered[np.flatnonzero(lot == place)].write_parquet(file / f"{number:05d}.parquet", compression="lz4")
