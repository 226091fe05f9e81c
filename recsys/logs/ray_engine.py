"""The Ray engine: the functions of `partitioned` over buckets of users, on the cores of a machine or of a cluster.

Ray only carries functions and tables about; what is computed is what the local engine computes. `RAY_ADDRESS` in the
environment, or a `ray.init` of the caller's own, names a cluster; else Ray is started here for the length of the call.
"""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from recsys.errors import InputError
from recsys.logs.engines import Given, Made, Run


class RayRun(Run):
    """Runs a function over its arguments as Ray tasks, at most two per CPU in flight, results in order. A context
    manager: Ray is started on entry and stopped on exit, unless it was running before.

    `cpus` limits a Ray that is started here (None: all cores). Raises InputError when Ray is not installed.
    """

    def __init__(self, cpus: int | None = None) -> None:
        self.ray, self.cpus, self.started = _ray(), cpus, False

    def __enter__(self) -> "RayRun":
        if not self.ray.is_initialized():
            settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
            if not os.environ.get("RAY_ADDRESS"):
                settings |= {"num_cpus": self.cpus, "include_dashboard": False}
            # A task has one core to itself: threads of its own would compete with its neighbours.
            one_thread = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
            self.ray.init(runtime_env={"env_vars": one_thread}, **settings)
            self.started = True
        return self

    def __exit__(self, *error: object) -> None:
        if self.started:
            self.ray.shutdown()
            self.started = False

    @property
    def parallelism(self) -> int:
        """How many tasks run at once."""
        return max(int(self.ray.cluster_resources().get("CPU", 1)), 1)

    @property
    def tasks(self) -> int:
        """Several a CPU: users are dealt evenly, what they cost is not."""
        return 4 * self.parallelism

    def __call__(self, function: Callable[[Given], Made], arguments: Iterable[Given]) -> Iterator[Made]:
        """Results in the order of the arguments; an error of a task is raised here as itself."""
        # Sent once and shared by the tasks of a machine, not once per task: it holds the catalogue and statistics.
        shared = self.ray.put(function)
        task = self.ray.remote(num_cpus=1, max_retries=3)(_call)
        waiting: collections.deque[Any] = collections.deque()
        for argument in arguments:
            waiting.append(task.remote(shared, argument))
            if len(waiting) >= 2 * self.parallelism:
                yield self._result(waiting.popleft())
        while waiting:
            yield self._result(waiting.popleft())

    def _result(self, reference: Any) -> Any:
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None


def _call(function: Callable[[Given], Made], argument: Given) -> Made:
    return function(argument)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "engine 'ray'", "needs the package ray, which is not installed", "pip install 'verbalize[ray]'"
        ) from error
    return ray
