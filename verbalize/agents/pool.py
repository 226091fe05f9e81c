"""Many environments at once: each in a worker process, or (in tests, as the baseline) one after another in this one.

Processes, because TextWorld's interpreter is a C library and its bookkeeping holds the interpreter lock of Python. They
are started by a fork server, so no thread or open file of this process is copied into them, and a worker whose pool
was killed sees its pipe close and ends.

A worker that dies, hangs beyond its time or raises is replaced: the new one begins the task again and carries out the
actions so far. Tasks are deterministic, so it must show what the old one had shown; the others play on meanwhile. After
more than `restarts` failures within one move, or a replay that shows something else, the episode ends as crashed; the
batch goes on. Bad input (InputError) is no crash: it is raised here.
"""

import contextlib
import logging
import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from recsys.errors import InputError
from verbalize.agents.environment import MakeEnvironment, Task, View, play, step
from verbalize.agents.pool_worker import serve

logger = logging.getLogger(__name__)

Move = Task | str
"""What a slot does next: begin a task, or carry out an action of the present one."""


@dataclass(frozen=True)
class PoolConfig:
    """`size` workers; seconds that an action and the start of a task (generating its world included) may take; how
    often a worker is replaced within one move; modules that the fork server imports once, for all workers.
    """

    size: int = 8
    step_timeout: float = 10.0
    start_timeout: float = 120.0
    restarts: int = 2
    preload: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 1 or self.restarts < 0 or min(self.step_timeout, self.start_timeout) <= 0:
            raise InputError(
                f"{self}", "needs a worker, positive times and no negative number of restarts", "correct it"
            )


class Environments(Protocol):
    """`size` slots, each playing one episode at a time."""

    @property
    def size(self) -> int: ...

    def advance(self, moves: Mapping[int, Move]) -> dict[int, View]:
        """One move in each of the named slots; the views that follow, by slot.

        Every action is answered. A task that takes longer to begin may be answered by a later call, so that it does
        not keep the others waiting; a call without actions waits for all that have begun.
        """


class LocalEnvironments:
    """Slots in this process, moved one after another; nothing is guarded."""

    def __init__(self, make: MakeEnvironment, size: int = 1) -> None:
        self._slots = [make() for _ in range(size)]

    @property
    def size(self) -> int:
        return len(self._slots)

    def advance(self, moves: Mapping[int, Move]) -> dict[int, View]:
        return {
            number: step(self._slots[number], move) if isinstance(move, str) else play(self._slots[number], move, ())[0]
            for number, move in moves.items()
        }

    def close(self) -> None:
        for environment in self._slots:
            environment.close()


