"""ScienceWorld (Wang et al. 2022, version 1.2.3) as an `Environment`: the real simulator, a Java process for each.

A task's family is one of the simulator's 30, its seed the variation, its difficulty 1 with the simulator's "easy"
simplifications (teleporting, open doors and containers, flowers that water themselves, no electricity where the task
needs none) or 2 without. The reward is the score; the simulator's failure (a negative score) earns 0 and ends the
episode.

Thousands of actions can be valid at once, so `admissible` lists at most `max_admissible`: all with fewer than two
objects come first, the rest is shared evenly by the verbs. Other wordings and combinations that the simulator
understands are carried out too, its own solutions need them; only `reset task` is not. What it does not understand
changes nothing; what it finds ambiguous is withdrawn, which lets its clock tick once.

The simulator is spoken to directly, not through the package's wrapper: that one computes the list of valid actions at
each step whether or not it is wanted, and calls back from Java. A simulator that does not answer in time is killed and
SimulatorLostError raised, which a pool meets by replaying the episode. It ends with its environment, and when the
process that started it dies: its input then closes.
"""

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.errors import InputError
from recsys.models.assets import cache_dir
from recsys.seeding import stable_hash
from recsys.storage import read_json, write_json
from verbalize.agents.environment import Task

NOTHING = "Nothing happens."
EASY = {1: "easy", 2: ""}
"""Difficulty -> the simulator's simplifications."""
SPLITS = ("train", "dev", "test")
_AMBIGUOUS = "Ambiguous request"
_SPOILERS = ("reset task",)


@dataclass(frozen=True)
class SimulatorConfig:
    """Seconds that a step and the start of a task may take: below a pool's, which otherwise acts first. Java's memory
    in megabytes. How many actions are listed at most.
    """

    step_timeout: float = 8.0
    start_timeout: float = 100.0
    memory_mb: int = 1024
    max_admissible: int = 200

    def __post_init__(self) -> None:
        if min(self.step_timeout, self.start_timeout) <= 0 or self.memory_mb < 256 or self.max_admissible < 1:
            raise InputError(f"{self}", "needs positive times, 256 MB and an action to list", "raise the setting")


@dataclass(frozen=True)
class ScienceWorld:
    """Makes environments, to be called in the process that plays them."""

    config: SimulatorConfig = SimulatorConfig()

    def __call__(self) -> "ScienceWorldEnvironment":
        return ScienceWorldEnvironment(self.config)


class SimulatorLostError(RuntimeError):
    """The simulator died or did not answer in time."""


class ScienceWorldEnvironment:
    """One simulator, started with the first task and kept for the following ones."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._config = config
        self._simulator: _Simulator | None = None
        self._task: Task | None = None
        self._score = 0.0
        self._over = False

    @property
    def pid(self) -> int | None:
        """The Java process, if one was started."""
        return self._simulator.process.pid if self._simulator else None

    def reset(self, task: Task) -> str:
        _check(task)
        simulator = self._running()
        self._task = None
        with simulator.within(self._config.start_timeout):
            _load(simulator.server, task)
            seen = simulator.server.freeActionLook()
        self._task, self._score, self._over = task, 0.0, False
        return f"{self.goal()}\n\n{readable(seen)}"

    def step(self, action: str) -> tuple[str, bool]:
        simulator = self._playing()
        if self._over or not action.strip() or action.strip() in _SPOILERS:
            return NOTHING, self._over
        with simulator.within(self._config.step_timeout):
            answer = simulator.server.step(action)
            if answer.startswith(_AMBIGUOUS):
                simulator.server.step("")
            self._score = float(simulator.server.getScore())
            self._over = bool(simulator.server.getCompleted()) or self._score < 0
        return readable(answer), self._over

    def goal(self) -> str:
        simulator = self._playing()
        with simulator.within(self._config.step_timeout):
            return readable(simulator.server.freeActionTaskDesc()).removeprefix("Task Description:").strip()

    def admissible(self) -> list[str]:
        """Sorted, at most `max_admissible`; none once the task is over."""
        simulator = self._playing()
        if self._over:
            return []
        with simulator.within(self._config.step_timeout):
            valid = json.loads(simulator.server.getValidActionObjectCombinationsJSON())["validActions"]
        return bounded(
            [(entry["action"], entry["template_id"], len(entry["obj_ids"])) for entry in valid],
            self._config.max_admissible,
        )

    def reward(self) -> float:
        self._playing()
        return min(max(self._score, 0.0), 1.0)

    def close(self) -> None:
        if self._simulator is not None:
            self._simulator.close()
        self._simulator = self._task = None

    def _running(self) -> "_Simulator":
        if self._simulator is not None and not self._simulator.lives():
            self.close()
        if self._simulator is None:
            self._simulator = _Simulator(self._config)
        return self._simulator

    def _playing(self) -> "_Simulator":
        if self._simulator is None or self._task is None:
            raise InputError("environment without a task", "has nothing to show", "call reset(task) first")
        return self._simulator


def science_task(family: str, variation: int, difficulty: int = 1, max_steps: int = 100) -> Task:
    """The task of one variation. Raises InputError for an unknown family or difficulty; the number of variations is
    checked when the task begins."""
    task = Task(f"{family}-{difficulty}-{variation}", family, variation, difficulty, max_steps)
    _check(task)
    return task


def families() -> list[str]:
    """The simulator's tasks by name. Raises InputError where it is not installed."""
    try:
        from scienceworld.constants import ID2TASK
    except ImportError as error:
        raise InputError("scienceworld", "is not installed", "pip install 'verbalize[agents]'") from error
    return list(ID2TASK.values())


