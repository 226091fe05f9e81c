"""The contract of a text environment, and the record of an episode played in it.

A task is all that determines an episode's world: the same task answers the same actions with the same observations in
any process. Pools rely on it to put a crashed environment back where it was, recorded runs to be repeated.

Imports nothing heavy: every worker process of a pool imports this module.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from recsys.errors import InputError


@dataclass(frozen=True)
class Task:
    """One episode to play. `id` names it in records; the world follows from family, difficulty and seed (of a
    verbalization: from the example that `id` names). An episode is cut off after `max_steps` actions.
    """

    id: str
    family: str
    seed: int
    difficulty: int = 1
    max_steps: int = 20

    def __post_init__(self) -> None:
        if not self.id or self.max_steps < 1 or self.difficulty < 1 or self.seed < 0:
            raise InputError(
                f"task {self.id!r} with seed {self.seed}, difficulty {self.difficulty}, max_steps {self.max_steps}",
                "a task has a name, a seed from 0, a difficulty and a number of steps from 1",
                "correct the task",
            )


class Environment(Protocol):
    """A world in which a text action is answered by a text observation. Closed by whoever made it."""

    def reset(self, task: Task) -> str:
        """Begin the task; the first observation, which states the goal."""

    def step(self, action: str) -> tuple[str, bool]:
        """The observation that answers an action, and whether the episode is over. An action that is not admissible
        is answered and changes nothing."""

    def goal(self) -> str:
        """What is to be done, in words: the key under which experience of this task is found."""

    def admissible(self) -> list[str] | None:
        """The actions that would do something now, sorted, a bounded choice of them where they are too many; None where
        they cannot be listed."""

    def reward(self) -> float:
        """What the episode has earned so far, at most 1; reaching 1 is success."""

    def close(self) -> None:
        """Release what the environment holds."""


MakeEnvironment = Callable[[], Environment]
"""Makes an environment. Where workers are processes it must be picklable: a module's function, a frozen dataclass."""


@dataclass(frozen=True)
class View:
    """What an environment shows after a reset or a step. `crashed`: it was lost and could not be brought back."""

    observation: str
    admissible: tuple[str, ...] | None
    reward: float
    done: bool
    goal: str
    crashed: bool = False


def play(environment: Environment, task: Task, actions: Sequence[str]) -> list[View]:
    """Begin `task` and carry out `actions`: the view after the reset and after each action, len(actions) + 1."""
    return [_view(environment, environment.reset(task), False), *(step(environment, action) for action in actions)]


def step(environment: Environment, action: str) -> View:
    """Carry out one action."""
    return _view(environment, *environment.step(action))


def _view(environment: Environment, observation: str, done: bool) -> View:
    admissible = environment.admissible()
    return View(
        observation,
        None if admissible is None else tuple(admissible),
        environment.reward(),
        done,
        environment.goal(),
    )


@dataclass(frozen=True)
class Turn:
    """One action: what was seen before it, what it earned (penalty included), the experience shown with it."""

    observation: str
    admissible: tuple[str, ...] | None
    action: str
    reward: float
    memory: str = ""

    @property
    def valid(self) -> bool:
        """Whether the action was one of the admissible ones; True where these are unknown."""
        return self.admissible is None or self.action in self.admissible


@dataclass(frozen=True)
class Trajectory:
    """One episode. `outcome` is the environment's own reward at the end, without penalties; `truncated`: cut off by the
    limit of steps; `crashed`: ended early because its environment could not be brought back.
    """

    task: Task
    attempt: int
    goal: str
    turns: tuple[Turn, ...]
    last_observation: str
    outcome: float
    truncated: bool
    crashed: bool = False

    @property
    def source(self) -> str:
        """The name of this episode, as the experience library excludes it."""
        return f"{self.task.id}#{self.attempt}"

    @property
    def success(self) -> bool:
        return self.outcome >= 1.0

    @property
    def rewards(self) -> tuple[float, ...]:
        """(T,) rewards of the actions, as `advantages` takes them."""
        return tuple(turn.reward for turn in self.turns)

    @property
    def reward(self) -> float:
        """The sum of the rewards: the outcome less the penalties."""
        return sum(self.rewards)

    @property
    def invalid_actions(self) -> int:
        return sum(not turn.valid for turn in self.turns)
