"""Settings of the study of the multi-step verbalizer, importable without torch."""

from dataclasses import dataclass, field
from typing import Literal

from recsys.errors import InputError
from recsys.models.settings import LoraSettings
from verbalize.agents.slea_settings import AgentTraining, ArmConfig
from verbalize.agents.slea_study import RANDOM, START
from verbalize.experience.settings import ExperienceConfig

KEPT = "keep_all"
"""An arm that every study plays besides START and RANDOM: `stop` at once, which keeps every event with its title."""


@dataclass(frozen=True)
class ExampleCounts:
    """How many of the recipe's examples play each part; see `verbalizer_world`."""

    train: int = 32
    development: int = 12
    evaluation: int = 40

    def __post_init__(self) -> None:
        if min(self.train, self.development, self.evaluation) < 1:
            raise InputError(f"{self}", "each part needs an example", "set the counts from 1")


@dataclass(frozen=True)
class Config:
    """A study file. `arms` by name, as in the study of SLEA-RL in TextWorld."""

    name: str
    recipe: str
    """A recipe's file: its log, examples, slates and recommender."""
    arms: dict[str, ArmConfig]
    overrides: tuple[str, ...] = ()
    """`key=value` overrides of the recipe."""
    examples: ExampleCounts = field(default_factory=ExampleCounts)
    reward: Literal["reciprocal_rank", "paper_like"] = "reciprocal_rank"
    max_steps: int = 8
    """Actions after which an episode's text is judged as it stands."""
    max_sessions: int = 8
    session_gap_minutes: float = 30.0
    model: str = "smollm2-135m"
    dtype: str = "float32"
    adapter: str | None = None
    """Folder of the adapter that every arm starts from; none starts from the model."""
    seeds: tuple[int, ...] = (0, 1, 2)
    environments: int = 8
    """Episodes played at once, in this process: they share one recommender."""
    training: AgentTraining = field(default_factory=AgentTraining)
    lora: LoraSettings = field(default_factory=LoraSettings)
    experience: ExperienceConfig = field(default_factory=ExperienceConfig)

    def __post_init__(self) -> None:
        if not self.arms or not self.seeds or {START, RANDOM, KEPT} & set(self.arms):
            raise InputError(
                f"arms {list(self.arms)} and seeds {list(self.seeds)}",
                f"a study needs arms, none of them called {START}, {RANDOM} or {KEPT}, and a seed",
                "name them",
            )
        if self.environments < 1 or self.examples.train % self.training.games_per_batch:
            raise InputError(
                f"environments {self.environments}, {self.examples.train} training examples",
                f"needs an environment, and a multiple of training.games_per_batch = {self.training.games_per_batch}",
                "change the numbers",
            )
