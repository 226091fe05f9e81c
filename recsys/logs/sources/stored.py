"""A store of events that kept arriving (`recsys.logs.store`) as a source.

Its log is canonical already, and equal to what the whole of its deliveries would give in one file. It is read as it is
now, never its examples: a recipe makes its own, so that they follow the recipe's settings and split times.
"""

from pathlib import Path
from typing import Any

from recsys.errors import InputError
from recsys.logs.store import Store
from recsys.logs.tables import Log


def read(path: str) -> Log:
    """The store's log. Raises InputError where there is no store, or no valid event in it yet."""
    log = _open(path).log()
    if log.events.is_empty():
        raise InputError(
            f"source.path {path!r}", "holds no valid event yet", "append events and the items they name first"
        )
    return log


def contents(path: str) -> dict[str, Any]:
    """What the log depends on (`Store.contents`): it differs after every append that brought something."""
    return _open(path).contents()


def _open(path: str) -> Store:
    if not path:
        raise InputError("source.path ''", "names no store", "give the folder of `verbalize data append`")
    return Store(Path(path).expanduser())