class _Slot:
    """A worker, the episode it plays and what it has shown so far."""

    def __init__(self, make: MakeEnvironment, context: Any) -> None:
        self._make, self._context = make, context
        self.task: Task | None = None
        self.actions: list[str] = []
        self.views: list[View] = []  # the present move's own is added when it arrives
        self.failures = 0  # within the present move
        self.start()

    def start(self) -> None:
        """A new worker, which knows of no episode."""
        self.connection, theirs = self._context.Pipe()
        self.process = self._context.Process(target=serve, args=(self._make, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the worker's death closes the pipe

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def ask(self, message: tuple[Task | None, list[str]]) -> None:
        # A dead worker's pipe may break here; that it will not answer is found, and dealt with, where answers are read.
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def begin(self, move: Move) -> None:
        """Send the worker on its next move."""
        self.failures = 0
        if isinstance(move, Task):
            self.task, self.actions, self.views = move, [], []
            self.ask((move, []))
        else:
            self.actions.append(move)
            self.ask((None, [move]))

    def receive(self) -> list[View]:
        """The answer in the pipe. Raises the InputError it may hold, _FailedError for other exceptions and for none."""
        if not self.connection.poll():
            raise _FailedError("did not answer in time")
        try:
            answer = self.connection.recv()
        except Exception as error:  # the pipe's end, or an exception of the worker's that cannot be rebuilt here
            raise _FailedError(f"died ({type(error).__name__})") from error
        if isinstance(answer, InputError):
            raise answer
        if isinstance(answer, Exception):
            raise _FailedError(f"raised {type(answer).__name__}: {answer}") from answer
        return list(answer)

    def crashed(self) -> View:
        """The end of an episode that cannot go on."""
        last = self.views[-1] if self.views else View("", (), 0.0, True, "")
        return replace(last, admissible=(), done=True, crashed=True)


class _FailedError(Exception):
    """A worker that gave no usable answer, and why."""


class EnvironmentPool:
    """`config.size` environments, each in a worker process. Use it as a context, or call `close`.

    A script that makes one at its top level must do so under `if __name__ == "__main__"`, as with any process pool.
    """

    def __init__(self, make: MakeEnvironment, config: PoolConfig | None = None) -> None:
        self.config = config or PoolConfig()
        self.restarted = 0  # workers replaced so far
        self._owed: dict[int, float] = {}  # slots that have not answered, and until when they may
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(self.config.preload))
        self._slots = [_Slot(make, context) for _ in range(self.config.size)]

    @property
    def size(self) -> int:
        return self.config.size

    @property
    def pids(self) -> list[int]:
        """The workers' process ids, by slot."""
        return [slot.process.pid for slot in self._slots]

    def advance(self, moves: Mapping[int, Move]) -> dict[int, View]:
        """See `Environments`. A task for a slot that has not answered yet replaces what it was asked before.

        Raises InputError for what an environment refuses as bad input, once the slots waited for have answered, and for
        an action in a slot that is not ready for it.
        """
        for number, move in moves.items():
            if isinstance(move, str) and (number in self._owed or self._slots[number].task is None):
                raise InputError(
                    f"action {move!r}",
                    f"slot {number} has no task, or still begins one",
                    "act once it has shown a view",
                )
        for number, move in moves.items():
            if number in self._owed:  # what it was asked before is no longer wanted
                self._slots[number].kill()
                self._slots[number].start()
            self._slots[number].begin(move)
            self._owed[number] = self._deadline(self._slots[number], begins=isinstance(move, Task))
        acting = {number for number, move in moves.items() if isinstance(move, str)}
        answers: dict[int, View] = {}
        refusals: list[InputError] = []
        while self._owed and (not acting or acting & self._owed.keys()):
            for number in self._ready():
                slot = self._slots[number]
                try:
                    view = self._view(slot)
                except InputError as error:
                    slot.task = None
                    refusals.append(error)
                else:
                    if view is None:
                        self._owed[number] = self._deadline(slot, begins=True)
                        continue
                    slot.views.append(view)
                    answers[number] = view
                del self._owed[number]
        if refusals:
            raise refusals[0]
        return answers

    def close(self) -> None:
        """End the workers."""
        for slot in self._slots:
            slot.kill()

    def __enter__(self) -> "EnvironmentPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _deadline(self, slot: _Slot, begins: bool) -> float:
        actions = len(slot.actions) if begins else 1
        return time.monotonic() + self.config.step_timeout * actions + self.config.start_timeout * begins

    def _ready(self) -> list[int]:
        """The slots that have an answer, or whose time is up; waits for the first."""
        numbers = {self._slots[number].connection: number for number in self._owed}
        found = wait(list(numbers), timeout=max(0.0, min(self._owed.values()) - time.monotonic()))
        late = {number for number, deadline in self._owed.items() if deadline <= time.monotonic()}
        return sorted({numbers[connection] for connection in found if isinstance(connection, Connection)} | late)

    def _view(self, slot: _Slot) -> View | None:
        """The answer to the present move; None when a new worker has been asked for it."""
        try:
            views = slot.receive()
        except _FailedError as failure:
            slot.failures += 1
            return self._restart(slot, str(failure), replay=slot.failures <= self.config.restarts)
        before = slot.views[len(slot.views) + 1 - len(views) :]  # empty, or all of them after a replay
        if views[:-1] != before:
            return self._restart(slot, "showed something else when played again", replay=False)
        return views[-1]

    def _restart(self, slot: _Slot, reason: str, replay: bool) -> View | None:
        self.restarted += 1
        logger.warning(
            "environment of task %s %s: %s",
            slot.task and slot.task.id,
            reason,
            "started again" if replay else "given up",
        )
        slot.kill()
        slot.start()
        if replay:
            slot.ask((slot.task, slot.actions))
            return None
        slot.task = None
        return slot.crashed()
