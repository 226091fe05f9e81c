"""Settings of SLEA-RL, of the arms it is compared with and of every study that trains them. Read before torch is."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from recsys.errors import InputError
from recsys.models.settings import LoraSettings
from verbalize.experience.settings import ExperienceConfig

START, RANDOM = "start", "random"
"""Arms of every study: the policy before any training, and chance."""


@dataclass(frozen=True)
class ArmConfig:
    """What distinguishes the methods; the defaults are GRPO.

    | arm            | credit  | retrieval |
    |----------------|---------|-----------|
    | GRPO           | episode | no        |
    | GiGPO          | anchor  | no        |
    | retrieval only | episode | yes       |
    | SLEA-RL        | cluster | yes       |
    """

    credit: Literal["episode", "anchor", "cluster"] = "episode"
    """`episode`: the return alone. `anchor` adds step advantages among equal observations of one game (GiGPO),
    `cluster` among the steps of an observation cluster, whatever their game."""
    retrieval: bool = False
    """Lessons of the observation's cluster in the system message, and a library that evolves with every batch."""
    extraction: Literal["rules", "model", "both"] = "rules"
    """Who draws lessons from episodes: named rules, the base model itself, or both in turn."""

    @property
    def needs_library(self) -> bool:
        """Clusters live in the library, also where no lesson is shown."""
        return self.retrieval or self.credit == "cluster"


@dataclass(frozen=True)
class AgentTraining:
    """Reinforcement learning of one agent. One batch = `games_per_batch` games, `group_size` episodes each, then one
    optimizer step, so the policy that acts is the policy that learns and importance ratios are 1.
    """

    environment_steps: int = 2000
    """Training ends with the first batch that reaches so many actions: arms are compared at equal experience."""
    games_per_batch: int = 4
    group_size: int = 4
    learning_rate: float = 1e-4
    beta: float = 0.01
    """Weight of the KL to the starting policy. At 0, turns without an advantage cost no forward pass in the loss."""
    weight: float = 1.0
    """w of A_episode + w · A_step."""
    gamma: float = 0.95
    scale: bool = True
    """Divide both advantages by their groups' spread, as the paper does; False only subtracts means."""
    max_grad_norm: float = 1.0
    acting: Literal["score", "generate"] = "score"
    """`score`: softmax over the admissible actions' log-probabilities, exact. `generate`: free text, whose actions may
    be inadmissible."""
    temperature: float = 1.0
    per_token: bool = False
    """Scoring: divide an action's log-probability by its tokens, so that long actions are at no disadvantage."""
    max_new_tokens: int = 16
    invalid_penalty: float = 0.1
    prompt_budget: int = 1024
    """Tokens of a prompt, experience included; longer ones lose their oldest turns after the first observation."""
    memory_budget: int = 200
    list_actions: bool = False
    token_budget: int = 2048
    """Tokens of one forward and backward pass: memory against speed, results are the same."""
    evaluate_every: int = 5
    """Batches between the points of the learning curve on development games."""
    save_every: int = 5

    def __post_init__(self) -> None:
        positive = (
            "environment_steps",
            "games_per_batch",
            "learning_rate",
            "temperature",
            "max_new_tokens",
            "prompt_budget",
            "token_budget",
            "evaluate_every",
            "save_every",
        )
        for name in positive:
            if getattr(self, name) <= 0:
                raise InputError(f"{name} = {getattr(self, name)}", "must be above 0", f"set {name} above 0")
        for name in ("beta", "weight", "invalid_penalty", "memory_budget"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} = {getattr(self, name)}", "must not be negative", f"set {name} from 0")
        if self.group_size < 2:
            raise InputError(
                f"group_size = {self.group_size}", "advantages compare episodes of one game", "set it from 2"
            )
        if not 0 < self.gamma <= 1:
            raise InputError(f"gamma = {self.gamma}", "must lie in (0, 1]", "try 0.95")


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What a study of these methods says whatever its tasks are. `arms` by name, the most important first."""

    RESERVED: ClassVar[frozenset[str]] = frozenset({START, RANDOM})
    """Names of arms that the study adds itself."""

    name: str
    arms: dict[str, ArmConfig]
    model: str = "smollm2-135m"
    dtype: str = "float32"
    adapter: str | None = None
    """Folder of the adapter that every arm starts from; none starts from the model."""
    seeds: tuple[int, ...] = (0, 1, 2)
    environments: int = 8
    """Episodes played at once."""
    training: AgentTraining = field(default_factory=AgentTraining)
    lora: LoraSettings = field(default_factory=LoraSettings)
    """Of a fresh adapter; one that is named keeps its own."""
    experience: ExperienceConfig = field(default_factory=ExperienceConfig)

    def __post_init__(self) -> None:
        if not self.arms or not self.seeds or self.RESERVED & set(self.arms):
            raise InputError(
                f"arms {list(self.arms)} and seeds {list(self.seeds)}",
                f"a study needs arms, none of them called {' or '.join(sorted(self.RESERVED))}, and a seed",
                "name them",
            )
        if self.environments < 1:
            raise InputError(
                f"environments = {self.environments}", "episodes need one to be played in", "set it from 1"
            )
