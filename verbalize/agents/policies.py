"""Policies without a model: chance, the floor of every comparison, and the game's own solution, its ceiling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recsys.errors import InputError
from recsys.seeding import rng
from verbalize.agents.environment import Task
from verbalize.agents.rollouts import Situation


@dataclass(frozen=True)
class RandomPolicy:
    """A uniform draw among the admissible actions, by seed, task, attempt and turn."""

    seed: int = 0

    def act(self, situations: Sequence[Situation]) -> list[str]:
        return [self._draw(situation, admissible_of(situation)) for situation in situations]

    def _draw(self, situation: Situation, admissible: Sequence[str]) -> str:
        draws = rng(self.seed, "random-policy", situation.task.id, situation.attempt, situation.turn)
        return admissible[int(draws.integers(len(admissible)))]


@dataclass(frozen=True)
class ExpertPolicy:
    """Follows `walkthrough(task)`, which is asked at every turn; past its end it repeats the last action."""

    walkthrough: Callable[[Task], Sequence[str]]

    def act(self, situations: Sequence[Situation]) -> list[str]:
        plans = [self.walkthrough(situation.task) for situation in situations]
        return [plan[min(situation.turn, len(plan) - 1)] for plan, situation in zip(plans, situations, strict=True)]


def admissible_of(situation: Situation) -> tuple[str, ...]:
    """The admissible actions. Raises InputError when the environment lists none."""
    if not situation.admissible:
        raise InputError(
            f"task {situation.task.id}",
            "its environment lists no admissible actions",
            "use a policy that writes its actions freely",
        )
    return situation.admissible
