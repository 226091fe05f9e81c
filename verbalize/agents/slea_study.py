"""The study of SLEA-RL (`kind: slea`): the methods at equal environment steps, then the same games for all of them.

Every arm starts from the same policy, plays the same training games with the same seeds and ends with the first batch
that reaches the budget of environment steps, so none exceeds it by more than one batch. Learning curves are measured on
development games; the test games are played once, by the policy and the library that training ended with, always the
best action. Two more arms say what the numbers mean: `start`, the policy before any of it, and `random`.

Settings are chosen on development games. Arms are carried out in the order of the file, seed by seed, and each run and
cell is kept when it is done; `only` leaves some of them to a later run of the same study.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.errors import InputError
from verbalize.agents.environment import Task
from verbalize.agents.slea_report import claims_of, result_of
from verbalize.agents.slea_settings import RANDOM, START, StudySettings
from verbalize.agents.study import StudyResult
from verbalize.agents.textworld_games import game_task
from verbalize.pipeline import Progress

if TYPE_CHECKING:
    from verbalize.agents.pool import Environments
    from verbalize.experience.embedding import Embedder

__all__ = ["Config", "claims_of", "compare_arms", "run", "task_sets"]


@dataclass(frozen=True)
class Games:
    """`count` games of a family and difficulty, with seeds from `first` on."""

    family: str
    difficulty: int
    count: int
    first: int = 0
    max_steps: int = 10

    def tasks(self) -> list[Task]:
        return [
            game_task(self.family, self.difficulty, seed, self.max_steps)
            for seed in range(self.first, self.first + self.count)
        ]


@dataclass(frozen=True)
class WarmStart:
    """Supervised tuning of the starting policy, an adapter with the study's `lora`, on the solutions of games of its
    own; see `slea_start`."""

    games: tuple[Games, ...]
    epochs: int = 1
    batch_size: int = 4
    """Solutions per optimizer step."""
    learning_rate: float = 5e-4
    lessons: bool = False
    """In every epoch also one turn of each solution with lessons from the other games in the system message."""


@dataclass(frozen=True, kw_only=True)
class Config(StudySettings):
    """A study file; the claims compare the arms named slea, grpo and gigpo. `environments`: each by a process."""

    train: tuple[Games, ...]
    development: tuple[Games, ...]
    test: tuple[Games, ...]
    warm_start: WarmStart | None = None
    """Tune the start first; `adapter` must be null."""
    only: tuple[str, ...] = ()
    """The arms to carry out now; none named: all of them. The same study run again with more of them goes on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adapter and self.warm_start:
            raise InputError("adapter and warm_start", "both say where the arms start", "name one of them")
        if unknown := [name for name in self.only if name not in self.arms]:
            raise InputError(f"only {unknown}", f"names arms of the study: {', '.join(self.arms)}", "correct the names")

    @property
    def chosen(self) -> list[str]:
        """The arms that are carried out, in the order of the file."""
        return [name for name in self.arms if name in self.only or not self.only]


@dataclass(frozen=True)
class TaskSets:
    """The three sets of games."""

    train: list[Task]
    development: list[Task]
    test: list[Task]


def task_sets(config: Config) -> TaskSets:
    """Raises InputError where test games were played before."""
    train, development, test = (
        [task for games in part for task in games.tasks()] for part in (config.train, config.development, config.test)
    )
    if shared := {task.id for task in test} & {task.id for task in [*train, *development, *start_tasks(config)]}:
        raise InputError(
            f"test game {min(shared)}", "is also one of training or development", "give the test games other seeds"
        )
    return TaskSets(train, development, test)


def start_tasks(config: Config) -> list[Task]:
    """The games whose solutions the warm start learns from."""
    return [task for games in (config.warm_start.games if config.warm_start else ()) for task in games.tasks()]


def run(config: Config, folder: Path, progress: Progress, command: str) -> StudyResult:
    """Make the games and the start, train and judge every arm; see `verbalize.agents.study`. Games lie beside the
    studies, since several of them play the same ones."""
    import os

    from recsys.models.loading import resolve_model
    from verbalize.agents.expert import TextWorldBench
    from verbalize.agents.pool import EnvironmentPool, PoolConfig
    from verbalize.agents.slea_start import warm_adapter
    from verbalize.experience.embedding import CachedEmbedder

    resolve_model(config.model)  # first: a model that is not there is missed before hours of play
    sets, bench = task_sets(config), TextWorldBench(folder.parent / "games", os.cpu_count() or 1)
    everything = [*start_tasks(config), *sets.train, *sets.development, *sets.test]
    progress.stage("games", "makes", f"those missing of {len(everything)} games")
    bench.prepare(everything)
    embedder = CachedEmbedder(config.experience.embedding)
    with EnvironmentPool(bench.make, PoolConfig(size=config.environments, preload=("textworld",))) as pool:
        if config.warm_start:
            start = warm_adapter(config, config.warm_start, bench, pool, embedder, folder, progress, command)
            config = replace(config, adapter=str(start), warm_start=None)
        return compare_arms(config, sets, pool, embedder, folder, progress, command)


def compare_arms(
    config: Config,
    sets: TaskSets,
    environments: "Environments",
    embedder: "Embedder | None",
    folder: Path,
    progress: Progress,
    command: str,
) -> StudyResult:
    """The study in environments that are ready."""
    from verbalize.agents.slea_arms import Arms, facts_of

    arms = Arms(config, sets, environments, embedder, folder, progress, command)
    cells = {(RANDOM, config.seeds[0]): arms.random_cell(), (START, config.seeds[0]): arms.start_cell()}
    runs: dict[str, dict[str, Any]] = {}
    for seed in config.seeds:
        for arm in config.chosen:
            trained = arms.train(arm, seed)
            cells[arm, seed] = arms.final_cell(arm, seed, trained)
            runs[f"{arm}/{seed}"] = facts_of(trained)
    return result_of(config, cells, runs)
