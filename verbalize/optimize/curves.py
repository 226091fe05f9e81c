"""The run's local log: one JSON line per optimizer step and per validation, consistent with the checkpoint resumed.

Trackers (wandb) get the same records through `on_step`; nothing here needs a network.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from recsys.storage import write_text
from verbalize.processes import leads

OnStep = Callable[[dict[str, Any]], None]

RENAMED = {
    "reward": "reward",
    "reward_std": "reward_std",
    "entropy": "entropy",
    "kl": "kl",
    "grad_norm": "grad_norm",
    "loss": "loss",
    "learning_rate": "learning_rate",
    "completions/mean_length": "completion_length",
    "clip_ratio/region_mean": "clipped",
}
"""TRL's names -> ours; names the reward function logs itself (with a dot in them) pass unchanged."""


class Curves:
    """Records in memory and in `curves.jsonl`; `rewind` forgets what happened after a checkpoint.

    Of several processes each keeps the records in memory, and the leader writes.
    """

    def __init__(self, path: Path, on_step: OnStep | None = None) -> None:
        self.path, self.on_step = path, on_step
        self.records: list[dict[str, Any]] = _read(path)

    def rewind(self, step: int) -> None:
        """Drop records after `step`: the resumed run makes them again."""
        self.records[:] = [record for record in self.records if record["step"] <= step]
        if leads():
            write_text("".join(_line(record) for record in self.records), self.path)

    def add(self, record: dict[str, Any]) -> None:
        """Append a record and pass it on."""
        self.records.append(record)
        if leads():
            with self.path.open("a", encoding="utf-8") as handle:
                handle.write(_line(record))
        if self.on_step:
            self.on_step(record)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """`train` or `validation` records, oldest first."""
        return [record for record in self.records if record["kind"] == kind]


class LogCurves(TrainerCallback):
    """Adds one `train` record per optimizer step."""

    def __init__(self, curves: Curves) -> None:
        self.curves = curves
        self._last = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._last = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if logs is None or "reward" not in logs:  # the summary at the end of a run
            return
        now = time.perf_counter()
        record: dict[str, Any] = {"kind": "train", "step": state.global_step, "of": state.max_steps}
        record |= {ours: logs[theirs] for theirs, ours in RENAMED.items() if logs.get(theirs) is not None}
        record |= {
            name: value
            for name, value in logs.items()
            if name.startswith(("groups.", "component.", "text.", "curriculum.", "slots."))
        }
        self.curves.add(record | {"seconds": round(now - self._last, 3)})
        self._last = now


class Validate(TrainerCallback):
    """Adds a `validation` record every `every` steps and after the last."""

    def __init__(self, evaluate: Callable[[int], None], every: int) -> None:
        self.evaluate, self.every = evaluate, every

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self.evaluate(state.global_step)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _read(path: Path) -> list[dict[str, Any]]:
    """Whole lines only: a kill may have cut the last one."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