def variations(family: str, split: str, folder: Path, config: SimulatorConfig = SimulatorConfig()) -> list[int]:
    """The variations that the simulator itself counts to `train`, `dev` or `test`; asked once and kept in `folder`."""
    if split not in SPLITS:
        raise InputError(f"split {split!r}", f"is not one of {', '.join(SPLITS)}", "choose one of these")
    task = science_task(family, 0)

    def ask(server: Any) -> dict[str, list[int]]:
        _load(server, task)
        lists = (server.getVariationsTrain(), server.getVariationsDev(), server.getVariationsTest())
        return {name: [int(number) for number in found] for name, found in zip(SPLITS, lists, strict=True)}

    found: list[int] = _remembered(folder, ("variations", family), ask, config)[split]
    return found


def walkthrough(task: Task, folder: Path, config: SimulatorConfig = SimulatorConfig()) -> list[str]:
    """The simulator's own solution, in its own words; asked once and kept in `folder`."""

    def ask(server: Any) -> list[str]:
        _load(server, task, solve=True)
        return [str(action) for action in server.getGoldActionSequence()]

    _check(task)
    path: list[str] = _remembered(folder, ("walkthrough", task.family, task.difficulty, task.seed), ask, config)
    return path


def bounded(actions: Sequence[tuple[str, int, int]], limit: int) -> list[str]:
    """(action, its template, its number of objects) -> at most `limit` actions, sorted, without spoilers.

    Actions with fewer than two objects come first; then the templates take turns, each giving its actions in an order
    by hash, which is the same at every step.

    >>> bounded([("go", 1, 1), ("mix a and b", 2, 2), ("reset task", 3, 0), ("tie a to b", 4, 2)], 2)[0]
    'go'
    """
    queues: dict[tuple[bool, int], list[str]] = {}
    for action, template, objects in actions:
        if action not in _SPOILERS:
            queues.setdefault((objects > 1, template), []).append(action)
    ranked = sorted(
        (paired, place, template, action)
        for (paired, template), queue in queues.items()
        for place, action in enumerate(sorted(set(queue), key=lambda text: (stable_hash(text), text)))
    )
    return sorted(list(dict.fromkeys(action for *_, action in ranked))[:limit])


def readable(text: str) -> str:
    """The simulator's reply without surplus white space.

    >>> readable("In it, you see: \\n\\tthe agent\\n\\n\\ta picture ")
    'In it, you see:\\nthe agent\\na picture'
    """
    return "\n".join(line for line in (" ".join(raw.split()) for raw in text.splitlines()) if line)


class _Simulator:
    """The Java process and the interface in it."""

    def __init__(self, config: SimulatorConfig) -> None:
        families()
        if shutil.which("java") is None:
            raise InputError("java", "is not installed, and ScienceWorld runs in it", "install a Java runtime")
        from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
        from scienceworld.constants import JAR_PATH

        options = [f"-Xmx{config.memory_mb}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        folder = cache_dir() / "scienceworld"  # where it is started it writes a table, always of one name
        folder.mkdir(parents=True, exist_ok=True)
        port, self.process = launch_gateway(
            classpath=JAR_PATH, javaopts=options, die_on_exit=True, cwd=str(folder), return_proc=True
        )
        # Without memory management: Python's collector would otherwise talk to a simulator that may be gone.
        parameters = GatewayParameters(port=port, enable_memory_management=False)
        self._gateway = JavaGateway(gateway_parameters=parameters)
        with self.within(config.start_timeout):
            self.server = self._gateway.jvm.scienceworld.runtime.pythonapi.PythonInterface()

    def lives(self) -> bool:
        return self.process.poll() is None

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Kill the simulator after `seconds`; raise SimulatorLostError when it is lost."""
        from py4j.protocol import Py4JError, Py4JJavaError

        watchdog = threading.Timer(seconds, self.process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        except (Py4JError, OSError) as error:
            if isinstance(error, Py4JJavaError):  # an exception in a simulator that lives
                raise
            self.close()
            raise SimulatorLostError(f"the simulator died, or did not answer in {seconds:g} s") from error
        finally:
            watchdog.cancel()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._gateway.close()


def _load(server: Any, task: Task, solve: bool = False) -> None:
    known = int(server.getTaskMaxVariations(task.family))
    if task.seed >= known:
        raise InputError(f"variation {task.seed}", f"{task.family} has {known}, counted from 0", "choose one of these")
    server.load(task.family, task.seed, EASY[task.difficulty], solve)


def _remembered(folder: Path, key: tuple[Any, ...], ask: Callable[[Any], Any], config: SimulatorConfig) -> Any:
    """What `ask` finds out from a simulator of its own, kept under `key`."""
    from importlib.metadata import version

    families()
    path = folder / f"{key[0]}-{key[1]}-{stable_hash('scienceworld', version('scienceworld'), *key):016x}.json"
    if not path.exists():
        simulator = _Simulator(config)
        try:
            with simulator.within(config.start_timeout):
                write_json({"found": ask(simulator.server)}, path)
        finally:
            simulator.close()
    return read_json(path)["found"]


def _check(task: Task) -> None:
    known = families()
    if task.family not in known:
        raise InputError(f"family {task.family!r}", f"is not one of {', '.join(known)}", "choose one of these")
    if task.difficulty not in EASY:
        raise InputError(f"difficulty {task.difficulty}", "is 1 (simplified) or 2 (as it is)", "choose one of these")
