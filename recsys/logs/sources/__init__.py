"""Foreign logs behind one door; nothing outside this folder knows a foreign file format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.errors import InputError
from recsys.logs.sources import movielens, table
from recsys.logs.tables import RawLog

__all__ = ["RawLog", "SourceConfig", "open_source"]


@dataclass(frozen=True)
class SourceConfig:
    """Where the log comes from.

    `kind` is `movielens` (RecBole's or GroupLens' files, recognised by name) or `table` (any CSV, Parquet or JSON lines
    through a mapping). `path` is a folder or a file. `mapping` names a YAML file; `inline` holds the same content
    written in the recipe.
    """

    kind: str = "movielens"
    path: str = ""
    mapping: str = ""
    inline: dict[str, Any] | None = None


def open_source(config: SourceConfig) -> RawLog:
    """The raw log of a source. Raises InputError (path, mapping, units), CorruptFileError (unreadable file)."""
    path = Path(config.path).expanduser()
    if not config.path or not path.exists():
        raise InputError(
            f"source.path {config.path!r}",
            "does not exist",
            "give the folder or file of the log, or fetch the data set first",
        )
    if config.kind == "movielens":
        return movielens.read(path)
    if config.kind == "table":
        if bool(config.mapping) == bool(config.inline):
            raise InputError(
                f"source.mapping {config.mapping!r} and source.inline {config.inline!r}",
                "exactly one of them describes the table",
                "set source.mapping to a YAML file, or write it under source.inline",
            )
        return table.read(path, config.inline or config.mapping)
    raise InputError(f"source.kind {config.kind!r}", "is not known", "use movielens or table")
