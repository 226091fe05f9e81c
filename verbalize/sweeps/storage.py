"""Where a sweep's trials are kept: a journal file for one machine (or a shared folder), PostgreSQL for many.

Both take appends from many processes. The journal's lock is the operating system's: it goes with the process that holds
it, so a killed worker blocks nobody (Optuna's own lock files wait half a minute for one).
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

from recsys.errors import InputError
from recsys.seeding import stable_hash
from verbalize.config import plain
from verbalize.sweeps.ownership import place
from verbalize.sweeps.sampling import make_pruner, make_sampler
from verbalize.sweeps.settings import Sweep

FOLDER = "sweeps"
JOURNAL = "journal.log"
IDENTITY = "identity"


def folder_of_sweep(runs: Path | str, name: str) -> Path:
    """`<runs>/sweeps/<name>`: the journal, the results, the final comparison."""
    return Path(runs) / FOLDER / name


def open_study(sweep: Sweep, runs: Path | str, url: str | None = None, create: bool = True) -> optuna.Study:
    """The sweep's study, made at first. `url` comes before the file's `storage`.

    Raises InputError when the study was begun with another space, objective or recipe, when there is none and `create`
    is false, and when the storage cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    config = sweep.config
    storage = open_storage(url or config.storage, folder_of_sweep(runs, config.name))
    holder: list[optuna.Study] = []
    sampler = make_sampler(sweep, lambda trial: place(holder[0].get_trials(deepcopy=False), trial))
    if not create and config.name not in optuna.get_all_study_names(storage):
        raise InputError(f"sweep {config.name}", "has no trials yet", "run it without --final first")
    study = optuna.create_study(
        storage=storage,
        study_name=config.name,
        sampler=sampler,
        pruner=make_pruner(sweep),
        directions=[StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * len(config.objective.costs)],
        load_if_exists=True,
    )
    holder.append(study)
    mine = identity(sweep)
    known = study.user_attrs.get(IDENTITY)
    if known is None:
        study.set_user_attr(IDENTITY, mine)
    elif known != mine:
        raise InputError(
            f"sweep {config.name}",
            "was begun with another space, objective or recipe, so its trials do not compare",
            "give this one another name",
        )
    return study


def open_storage(url: str | None, folder: Path) -> optuna.storages.BaseStorage:
    """A journal in `folder`, or the database at `url`."""
    if url is None:
        path = folder.resolve() / JOURNAL
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise InputError(
                str(path), f"cannot be written ({error.strerror})", "give another --runs folder"
            ) from error
        _drop_partial_line(path)
        lock: Any = FileLock(path)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    if not url.startswith("postgresql"):
        raise InputError(
            f"storage {_without_password(url)}", "is not PostgreSQL", "give postgresql://user@host/database"
        )
    try:
        with _making_tables(_with_driver(url)):
            # Without pre-ping a connection that the server dropped would end a worker after hours of training.
            return RDBStorage(_with_driver(url), engine_kwargs={"pool_pre_ping": True})
    except ImportError as error:
        raise InputError(
            f"storage {_without_password(url)}", "needs the driver psycopg", "pip install 'verbalize[postgres]'"
        ) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("sqlalchemy", "psycopg"):
            raise
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise InputError(
            f"storage {_without_password(url)}",
            f"cannot be used ({reason})",
            "check the address and the rights; a password belongs in ~/.pgpass or PGPASSWORD",
        ) from error


def identity(sweep: Sweep) -> str:
    """Hash of what makes trials comparable: space, objective and recipe, not where they are tracked or how many."""
    recipe = plain(sweep.recipe())
    for name in ("name", "title", "licence", "evaluation", "tracking"):
        recipe.pop(name)
    parts = [plain(sweep.config.space), plain(sweep.config.objective), recipe]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class FileLock:
    """The lock a journal backend asks for, by flock on a neighbour of the journal."""

    def __init__(self, journal: Path) -> None:
        self._path = journal.with_name(f".{journal.name}.lock")
        self._handle: IO[str] | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        handle = self._path.open("w")
        fcntl.flock(handle, fcntl.LOCK_EX)
        self._handle = handle
        return True

    def release(self) -> None:
        """Give it back."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None


@contextlib.contextmanager
def _making_tables(url: str) -> Iterator[None]:
    """One worker at a time: two that make Optuna's tables at once in an empty database collide. The lock goes with the
    connection."""
    from sqlalchemy import NullPool, create_engine, text

    with create_engine(url, poolclass=NullPool).connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": stable_hash("optuna tables") >> 1})
        yield


def _drop_partial_line(path: Path) -> None:
    """A machine that lost power may leave half a line, which would make the whole journal unreadable later."""
    lock = FileLock(path)
    lock.acquire()
    try:
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)
    finally:
        lock.release()


def _with_driver(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme == "postgresql" else url


def _without_password(url: str) -> str:
    """
    >>> _without_password("postgresql://ann:secret@host/db")
    'postgresql://ann@host/db'
    """
    scheme, separator, rest = url.partition("://")
    account, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{account.partition(':')[0]}{at}{place}"
