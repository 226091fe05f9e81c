"""What the tests of SLEA-RL share: ladders to climb, a tiny policy that can chat, a library with made-up vectors."""

from dataclasses import replace
from pathlib import Path

from agents_worlds import Ladder, ladder
from experience_helpers import named_vectors
from optimize_helpers import CARD

from recsys.models.loading import LanguageModel, load_language_model
from recsys.models.settings import LoraSettings
from verbalize.agents.environment import Task, Trajectory, Turn
from verbalize.agents.pool import LocalEnvironments
from verbalize.agents.slea_settings import AgentTraining, ArmConfig
from verbalize.agents.slea_training import AgentResult, train_agent
from verbalize.experience.settings import ClusterConfig, ExperienceConfig
from verbalize.optimize.curves import OnStep

LORA = LoraSettings(rank=8, alpha=16, mlp=True)
SLEA = ArmConfig(credit="cluster", retrieval=True)
TRAINING = AgentTraining(
    environment_steps=160,
    games_per_batch=2,
    group_size=4,
    learning_rate=3e-3,
    beta=0.02,
    temperature=2.0,
    per_token=True,
    prompt_budget=900,
    memory_budget=300,
    token_budget=4096,
    evaluate_every=2,
    save_every=2,
)
EXPERIENCE = ExperienceConfig(clusters=ClusterConfig(warmup=1, minimum=1))


def ladders(count: int, first: int = 0, difficulty: int = 3, max_steps: int = 4) -> list[Task]:
    """Games of different names that look alike, so that what is learned in one is found in another; a single step down
    loses them."""
    return [replace(ladder(number, difficulty, max_steps), seed=0) for number in range(first, first + count)]


def tiny_agent(folder: Path) -> LanguageModel:
    """A fresh copy of the tiny model (`folder` holds one with a chat template), without an adapter."""
    return load_language_model(str(folder))


def train(
    model: Path,
    folder: Path,
    arm: ArmConfig = SLEA,
    training: AgentTraining = TRAINING,
    on_step: OnStep | None = None,
    **options: object,
) -> AgentResult:
    return train_agent(
        tiny_agent(model),
        LocalEnvironments(Ladder(), 4),
        ladders(4),
        ladders(2, first=10),
        arm,
        training,
        folder,
        card=CARD,
        lora=LORA,
        experience=EXPERIENCE,
        embedder=named_vectors,
        on_step=on_step,
        **options,  # type: ignore[arg-type]
    )


def episode(*steps: tuple[str, str, float], last: str = "the end", task: Task | None = None) -> Trajectory:
    """Observation, action and reward of each turn; the outcome is what they sum to."""
    turns = tuple(Turn(observation, None, action, reward) for observation, action, reward in steps)
    outcome = sum(turn.reward for turn in turns)
    return Trajectory(task or ladder(0), 0, "climb", turns, last, outcome, truncated=outcome < 1)
