"""The simulator of ScienceWorld: a Java process, spoken to directly and killed when it does not answer in time.

The package's wrapper is not used: it computes the list of valid actions at each step whether or not it is wanted, and
calls back from Java. A simulator ends when the process that started it dies: its input then closes.
"""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from recsys.errors import InputError
from recsys.models.assets import cache_dir
from verbalize.agents.environment import Task

EASY = {1: "easy", 2: ""}
"""Difficulty -> the simulator's simplifications."""


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


USUAL = SimulatorConfig()
"""Limits that an idle machine keeps easily."""


class SimulatorLostError(RuntimeError):
    """The simulator died or did not answer in time."""


def families() -> list[str]:
    """The simulator's tasks by name. Raises InputError where it is not installed."""
    try:
        from scienceworld.constants import ID2TASK
    except ImportError as error:
        raise InputError("scienceworld", "is not installed", "pip install 'verbalize[agents]'") from error
    return list(ID2TASK.values())


class Simulator:
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


def load(server: Any, task: Task, solve: bool = False) -> None:
    """Set up the task's world; `solve` also computes its solution. Raises InputError for an unknown variation."""
    known = int(server.getTaskMaxVariations(task.family))
    if task.seed >= known:
        raise InputError(f"variation {task.seed}", f"{task.family} has {known}, counted from 0", "choose one of these")
    server.load(task.family, task.seed, EASY[task.difficulty], solve)
