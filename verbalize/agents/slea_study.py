"""The study of SLEA-RL (`kind: slea`): the methods at equal environment steps, then the same games for all of them.

Every arm starts from the same policy, plays the same training games with the same seeds and ends with the first batch
that reaches the budget of environment steps, so none exceeds it by more than one batch. Learning curves are measured on
development games; the test games are played once, by the policy and the library that training ended with, always the
best action. Two more arms say what the numbers mean: `start`, the policy before any of it, and `random`.

Settings are chosen on development games. Claims are made from at least 100 test games and 3 seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.errors import InputError
from recsys.models.settings import LoraSettings
from verbalize.agents.environment import Task
from verbalize.agents.slea_settings import AgentTraining, ArmConfig
from verbalize.agents.study import StudyClaim, StudyResult
from verbalize.agents.textworld_games import game_task
from verbalize.experience.settings import ExperienceConfig
from verbalize.pipeline import Progress

if TYPE_CHECKING:
    from verbalize.agents.evaluation import Cell
    from verbalize.agents.pool import Environments
    from verbalize.experience.embedding import Embedder

START, RANDOM = "start", "random"
LEAST_GAMES, LEAST_SEEDS = 100, 3
PAIRS = (
    ("slea", "grpo"),
    ("slea", "gigpo"),
    ("slea", "retrieval"),
    ("slea_model", "grpo"),
    ("slea_model", "slea"),
    ("gigpo", "grpo"),
    ("retrieval", "grpo"),
)
"""Differences that are reported, where the study has both arms."""


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
class Config:
    """A study file. `arms` by name; the claims compare those named slea, grpo and gigpo."""

    name: str
    arms: dict[str, ArmConfig]
    train: tuple[Games, ...]
    development: tuple[Games, ...]
    test: tuple[Games, ...]
    model: str = "smollm2-135m"
    dtype: str = "float32"
    adapter: str | None = None
    """Folder of the adapter that every arm starts from (supervised fine-tuning, say); none starts from the model."""
    seeds: tuple[int, ...] = (0, 1, 2)
    environments: int = 8
    """Games played at once, each by a process."""
    training: AgentTraining = field(default_factory=AgentTraining)
    lora: LoraSettings = field(default_factory=LoraSettings)
    """Of a fresh adapter; one that is named keeps its own."""
    experience: ExperienceConfig = field(default_factory=ExperienceConfig)

    def __post_init__(self) -> None:
        if not self.arms or not self.seeds or {START, RANDOM} & set(self.arms):
            raise InputError(
                f"arms {list(self.arms)} and seeds {list(self.seeds)}",
                f"a study needs arms, none of them called {START} or {RANDOM}, and a seed",
                "name them",
            )


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
    if shared := {task.id for task in test} & {task.id for task in [*train, *development]}:
        raise InputError(
            f"test game {min(shared)}", "is also one of training or development", "give the test games other seeds"
        )
    return TaskSets(train, development, test)


def run(config: Config, folder: Path, progress: Progress, command: str) -> StudyResult:
    """Make the games, train and judge every arm; see `verbalize.agents.study`."""
    import os

    from verbalize.agents.pool import EnvironmentPool, PoolConfig
    from verbalize.agents.textworld_env import TextWorld
    from verbalize.agents.textworld_games import prepare
    from verbalize.experience.embedding import CachedEmbedder

    sets, games = task_sets(config), folder / "games"
    everything = [*sets.train, *sets.development, *sets.test]
    progress.stage("games", "makes", f"{len(everything)} games")
    prepare(everything, games, processes=os.cpu_count() or 1)
    embedder = CachedEmbedder(config.experience.embedding)
    with EnvironmentPool(TextWorld(games), PoolConfig(size=config.environments, preload=("textworld",))) as pool:
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
        for arm in config.arms:
            trained = arms.train(arm, seed)
            cells[arm, seed] = arms.final_cell(arm, seed, trained)
            runs[f"{arm}/{seed}"] = facts_of(trained)
    return result_of(config, cells, runs)


def result_of(
    config: Config, cells: "Mapping[tuple[str, int], Cell]", runs: Mapping[str, Mapping[str, Any]]
) -> StudyResult:
    """Rates, paired differences and, from enough games and seeds, claims; `cells` by (arm, seed)."""
    from verbalize.agents.evaluation import by_family, difference, rate_facts, success_rates, values_of

    values, games = values_of(cells), len(next(iter(cells.values())).games)
    rates = success_rates(values)
    pairs = {f"{a} - {b}": difference(values, a, b) for a, b in PAIRS if a in config.arms and b in config.arms}
    facts = {
        "success": rate_facts(rates),
        "differences": rate_facts(pairs),
        "by_seed": {f"{arm}/{seed}": round(cell.success, 6) for (arm, seed), cell in cells.items()},
        "by_family": {name: by_family([cell for (arm, _), cell in cells.items() if arm == name]) for name in rates},
        "runs": dict(runs),
    }
    lines = [f"{config.name}: success in {games} test games, {len(config.seeds)} seeds"]
    lines += [f"  {arm:<12} {rate.value:6.3f}  [{rate.low:.3f}, {rate.high:.3f}]" for arm, rate in rates.items()]
    lines += ["paired differences, intervals over games"]
    lines += [f"  {name:<18} {d.value:+6.3f}  [{d.low:+.3f}, {d.high:+.3f}]" for name, d in pairs.items()]
    lines += ["training: environment steps, lessons by rules and by model, share of steps shown any"]
    lines += [
        f"  {name:<14} {run['environment_steps']:6d}  {run['lessons_by_rules']:4d} {run['lessons_by_model']:4d}"
        f"  {run['shown']:.2f}"
        for name, run in runs.items()
    ]
    claims = claims_of(config, games)
    return StudyResult(facts, "\n".join(lines), values if claims else None, claims)


def claims_of(config: Config, games: int) -> tuple[StudyClaim, ...]:
    """The claims that the study has the evidence for."""
    if games < LEAST_GAMES or len(config.seeds) < LEAST_SEEDS or "slea" not in config.arms:
        return ()
    where = (
        f"at {config.training.environment_steps} environment steps, {games} TextWorld games, "
        f"{len(config.seeds)} seeds, {config.model}"
    )
    asked = (("grpo", "GRPO", 0.0), ("gigpo", "GiGPO", -0.05))  # above the one, not below the other
    return tuple(
        StudyClaim(f"agents.slea_vs_{arm}", f"Success of SLEA-RL minus that of {method} {where}", "slea", arm, target)
        for arm, method, target in asked
        if arm in config.arms
    )
