"""One process at a time in a folder: a lock that goes with its process, however it ends."""

import fcntl
from pathlib import Path
from typing import IO

from recsys.errors import InputError

LOCK = ".lock"


def hold_lock(folder: Path, what: str, busy: str, remedy: str, unwritable: str = "name another folder") -> IO[str]:
    """The lock of `folder`, which is made if need be, until the returned handle is closed (`with hold_lock(...):`).

    Raises InputError (`busy`, `remedy`) when another process holds it, and when the folder "cannot hold `what`".
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / LOCK).open("w")
    except OSError as error:
        raise InputError(str(folder), f"cannot hold {what} ({error.strerror})", unwritable) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.close()
        raise InputError(str(folder), busy, remedy) from error
    return handle
