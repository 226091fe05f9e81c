"""Settings of the ExpRAG study, and the cells that follow from them. Torch is not imported: settings are read first."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from recsys.errors import InputError
from verbalize.agents.expert import GameSet
from verbalize.agents.exprag import RetrievalConfig
from verbalize.agents.sft_settings import SftConfig

Agent = Literal["base", "lora", "exprag-lora"]
Group = Literal["seen", "unseen"]
Index = Literal["matched", "mismatched", "empty"]
Part = Literal["claims", "headline", "indexes", "ablations"]

GROUPS: tuple[Group, ...] = ("seen", "unseen")

ARMS: dict[str, tuple[Agent, tuple[Index, ...]]] = {
    "base": ("base", ("empty",)),
    "exprag": ("base", ("matched", "mismatched")),
    "lora": ("lora", ("empty",)),
    "lora+exprag": ("lora", ("matched", "mismatched")),
    "exprag-lora": ("exprag-lora", ("matched", "mismatched", "empty")),
}
"""Arm -> who plays, and with which indexes. With an empty index exprag is base, and lora+exprag is lora."""

PARTS: tuple[Part, ...] = ("claims", "headline", "indexes", "ablations")
"""In order of importance, in which cells are played: what the claims need (the first arms on unseen families), the same
arms on seen families, the other indexes, the variants of one arm. Within a part the unseen families come first."""

HEADLINE = {("base", "empty"), ("lora", "empty"), ("exprag", "matched"), ("exprag-lora", "matched")}
"""Arms and indexes of the first two parts."""


@dataclass(frozen=True)
class Families:
    """Games that fine-tuning learns from, and games of other families or skills that it never sees."""

    seen: tuple[GameSet, ...]
    unseen: tuple[GameSet, ...]

    def __post_init__(self) -> None:
        labels = [games.label for games in (*self.seen, *self.unseen)]
        if not self.seen or not self.unseen or len(set(labels)) != len(labels):
            raise InputError(
                f"families {labels}", "need a seen and an unseen set, and each set once", "correct families"
            )

    def of(self, group: Group) -> tuple[GameSet, ...]:
        return self.seen if group == "seen" else self.unseen


@dataclass(frozen=True)
class Games:
    """Numbers of games of each set; every purpose has games of its own."""

    train: int = 30
    bank: int = 30
    """Of each unseen set, in the index of unseen families; that of seen families holds the training games."""
    failures: int = 0
    """Of the games in each index, per set: also played at random, and shown as failures where they were lost."""
    selection: int = 5
    """Of each seen set: checkpoints are chosen by the share of them that is won."""
    development: int = 20
    test: int = 50

    def __post_init__(self) -> None:
        for name in ("train", "bank", "selection", "development", "test"):
            if getattr(self, name) < 1:
                raise InputError(f"games.{name} = {getattr(self, name)}", "must be at least 1", "raise it")
        if not 0 <= self.failures <= min(self.train, self.bank):
            raise InputError(
                f"games.failures = {self.failures}",
                "cannot exceed the games in an index (train, bank)",
                "lower it",
            )


@dataclass(frozen=True)
class Ablations:
    """Further cells of `arm` on unseen families with the matched index, compared with the same seeds of that arm."""

    arm: Literal["exprag", "lora+exprag", "exprag-lora"] = "exprag-lora"
    k: tuple[int, ...] = ()
    dynamic: bool = False
    """Retrieval at every step; the adapter was trained with static retrieval, as every step would else be a context of
    its own."""
    seeds: int | None = None
    """How many of the study's seeds, the first of them; None: all. Dynamic retrieval is the dearest cell there is."""

    def __post_init__(self) -> None:
        if self.seeds is not None and self.seeds < 1:
            raise InputError(f"ablations.seeds = {self.seeds}", "must be at least 1", "raise it, or leave it out")


@dataclass(frozen=True)
class PlayConfig:
    """How games are played: the likeliest action, every time."""

    environments: int = 8
    acting: Literal["score", "generate"] = "score"
    """`score`: the likeliest of the admissible actions; `generate`: written freely, where hundreds are admissible."""
    max_new_tokens: int = 24
    """Of a generated action."""
    per_token: bool = False
    """Scores: divide an action's log-probability by its tokens."""
    processes: int = 1
    """Games made at once."""

    @property
    def identity(self) -> tuple[object, ...]:
        """What decides how games end, besides who plays; scoring has the keys it had when there was nothing else."""
        return (self.per_token,) if self.acting == "score" else (self.acting, self.max_new_tokens)


