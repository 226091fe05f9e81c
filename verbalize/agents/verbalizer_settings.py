"""Settings of the study of the multi-step verbalizer, importable without torch."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from recsys.errors import InputError
from verbalize.agents.slea_settings import StudySettings

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


@dataclass(frozen=True, kw_only=True)
class Config(StudySettings):
    """A study file. Environments are of this process: they share one recommender."""

    RESERVED: ClassVar[frozenset[str]] = StudySettings.RESERVED | {KEPT}

    recipe: str
    """A recipe's file: its log, examples, slates and recommender."""
    overrides: tuple[str, ...] = ()
    """`key=value` overrides of the recipe."""
    examples: ExampleCounts = field(default_factory=ExampleCounts)
    reward: Literal["reciprocal_rank", "paper_like"] = "reciprocal_rank"
    max_steps: int = 8
    """Actions after which an episode's text is judged as it stands."""
    max_sessions: int = 8
    session_gap_minutes: float = 30.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.examples.train % self.training.games_per_batch:
            raise InputError(
                f"{self.examples.train} training examples",
                f"must be a multiple of training.games_per_batch = {self.training.games_per_batch}",
                "change one of them",
            )
