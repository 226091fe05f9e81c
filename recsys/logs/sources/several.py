"""Several files as one table: which files a source's `file` names, and whether they fit together.

`file` may be one file, a folder (every file below it) or a pattern (`events-*.csv`, `**/*.parquet`). Files are read in
the order of their names, so the same files give the same rows whoever lists them. They must hold the same columns: a
file that lacks one, or holds it as another type, is refused by name, since what would be filled in is a guess.

Addresses of object storage are refused. A stage's key is a hash of the bytes that were read, which an address does not
give; a mounted or copied bucket is a folder like any other.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePath

import polars as pl

from recsys.errors import InputError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WILD = "*?["


def refuse_address(value: str, key: str) -> None:
    """Raises InputError where `value` is a URL (`s3://...`, `https://...`) and no path."""
    if _ADDRESS.match(value):
        remedy = "mount the bucket as a folder, or copy the files, and give that path"
        raise InputError(
            f"{key} {value!r}",
            "is an address; logs are read from files, whose bytes are part of what a run is known by",
            "give the path itself, without file://" if value.startswith("file:") else remedy,
        )


def paths_of(file: str, root: Path) -> list[Path]:
    """The files that `file` names below `root` (`root` itself where it is empty), by name.

    Of folders and patterns, names that begin with a dot or an underscore (`_SUCCESS`) are left out. Raises InputError
    for an address, and where there is no such file.
    """
    refuse_address(file, "file")
    path = root / file if file else root
    if path.is_file():
        return [path]
    is_pattern = any(sign in file for sign in _WILD)
    if (path.is_dir() or is_pattern) and (PurePath(file).is_absolute() or ".." in PurePath(file).parts):
        raise InputError(
            f"file {file!r}", "leaves the source's path", "set source.path to the folder above, and name files below"
        )
    if path.is_dir():
        found, base = list(path.rglob("*")), path
    elif is_pattern:
        found, base = _matching(file, root), root
    else:
        beside = sorted(one.name for one in path.parent.iterdir() if one.is_file()) if path.parent.is_dir() else []
        raise InputError(
            str(path),
            f"no such file; beside it: {beside[:12] or 'nothing'}",
            "correct the path of the source, or the mapping's `file`",
        )
    named = {one.relative_to(base): one for one in found if one.is_file()}
    files = [named[name] for name in sorted(named, key=PurePath.as_posix) if not _is_hidden(name)]
    if not files:
        present = sorted(one.name for one in base.iterdir())[:12] if base.is_dir() else []
        raise InputError(
            str(path),
            f"names no file; in {base.name or base}: {present or 'nothing'}",
            "correct the pattern or the folder (`**/*.csv` looks into folders as well)",
        )
    return files


def joined(parts: Mapping[str, pl.LazyFrame], guessed: bool) -> pl.LazyFrame:
    """The rows of several files, one after another, in the columns of the first.

    `guessed`: types were inferred from values, so whole numbers here and fractions there may be one column. A column
    that is null throughout fits any type. Raises InputError naming the file and the column that do not fit.
    """
    schemas = {name: part.collect_schema() for name, part in parts.items()}
    first = next(iter(schemas))
    common: dict[str, pl.DataType] = dict(schemas[first])
    for name, schema in schemas.items():
        for column in [*common, *schema]:
            if column not in schema or column not in common:
                has, lacks = (first, name) if column in common else (name, first)
                raise InputError(
                    f"{name}: column {column!r}",
                    f"is in {has} and not in {lacks}; files of one source have the same columns",
                    "correct the file, or let `file` name only those that belong together, e.g. events-*.csv",
                )
            fitting = _common(common[column], schema[column], guessed)
            if fitting is None:
                raise InputError(
                    f"{name}: column {column!r} of type {schema[column]}",
                    f"is {common[column]} in the files before it, such as {first}",
                    "write the files with one type per column",
                )
            common[column] = fitting
    return pl.concat([part.select(list(common)) for part in parts.values()], how="vertical_relaxed")


def _common(one: pl.DataType, other: pl.DataType, guessed: bool) -> pl.DataType | None:
    """A type that stands for both, None where they do not fit. Which of two widths of numbers is left to Polars."""
    if one == other or other == pl.Null:
        return one
    if one == pl.Null:
        return other
    if isinstance(one, pl.List) and isinstance(other, pl.List):
        inner = _common(_inner(one), _inner(other), guessed)
        return None if inner is None else pl.List(inner)
    signed = one.is_signed_integer() and other.is_signed_integer()
    unsigned = one.is_unsigned_integer() and other.is_unsigned_integer()
    return one if signed or unsigned or (guessed and one.is_numeric() and other.is_numeric()) else None


def _inner(dtype: pl.List) -> pl.DataType:
    inner = dtype.inner
    return inner if isinstance(inner, pl.DataType) else inner()


def _matching(pattern: str, root: Path) -> list[Path]:
    try:
        return list(root.glob(pattern))
    except ValueError as error:
        raise InputError(f"file {pattern!r}", f"is no pattern ({error})", "write e.g. events-*.csv") from error


def _is_hidden(name: PurePath) -> bool:
    return any(part.startswith((".", "_")) for part in name.parts)
