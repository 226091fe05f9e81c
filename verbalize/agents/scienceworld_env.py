"""ScienceWorld (Wang et al. 2022, version 1.2.3) as an `Environment`: the real simulator, a Java process for each.

A task's family is one of the simulator's 30, its seed the variation, its difficulty 1 with the simulator's "easy"
simplifications (teleporting, open doors and containers, flowers that water themselves, no electricity where the task
needs none) or 2 without. The reward is the score; the simulator's failure (a negative score) earns 0 and ends the
episode.

Thousands of actions can be valid at once, so `admissible` lists at most `max_admissible`: all with fewer than two
objects come first, the rest is shared evenly by the verbs. Other wordings and combinations that the simulator
understands are carried out too, its own solutions need them; only `reset task` is not. What it does not understand
changes nothing; what it finds ambiguous is withdrawn, which lets its clock tick once.

A simulator that does not answer in time is killed and SimulatorLostError raised, which a pool meets by replaying the
episode; it ends with its environment.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from recsys.errors import InputError
from recsys.seeding import stable_hash
from verbalize.agents.environment import Task
from verbalize.agents.scienceworld_simulator import USUAL, Simulator, SimulatorConfig, load
from verbalize.agents.scienceworld_tasks import check_task

NOTHING = "Nothing happens."
_AMBIGUOUS = "Ambiguous request"
_SPOILERS = ("reset task",)


@dataclass(frozen=True)
class ScienceWorld:
    """Makes environments, to be called in the process that plays them."""

    config: SimulatorConfig = USUAL

    def __call__(self) -> "ScienceWorldEnvironment":
        return ScienceWorldEnvironment(self.config)


class ScienceWorldEnvironment:
    """One simulator, started with the first task and kept for the following ones."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._config = config
        self._simulator: Simulator | None = None
        self._task: Task | None = None
        self._score = 0.0
        self._over = False

    @property
    def pid(self) -> int | None:
        """The Java process, if one was started."""
        return self._simulator.process.pid if self._simulator else None

    def reset(self, task: Task) -> str:
        check_task(task)
        simulator = self._running()
        self._task = None
        with simulator.within(self._config.start_timeout):
            load(simulator.server, task)
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

    def _running(self) -> "Simulator":
        if self._simulator is not None and not self._simulator.lives():
            self.close()
        if self._simulator is None:
            self._simulator = Simulator(self._config)
        return self._simulator

    def _playing(self) -> "Simulator":
        if self._simulator is None or self._task is None:
            raise InputError("environment without a task", "has nothing to show", "call reset(task) first")
        return self._simulator


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
