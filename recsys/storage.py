"""Files that are either whole or absent: every write goes to a neighbour first and is renamed into place."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import CorruptFileError, InputError

WHOLE_ROWS = 100_000
_GROUP_ROWS = 20_000


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it over `path` if the block succeeds, remove it if not.

    Raises InputError when the folder cannot be written (no space, no permission).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        os.chmod(name, 0o666 & ~_umask())
        temporary = Path(name)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            str(path),
            f"could not be written ({error.strerror or error})",
            "free space or permissions there, or choose another folder, and run the command again",
        ) from error


def write_parquet(frame: pl.DataFrame, path: Path | str) -> None:
    """Write atomically."""
    with replacing(path) as temporary:
        try:
            frame.write_parquet(temporary)
        except pl.exceptions.ComputeError as error:  # how Polars reports a full disk
            raise OSError(str(error)) from error


def join_parquet(paths: Sequence[Path], path: Path | str) -> None:
    """Write the rows of several files of one schema, one behind another, atomically and in bounded memory. A table of
    at most `WHOLE_ROWS` is written in one piece, so its bytes are those of `write_parquet`."""
    if sum(pl.scan_parquet(one, glob=False).select(pl.len()).collect().item() for one in paths) <= WHOLE_ROWS:
        return write_parquet(pl.concat([read_parquet(one) for one in paths]).rechunk(), path)
    with replacing(path) as temporary:
        try:
            pl.scan_parquet(list(paths), glob=False).sink_parquet(temporary, row_group_size=_GROUP_ROWS)
        except pl.exceptions.ComputeError as error:
            raise OSError(str(error)) from error


def read_parquet(
    path: Path | str,
    columns: Sequence[str] | None = None,
    where: pl.Expr | None = None,
    start: int = 0,
    rows: int | None = None,
) -> pl.DataFrame:
    """Read a file: whole, or these columns of the rows that meet `where` among `rows` from `start` on; what is left out
    takes no memory. Raises CorruptFileError naming the file when it is not Parquet."""
    try:
        if columns is None and where is None and not start and rows is None:
            return pl.read_parquet(path)
        held = pl.scan_parquet(path, glob=False).slice(start, rows)
        held = held if where is None else held.filter(where)
        return (held if columns is None else held.select(columns)).collect(engine="streaming")
    except FileNotFoundError:
        raise
    except Exception as error:
        raise CorruptFileError(
            str(path),
            f"not a readable Parquet file ({error})",
            "delete the file; the stage that wrote it will make it again",
        ) from error


def write_json(value: Any, path: Path | str) -> None:
    """Write atomically, sorted keys, two-space indent, final newline."""
    write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", path)


def write_text(text: str, path: Path | str) -> None:
    """Write UTF-8 atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """Read a JSON file. Raises CorruptFileError naming the file when it does not parse."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptFileError(
            str(path), f"not valid JSON ({error})", "delete the file; the stage that wrote it will make it again"
        ) from error


def file_hash(path: Path | str) -> str:
    """sha256 of the file's bytes, hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
