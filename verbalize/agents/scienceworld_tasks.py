"""ScienceWorld's tasks: their variations, and the simulator's own solutions, asked once and kept in a folder."""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from recsys.errors import InputError
from recsys.seeding import stable_hash
from recsys.storage import read_json, write_json
from verbalize.agents.environment import Task
from verbalize.agents.scienceworld_simulator import EASY, USUAL, Simulator, SimulatorConfig, families, load

SPLITS = ("train", "dev", "test")


def science_task(family: str, variation: int, difficulty: int = 1, max_steps: int = 100) -> Task:
    """The task of one variation. Raises InputError for an unknown family or difficulty; the number of variations is
    checked when the task begins."""
    task = Task(f"{family}-{difficulty}-{variation}", family, variation, difficulty, max_steps)
    check_task(task)
    return task


def variations(family: str, split: str, folder: Path, config: SimulatorConfig = USUAL) -> list[int]:
    """The variations that the simulator itself counts to `train`, `dev` or `test`; asked once and kept in `folder`."""
    if split not in SPLITS:
        raise InputError(f"split {split!r}", f"is not one of {', '.join(SPLITS)}", "choose one of these")
    task = science_task(family, 0)

    def ask(server: Any) -> dict[str, list[int]]:
        load(server, task)
        lists = (server.getVariationsTrain(), server.getVariationsDev(), server.getVariationsTest())
        return {name: [int(number) for number in found] for name, found in zip(SPLITS, lists, strict=True)}

    with closing(_Clerk(folder, config)) as clerk:
        found: list[int] = clerk.find(("variations", family), ask)[split]
    return found


def walkthrough(task: Task, folder: Path, config: SimulatorConfig = USUAL) -> list[str]:
    """The simulator's own solution, in its own words; asked once and kept in `folder`."""
    return walkthroughs([task], folder, config)[0]


def walkthroughs(tasks: Sequence[Task], folder: Path, config: SimulatorConfig = USUAL) -> list[list[str]]:
    """The simulator's own solutions, those that are not in `folder` asked of one simulator."""

    def solution(server: Any, task: Task) -> list[str]:
        load(server, task, solve=True)
        return [str(action) for action in server.getGoldActionSequence()]

    for task in tasks:
        check_task(task)
    with closing(_Clerk(folder, config)) as clerk:
        return [
            clerk.find(("walkthrough", task.family, task.difficulty, task.seed), partial(solution, task=task))
            for task in tasks
        ]


class _Clerk:
    """Answers of the simulator, kept in `folder`; a simulator is started for the first one that is not there."""

    def __init__(self, folder: Path, config: SimulatorConfig) -> None:
        self._folder, self._config = folder, config
        self._simulator: Simulator | None = None

    def find(self, key: tuple[Any, ...], ask: Callable[[Any], Any]) -> Any:
        """What `ask` finds out from the simulator, kept under `key`."""
        from importlib.metadata import version

        families()
        name = f"{key[0]}-{key[1]}-{stable_hash('scienceworld', version('scienceworld'), *key):016x}.json"
        path = self._folder / name
        if not path.exists():
            self._simulator = self._simulator or Simulator(self._config)
            with self._simulator.within(self._config.start_timeout):
                write_json({"found": ask(self._simulator.server)}, path)
        return read_json(path)["found"]

    def close(self) -> None:
        if self._simulator is not None:
            self._simulator.close()


def check_task(task: Task) -> None:
    """Raises InputError for an unknown family or difficulty."""
    known = families()
    if task.family not in known:
        raise InputError(f"family {task.family!r}", f"is not one of {', '.join(known)}", "choose one of these")
    if task.difficulty not in EASY:
        raise InputError(f"difficulty {task.difficulty}", "is 1 (simplified) or 2 (as it is)", "choose one of these")