@dataclass(frozen=True)
class Config:
    """{base, ExpRAG, LoRA, LoRA + ExpRAG at test, ExpRAG-LoRA} × {seen, unseen} × {matched, mismatched, empty}."""

    name: str
    families: Families
    bench: Literal["textworld", "scienceworld"] = "textworld"
    phase: Literal["development", "evaluation"] = "evaluation"
    """`development` measures LoRA on development games of both groups, so that difficulty can be set before test."""
    through: Part = "ablations"
    """The last part of the evaluation to play. The same study run again with a later one goes on from there."""
    model: str = "smollm2-135m"
    device: str = "cpu"
    """Where the model is tuned and plays: `cuda` on a machine that has it."""
    embedding: str = "minilm"
    licence: str = "Apache-2.0"
    seeds: tuple[int, ...] = (0, 1, 2)
    games: Games = field(default_factory=Games)
    sft: SftConfig = field(default_factory=SftConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    memory_dropout: float = 0.0
    """Share of training contexts without their memory block: the remedy for an empty index at test."""
    ablations: Ablations = field(default_factory=Ablations)
    play: PlayConfig = field(default_factory=PlayConfig)

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"seeds = {list(self.seeds)}", "name each training once, at least one", "try [0, 1, 2]")
        if not 0 <= self.memory_dropout < 1:
            raise InputError(f"memory_dropout = {self.memory_dropout}", "is a share in [0, 1)", "try 0.2")
        if self.retrieval.query != "static":
            raise InputError(
                "retrieval.query = dynamic",
                "training contexts hold one block per trajectory, so they need static retrieval",
                "set ablations.dynamic: true",
            )
        for name in ("environments", "processes", "max_new_tokens"):
            if (value := getattr(self.play, name)) < 1:
                raise InputError(f"play.{name} = {value}", "must be at least 1", f"raise play.{name}")


@dataclass(frozen=True)
class CellPlan:
    """One cell: `agent` trained with `seed` plays the games of `group` with an index (`retrieval` None: empty)."""

    arm: str
    agent: Agent
    seed: int
    group: Group
    index: Index
    retrieval: RetrievalConfig | None
    part: Part


def cells_of(config: Config) -> list[CellPlan]:
    """The cells of the evaluation up to `config.through`, the most important first: by part, unseen families before
    seen ones, by seed, by agent. The base model has no seeds: its one is 0."""
    plans = [
        CellPlan(
            f"{arm}/{group}/{index}",
            agent,
            seed,
            group,
            index,
            config.retrieval if index != "empty" else None,
            _part(arm, group, index),
        )
        for arm, (agent, indexes) in ARMS.items()
        for seed in _seeds(agent, config.seeds)
        for group in GROUPS
        for index in indexes
    ]
    agent = ARMS[config.ablations.arm][0]
    variants = {f"k={k}": replace(config.retrieval, k=k) for k in config.ablations.k if k != config.retrieval.k}
    if config.ablations.dynamic:
        variants["dynamic"] = replace(config.retrieval, query="dynamic")
    plans += [
        CellPlan(
            f"{config.ablations.arm}/unseen/matched/{name}", agent, seed, "unseen", "matched", retrieval, "ablations"
        )
        for name, retrieval in variants.items()
        for seed in _seeds(agent, config.seeds)[: config.ablations.seeds]
    ]
    asked = [plan for plan in plans if PARTS.index(plan.part) <= PARTS.index(config.through)]
    return sorted(
        asked,
        key=lambda plan: (PARTS.index(plan.part), plan.group != "unseen", plan.seed, _ORDER.index(plan.agent)),
    )


def _part(arm: str, group: Group, index: Index) -> Part:
    if (arm, index) not in HEADLINE:
        return "indexes"
    return "claims" if group == "unseen" else "headline"


_ORDER: tuple[Agent, ...] = ("base", "lora", "exprag-lora")


def _seeds(agent: Agent, seeds: Sequence[int]) -> Sequence[int]:
    return (0,) if agent == "base" else seeds
