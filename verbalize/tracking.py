"""Where a run's numbers go while it runs: always a local JSONL file, and Weights & Biases when asked.

The report reads the JSONL, so nothing depends on a service. wandb is reached in mode "online" only, which is opt-in;
`TrackingConfig.notice` says what leaves the machine and is meant to be the first line a command prints. Mode "offline"
writes wandb's own files and opens no connection (crash reports and machine description off as well). A missing key or
an unreachable server ends the run at once with an error that names the remedy: a run that was asked to be tracked never
goes on untracked.

This module imports neither torch nor wandb until a tracker is opened.
"""

import json
import netrc
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import polars as pl

from recsys.errors import CorruptFileError, InputError

FILE_NAME = "tracking.jsonl"


@dataclass(frozen=True)
class TrackingConfig:
    """`wandb`: "off", "offline" (files to `wandb sync` later) or "online". `texts`: whether tables, which quote
    verbalizations, go to wandb too; numbers alone go otherwise. `timeout_s`: how long an online start may take."""

    wandb: str = "off"
    project: str = "verbalize"
    group: str | None = None
    name: str | None = None
    texts: bool = False
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if self.wandb not in ("off", "offline", "online"):
            raise InputError(
                f"tracking.wandb {self.wandb!r}", 'must be "off", "offline" or "online"', "choose one of the three"
            )
        if self.timeout_s <= 0:
            raise InputError(
                f"tracking.timeout_s {self.timeout_s}", "must be positive", "give a number of seconds such as 30"
            )

    @property
    def notice(self) -> str | None:
        """The line to print first in mode "online": what leaves the machine. None in the other modes.

        >>> TrackingConfig(wandb="online").notice.startswith("wandb online: configuration")
        True
        """
        if self.wandb != "online":
            return None
        base = f"wandb online: configuration, metrics and system load go to {_server()} (project {self.project})"
        if self.texts:
            return (
                f"{base}, and so do texts: verbalizations, which quote users' histories, with their slates. "
                "Set tracking.texts=false to keep them here."
            )
        return f"{base}; no verbalization, history or title does (tracking.texts=false)."


class Tracker(Protocol):
    """What a run may say. Calls are cheap and safe to repeat after a resume: the latest value for a step wins."""

    def config(self, values: Mapping[str, Any]) -> None:
        """The resolved configuration and provenance, JSON values."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Named numbers at a step. Prefix names by their series, as in "seed0/reward/accuracy"."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows with text, such as completions; equal keys in every row."""

    def finish(self) -> None:
        """Flush and close; further calls are errors."""


class JsonlTracker:
    """Appends one JSON object a line and flushes it. A line that a kill cut short is removed when the file is opened
    again.
    """

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _drop_partial_line(path)
            self._stream = path.open("a", encoding="utf-8")
        except OSError as error:
            raise InputError(
                str(path), f"could not be opened for writing ({error.strerror})", "free space or permissions there"
            ) from error

    def config(self, values: Mapping[str, Any]) -> None:
        self._write({"kind": "config", "values": dict(values)})

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._write({"kind": "metrics", "step": step, "values": {k: _number(v) for k, v in values.items()}})

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self._write({"kind": "table", "name": name, "rows": [dict(r) for r in rows]})

    def finish(self) -> None:
        self._stream.close()

    def _write(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
        self._stream.flush()


class WandbTracker:
    """A wandb run. No console capture, no code, no git state, no machine description: only what the calls pass, and
    system load online.

    Raises InputError when mode "online" finds no key, is refused, or does not connect within `config.timeout_s`.
    """

    def __init__(self, config: TrackingConfig, folder: Path | str) -> None:
        if config.wandb == "off":
            raise InputError(
                "tracking.wandb off", "a wandb tracker needs a mode", 'set tracking.wandb to "offline" or "online"'
            )
        online = config.wandb == "online"
        if online and not _has_key():
            raise InputError(
                "tracking.wandb online without a key",
                "wandb needs an API key to upload",
                "set WANDB_API_KEY, run `wandb login`, or set tracking.wandb=offline",
            )
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when wandb is imported
        import wandb

        Path(folder).mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            console="off",
            silent=True,
            save_code=False,
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=not online,
            x_save_requirements=False,
            init_timeout=config.timeout_s,
            login_timeout=config.timeout_s,
            finish_timeout=10 * config.timeout_s,
            x_graphql_retry_max=2,
            x_graphql_timeout_seconds=config.timeout_s / 3,
        )
        try:
            self._run = wandb.init(
                project=config.project,
                group=config.group,
                name=config.name,
                dir=str(folder),
                mode="online" if online else "offline",
                settings=settings,
                reinit="create_new",
            )
        except wandb.errors.Error as error:
            raise InputError(
                f"tracking.wandb {config.wandb}",
                f"wandb could not start a run at {_server()}: {_first_line(error)}",
                "check the network and the key, or set tracking.wandb=offline and `wandb sync` later",
            ) from error
        self._texts = config.texts or not online
        self.folder = Path(self._run.dir).parent

    def config(self, values: Mapping[str, Any]) -> None:
        self._run.config.update(dict(values), allow_val_change=True)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows or not self._texts:
            return
        import wandb

        columns = list(rows[0])
        self._run.log({name: wandb.Table(columns=[*columns], data=[[row[c] for c in columns] for row in rows])})

    def finish(self) -> None:
        self._run.finish()


class Trackers:
    """Passes every call on to several trackers, in order."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = tuple(trackers)

    def config(self, values: Mapping[str, Any]) -> None:
        for tracker in self._trackers:
            tracker.config(values)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.metrics(step, values)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        for tracker in self._trackers:
            tracker.table(name, rows)

    def finish(self) -> None:
        for tracker in self._trackers:
            tracker.finish()


def open_tracker(config: TrackingConfig, folder: Path | str) -> Tracker:
    """The run's trackers: JSONL in `folder` always, wandb beside it when configured (under `folder`/wandb)."""
    local = JsonlTracker(Path(folder) / FILE_NAME)
    return local if config.wandb == "off" else Trackers([local, WandbTracker(config, folder)])


def read_metrics(path: Path | str) -> pl.DataFrame:
    """Columns step (Int64), name (String), value (Float64), sorted by name and step; the last value of a step wins.

    Raises CorruptFileError for an unreadable line other than a last one that a kill cut short.
    """
    values: dict[tuple[str, int], float] = {}
    for record in _records(Path(path)):
        if record["kind"] == "metrics":
            values.update({(name, record["step"]): _read_number(value) for name, value in record["values"].items()})
    rows = [(step, name, value) for (name, step), value in sorted(values.items())]
    return pl.DataFrame(rows, schema={"step": pl.Int64, "name": pl.String, "value": pl.Float64}, orient="row")


def _records(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise CorruptFileError(f"{path}, line {number}", f"not valid JSON ({error})", "remove the line") from error
    return records


def _drop_partial_line(path: Path) -> None:
    if not path.exists():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def _number(value: float) -> float | str:
    """JSON has no NaN: non-finite numbers become "nan", "inf" or "-inf"."""
    number = float(value)
    return number if number - number == 0 else str(number)


def _read_number(value: float | str) -> float:
    return float(value)


def _server() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


def _has_key() -> bool:
    """Whether a key is set or `wandb login` left one for the server in use; never asks anyone for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        stored = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return urlsplit(_server()).hostname in stored.hosts


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
