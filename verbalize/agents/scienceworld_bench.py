"""ScienceWorld as a bench of games with solutions, for studies that compare agents.

The simulator counts its variations of a family to train, dev and test itself, and no part of a study crosses that:

| part of a study | variations                                                   |
|-----------------|--------------------------------------------------------------|
| train, bank     | the simulator's train, those at even and at odd places       |
| selection       | its dev, those at even places                                |
| development     | its dev, those at odd places                                 |
| test            | its test, from the first on                                  |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import InputError
from verbalize.agents.environment import MakeEnvironment, Task
from verbalize.agents.expert import GameSet, part_of
from verbalize.agents.scienceworld_env import ScienceWorld
from verbalize.agents.scienceworld_simulator import USUAL, SimulatorConfig
from verbalize.agents.scienceworld_tasks import science_task, variations, walkthrough, walkthroughs

_PLACES = {
    "train": ("train", slice(0, None, 2)),
    "bank": ("train", slice(1, None, 2)),
    "selection": ("dev", slice(0, None, 2)),
    "development": ("dev", slice(1, None, 2)),
    "test": ("test", slice(None)),
}
"""Part -> the simulator's split, and which of its variations."""


@dataclass(frozen=True)
class ScienceWorldBench:
    """What the simulator is asked once is kept in `folder`."""

    folder: Path
    config: SimulatorConfig = USUAL

    @property
    def make(self) -> MakeEnvironment:
        return ScienceWorld(self.config)

    def task(self, games: GameSet, seed: int) -> Task:
        """Game number `seed` as `expert.tasks_of` counts. Raises InputError where the family has no such variation."""
        part, number = part_of(seed)
        split, places = _PLACES[part]
        there = variations(games.family, split, self.folder, self.config)[places]
        if number >= len(there):
            raise InputError(
                f"games.{part} = {number + 1} or more",
                f"{games.family} has {len(there)} variations for it",
                f"lower games.{part}, or choose another family",
            )
        return science_task(games.family, there[number], games.difficulty, games.max_steps)

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Ask for the solutions that are missing; worlds are made as they are played."""
        walkthroughs(tasks, self.folder, self.config)

    def walkthrough(self, task: Task) -> Sequence[str]:
        return walkthrough(task, self.folder, self.config)
