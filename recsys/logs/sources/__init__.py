"""Foreign logs behind one door; nothing outside this folder knows a foreign file format."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.contracts import nearest
from recsys.errors import InputError
from recsys.logs.batches import passing_of
from recsys.logs.events import canonicalise
from recsys.logs.impressions import carried
from recsys.logs.series import rolled_up, rolled_up_passing
from recsys.logs.sources import mind, movielens, netflix, stored, table
from recsys.logs.sources.mapping import load_mapping
from recsys.logs.sources.several import refuse_address
from recsys.logs.tables import Log, PassingLog, RawLog

__all__ = ["KINDS", "RawLog", "SourceConfig", "open_passing", "open_source", "read_log", "read_whole"]

KINDS = ("movielens", "table", "netflix", "mind", "simulator", "store")


@dataclass(frozen=True)
class SourceConfig:
    """Where the log comes from.

    `kind` is `movielens` (RecBole's or GroupLens' files, recognised by name), `table` (any CSV, Parquet or JSON lines
    of events, play signals or impressions through a mapping), `netflix` (a member's viewing activity), `mind` (news
    logs as MIND ships them), `simulator` (`recsys.simulator`) or `store` (what `verbalize data append` keeps). `path`
    is a folder or a file. `mapping` names a YAML file; `inline` holds the same content written in the recipe, the
    options of `netflix`, or the settings of a simulation. `roll_up` makes series the items in place of their episodes.
    """

    kind: str = "movielens"
    path: str = ""
    mapping: str = ""
    inline: dict[str, Any] | None = None
    roll_up: bool = False


def open_source(config: SourceConfig) -> RawLog:
    """The raw log of a source. Raises InputError (path, mapping, units), CorruptFileError (unreadable file)."""
    if config.kind not in KINDS:
        hint = nearest(config.kind, KINDS)
        raise InputError(f"source.kind {config.kind!r}", "is not known", f"use one of {', '.join(KINDS)} ({hint})")
    if config.kind == "store":
        raise InputError("source.kind 'store'", "has no raw log: a store's is canonical already", "call read_log")
    refuse_address(config.path, "source.path")
    if config.kind == "simulator":  # no file of a foreign format: its events are made, or were written by us
        from recsys.simulator import source as simulator

        raw = simulator.read(config.path, config.inline)
        return rolled_up(raw) if config.roll_up else raw
    raw = _open(config, _existing(config))
    return rolled_up(raw) if config.roll_up else raw


def open_passing(config: SourceConfig) -> PassingLog:
    """`open_source` for a log larger than memory: the events of tables, of MovieLens and of a simulation on disk stay
    in their files and are read in batches. What is wrong with their values is said when they are.

    Raises InputError for a log that `read_whole` speaks of.
    """
    if reason := read_whole(config):
        raise InputError(f"source.kind {config.kind!r}", reason, "set engine: local")
    if config.kind in ("table", "movielens"):
        refuse_address(config.path, "source.path")
        path, described = _existing(config), _described(config)
        log = movielens.read_passing(path) if config.kind == "movielens" else table.read_passing(path, described)
        return rolled_up_passing(log) if config.roll_up else log
    log = passing_of(open_source(dataclasses.replace(config, roll_up=False)))
    return rolled_up_passing(log) if config.roll_up else log


def read_whole(config: SourceConfig) -> str:
    """Why a log can only be read whole, in memory; "" where its events can pass by in batches."""
    if config.kind == "store":
        return "is read whole: its deliveries are put together"
    rules = load_mapping(_described(config)) if config.kind == "table" else None
    if rules is not None and rules.plays:
        return "maps `plays`, which is read whole: signals are folded into views"
    if config.kind == "mind" or (rules is not None and rules.impressions):
        return "has impressions, and what was shown is read whole"
    return ""


def read_log(config: SourceConfig) -> Log:
    """A source made canonical, with its impressions and everything that was counted on the way.

    Raises what `open_source` raises, and InputError when nothing is left.
    """
    if config.kind == "store":
        if config.mapping or config.inline or config.roll_up:
            raise InputError(
                f"source.mapping {config.mapping!r}, source.inline {config.inline!r}, source.roll_up {config.roll_up}",
                "describe files; a store's events were read when they were appended",
                "leave them out (discovery looks at series without rolling up, where items name their parent_id)",
            )
        return stored.read(config.path)
    raw = open_source(config)
    return carried(raw, canonicalise(raw))


def _existing(config: SourceConfig) -> Path:
    path = Path(config.path).expanduser()
    if not config.path or not path.exists():
        raise InputError(
            f"source.path {config.path!r}",
            "does not exist",
            "give the folder or file of the log, or fetch the data set first",
        )
    return path


def _described(config: SourceConfig) -> dict[str, Any] | str:
    """The mapping of a table; nothing for a kind whose layout is known. Raises InputError for the other way round."""
    given = bool(config.mapping), bool(config.inline)
    if config.kind == "table" and given[0] == given[1]:
        raise InputError(
            f"source.mapping {config.mapping!r} and source.inline {config.inline!r}",
            "exactly one of them describes the table",
            "set source.mapping to a YAML file, or write it under source.inline",
        )
    if config.kind != "table" and (config.mapping or (config.inline and config.kind != "netflix")):
        raise InputError(
            f"source.mapping {config.mapping!r} and source.inline {config.inline!r}",
            f"describe a table; the layout of {config.kind} is known",
            "leave them out, or set source.kind: table",
        )
    return config.inline or config.mapping


def _open(config: SourceConfig, path: Path) -> RawLog:
    described = _described(config)
    if config.kind == "table":
        return table.read(path, described)
    if config.kind == "netflix":
        return netflix.read(path, config.inline)
    return movielens.read(path) if config.kind == "movielens" else mind.read(path)
