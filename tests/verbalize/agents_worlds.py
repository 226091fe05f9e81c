"""A small world for the tests of agents, with the troubles that real ones have, and the folder of games they share."""

import importlib.util
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from recsys.errors import InputError
from verbalize.agents.environment import Task


@dataclass(frozen=True)
class Ladder:
    """Makes ladders: climb `difficulty` steps ("up"); "down" goes back. `folder` holds marks of troubles already had.

    An action that names a trouble has it once (or, with "always", each time): die, hang, raise, refuse.
    """

    folder: Path | None = None
    drift: bool = False  # shows something else in every process
    slow: str = ""  # the id of a task that takes two seconds to begin

    def __call__(self) -> "LadderWorld":
        return LadderWorld(self)


class LadderWorld:
    def __init__(self, settings: Ladder) -> None:
        self.settings, self.height, self.task = settings, 0, Task("none", "ladder", 0)

    def reset(self, task: Task) -> str:
        if task.family != "ladder":
            raise InputError(f"family {task.family!r}", "is no ladder", "climb ladders")
        if task.id == self.settings.slow:
            time.sleep(2.0)
        self.task, self.height = task, 0
        return f"{self.goal()} {self._shown()}"

    def step(self, action: str) -> tuple[str, bool]:
        trouble, _, how = action.partition(" ")
        if how == "always" or (trouble in ("die", "hang", "raise") and self._first(trouble)):
            self._have(trouble)
        if action in self.admissible():
            self.height += 1 if action == "up" else -1
        return self._shown(), self.height >= self.task.difficulty

    def goal(self) -> str:
        return f"Climb {self.task.difficulty} steps."

    def admissible(self) -> list[str]:
        return ["down", "up"] if self.height else ["up"]

    def reward(self) -> float:
        return max(self.height, 0) / self.task.difficulty

    def close(self) -> None:
        pass

    def _shown(self) -> str:
        place = f" in {os.getpid()}" if self.settings.drift else ""
        return f"You stand on step {self.height} of world {self.task.seed}{place}."

    def _first(self, trouble: str) -> bool:
        assert self.settings.folder is not None
        mark = self.settings.folder / f"{trouble}-{self.task.id}"
        if mark.exists():
            return False
        mark.touch()
        return True

    def _have(self, trouble: str) -> None:
        if trouble == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble == "hang":
            time.sleep(60)
        if trouble == "refuse":
            raise InputError("action", "is refused", "act otherwise")
        raise RuntimeError("trouble")


def ladder(number: int, difficulty: int = 3, max_steps: int = 10) -> Task:
    return Task(f"ladder-{number}", "ladder", number, difficulty, max_steps)


def need_textworld() -> None:
    """A named skip without TextWorld, a failure where services are required."""
    if importlib.util.find_spec("textworld") is None:
        if os.environ.get("VERBALIZE_REQUIRE_SERVICES") == "1":
            pytest.fail("textworld not installed, and VERBALIZE_REQUIRE_SERVICES=1 requires it")
        pytest.skip("textworld not installed (pip install 'verbalize[agents]')")
