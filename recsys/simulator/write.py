"""Any number of users into partitioned Parquet, in bounded memory: the simulator as a load generator.

DIR/events/part-00000.parquet …   the log, by ranges of users; what a pipeline may read
DIR/items.parquet                 the catalogue
DIR/truth/part-00000.parquet …    what each event was, keyed like events; for oracles only
DIR/simulator.json                the configuration, written last
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from recsys import contracts
from recsys.errors import InputError
from recsys.simulator.catalogue import make_catalogue
from recsys.simulator.config import SimulatorConfig
from recsys.simulator.generate import USERS_PER_CHUNK, simulate
from recsys.storage import write_json, write_parquet

EVENTS, TRUTH, ITEMS, SETTINGS = "events", "truth", "items.parquet", "simulator.json"


@dataclass(frozen=True)
class Written:
    """What was written."""

    users: int
    items: int
    events: int
    noise: int
    parts: int


def write_simulation(
    config: SimulatorConfig,
    folder: Path | str,
    users_per_part: int = USERS_PER_CHUNK,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Write a simulation part by part; `progress(users done, users)` after each.

    Raises InputError when the folder holds anything: parts of two simulations must not mix.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(str(folder), "is not an empty folder", "name a new folder, or delete this one")
    items = make_catalogue(config).items
    write_parquet(items, folder / ITEMS)
    events = noise = parts = 0
    for chunk in simulate(config, users_per_part):
        contracts.check(chunk.events, "events", unique=False)
        write_parquet(chunk.events, folder / EVENTS / f"part-{parts:05d}.parquet")
        write_parquet(chunk.truth, folder / TRUTH / f"part-{parts:05d}.parquet")
        events, noise, parts = events + len(chunk.events), noise + int(chunk.truth["is_noise"].sum()), parts + 1
        if progress:
            progress(min(parts * users_per_part, config.users), config.users)
    write_json(asdict(config), folder / SETTINGS)
    return Written(config.users, len(items), events, noise, parts)
