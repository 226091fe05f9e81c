"""Expert trajectories: the games' own solutions, played, as entries of an experience library and as training chats.

Games come in disjoint parts by their seeds, so no game that trains, chooses or fills an index is ever tested. One
record serves both uses: an entry of the library is the chat that fine-tuning learns from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from recsys.errors import InputError
from verbalize.agents.chats import ChatFormat, as_experience
from verbalize.agents.environment import MakeEnvironment, Task, Trajectory
from verbalize.agents.policies import ExpertPolicy, RandomPolicy
from verbalize.agents.pool import Environments
from verbalize.agents.rollouts import roll_out
from verbalize.experience.entries import Experience
from verbalize.experience.memory import with_memory

PARTS = ("train", "bank", "selection", "development", "test")
"""What games are for: `train` teaches and fills the index of seen families, `bank` fills that of unseen ones,
`selection` chooses checkpoints, `development` sets difficulty, `test` is measured."""
_SEEDS_PER_PART = 100_000


@dataclass(frozen=True)
class GameSet:
    """Games of one family at one difficulty, cut off after `max_steps` actions."""

    family: str
    difficulty: int = 1
    max_steps: int = 15

    @property
    def label(self) -> str:
        return f"{self.family}-{self.difficulty}"


class Bench(Protocol):
    """A kind of game with solutions."""

    @property
    def make(self) -> MakeEnvironment:
        """Makes environments that play the tasks."""

    def task(self, games: GameSet, seed: int) -> Task:
        """One game. Raises InputError for a family or difficulty there is none of."""

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Make the games of the tasks that are missing."""

    def walkthrough(self, task: Task) -> Sequence[str]:
        """The actions that win the game."""


@dataclass(frozen=True)
class TextWorldBench:
    """TextWorld games in `folder`, made by `processes` at once."""

    folder: Path
    processes: int = 1

    @property
    def make(self) -> MakeEnvironment:
        from verbalize.agents.textworld_env import TextWorld

        return TextWorld(self.folder)

    def task(self, games: GameSet, seed: int) -> Task:
        from verbalize.agents.textworld_games import game_task

        return game_task(games.family, games.difficulty, seed, games.max_steps)

    def prepare(self, tasks: Sequence[Task]) -> None:
        from verbalize.agents.textworld_games import prepare

        prepare(tasks, self.folder, self.processes)

    def walkthrough(self, task: Task) -> Sequence[str]:
        from verbalize.agents.textworld_games import walkthrough

        return walkthrough(task, self.folder)


def tasks_of(bench: Bench, sets: Sequence[GameSet], part: str, games: int) -> list[Task]:
    """The first `games` games of each set in one of PARTS: the same games whatever else is asked for.

    Raises InputError where a game cannot be won within its steps.
    """
    if games > _SEEDS_PER_PART:
        raise InputError(f"games.{part} = {games}", f"must be at most {_SEEDS_PER_PART}", "lower it")
    start = PARTS.index(part) * _SEEDS_PER_PART
    tasks = [bench.task(kind, start + number) for kind in sets for number in range(games)]
    bench.prepare(tasks)
    for task in tasks:
        if (needed := len(bench.walkthrough(task))) > task.max_steps:
            raise InputError(
                f"game {task.id} with max_steps = {task.max_steps}",
                f"takes {needed} actions to win",
                "raise max_steps of its family, or lower the difficulty",
            )
    return tasks


def part_of(seed: int) -> tuple[str, int]:
    """The part that a seed of `tasks_of` belongs to, and its number there.

    >>> part_of(400_002)
    ('test', 2)
    """
    part, number = divmod(seed, _SEEDS_PER_PART)
    return PARTS[part], number


def expert_trajectories(bench: Bench, environments: Environments, tasks: Sequence[Task]) -> list[Trajectory]:
    """The solutions that win when played, in the order of the tasks; one that does not win is left out."""
    played = roll_out(environments, ExpertPolicy(bench.walkthrough), tasks)
    return [episode for episode in played if episode.success]


def failed_trajectories(environments: Environments, tasks: Sequence[Task], seed: int = 0) -> list[Trajectory]:
    """Random play of the tasks where it did not win: what an index shows as failures."""
    # The attempt is part of a source's name, so a failure and a solution of one game are two sources.
    return [
        replace(episode, attempt=1)
        for episode in roll_out(environments, RandomPolicy(seed), tasks)
        if not episode.success and not episode.crashed and episode.turns
    ]


def entries_of(episodes: Sequence[Trajectory]) -> list[Experience]:
    """Whole trajectories as entries of a library, found by their goals."""
    return [as_experience(episode) for episode in episodes]


def chat_of(entry: Experience, form: ChatFormat, memory: str = "") -> list[dict[str, str]]:
    """The training chat of a trajectory's entry: equal to `chats.training_chat` of the episode it came from."""
    turns = entry.messages
    last = max(place for place, message in enumerate(turns) if message["role"] == "assistant")
    opening = [{"role": "system", "content": form.system}] if form.system else []
    return with_memory([*opening, *turns[: last + 1]], memory)


def game_of(source: str) -> str:
    """The task that a trajectory's source belongs to.

    >>> game_of("quest-2-7#1")
    'quest-2-7'
    """
    return source.rpartition("#")[0]
