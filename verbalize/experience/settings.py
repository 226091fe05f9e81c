"""Settings of the experience library. Standard library only: configuration is read before torch or FAISS are."""

from dataclasses import dataclass, field
from typing import Literal

from recsys.errors import InputError


@dataclass(frozen=True)
class IndexConfig:
    """Nearest neighbours by inner product of unit vectors."""

    kind: Literal["auto", "flat", "hnsw"] = "auto"
    """`flat` is exact; `hnsw` is a graph: approximate and faster; `auto` turns from the one to the other at
    `hnsw_above` rows."""
    hnsw_above: int = 100_000
    hnsw_links: int = 32
    hnsw_construction: int = 80
    hnsw_search: int = 128
    """Candidates kept while searching the graph: higher finds more of the true neighbours, slower."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto` uses a GPU where faiss-gpu and a device are present; HNSW always stays on the CPU."""


@dataclass(frozen=True)
class ClusterConfig:
    """Observation clusters and what is shown at a step (SLEA-RL, arXiv 2603.18079)."""

    delta: float = 0.85
    """An observation joins the nearest cluster at least this similar, or founds one."""
    strategies: int = 2
    warnings: int = 1
    rank_by: Literal["score", "similarity"] = "score"
    """Order within a pool. The paper does not say; binary scores tie, so similarity to the observation decides then."""
    warmup: int = 5
    """Nothing is injected before so many epochs."""
    minimum: int = 10
    """Nothing is injected while the library holds so many lessons or fewer."""


@dataclass(frozen=True)
class AdmissionConfig:
    """Which lessons enter, and which they replace (`verbalize.experience.admission`)."""

    rule: Literal["value", "paper"] = "value"
    """`paper` compares scores alone and stops admitting once a full level ties on a binary score."""
    strategies: int = 100
    """Capacity of each level of the strategy zone."""
    warnings: int = 50
    novelty: float = 0.85
    """A lesson whose text is at least this similar to one of its zone is a repeat."""
    eta: float | None = None
    """Score that divides successes from failures; None takes the median of the batch."""
    top: int = 5
    bottom: int = 5
    max_strategies: int = 10
    """At most so many extracted strategies of one batch are considered."""
    max_warnings: int = 5
    usage_weight: float = 1.0
    """Weight of the marginal success observed with a lesson in context."""
    prior_uses: float = 4.0
    """Uses at which the observed marginal success counts half."""
    freshness_weight: float = 0.1
    """Bonus of a new lesson; it must stay below differences of score that should never be overturned."""
    half_life: float = 20.0
    """Batches in which freshness, and the evidence of past uses, halve."""

    def __post_init__(self) -> None:
        _check(
            {
                name: getattr(self, name)
                for name in ("strategies", "warnings", "top", "bottom", "half_life", "prior_uses")
            },
            0,
        )


@dataclass(frozen=True)
class ExperienceConfig:
    """The library."""

    embedding: str = "minilm"
    """Any sentence-transformers model: an asset, a folder or a Hugging Face id. Fixed when the library is made."""
    index: IndexConfig = field(default_factory=IndexConfig)
    clusters: ClusterConfig = field(default_factory=ClusterConfig)
    admission: AdmissionConfig = field(default_factory=AdmissionConfig)
    keep_versions: int = 32
    """Older snapshots are deleted; a training checkpoint must be younger than that to be resumed."""
    compact_dead: float = 0.25
    """Share of removed rows at which the files are rewritten without them."""
    compact_segments: int = 64
    """Number of files at which they are merged into one."""

    def __post_init__(self) -> None:
        _check({"keep_versions": self.keep_versions, "compact_segments": self.compact_segments}, 0)


@dataclass(frozen=True)
class MemoryConfig:
    """Experience in a verbalizer's prompt: what was told of training users with similar histories, and what came of it.

    The library is built from the scored pool and is read-only afterwards. A prompt never shows its own user's entries,
    nor one that was known only at or after its cutoff.
    """

    use: Literal["test", "train_and_test"] = "train_and_test"
    """`test` trains without memory, so it shares its training with a recipe that has none."""
    embedding: str = "minilm"
    """Any sentence-transformers model: an asset, a folder or a Hugging Face id."""
    sketch: str = "profile_recent_unrated"
    """The template by which histories are compared."""
    best: int = 1
    """Candidates of each training example that enter as what worked, by reward."""
    worst: int = 1
    """Candidates of each training example that enter as what to avoid."""
    strategies: int = 2
    """Entries shown of what worked, the nearest first."""
    warnings: int = 1
    """Entries shown of what to avoid."""
    tokens: int = 200
    """Budget of the whole block, by the policy's tokenizer. It comes on top of the prompt's budget, so that a policy is
    shown the same events with and without memory."""
    characters: int = 240
    """Longest answer quoted in an entry."""
    dropout: float = 0.0
    """Share of training examples whose prompts stay without memory, by a hash of their ids: a policy that always had
    memory may rely on it where there is none. Validation and test are not thinned."""

    def __post_init__(self) -> None:
        _check({f"experience.{name}": getattr(self, name) for name in ("best", "tokens", "characters")}, 0)
        for name in ("worst", "strategies", "warnings"):
            if getattr(self, name) < 0:
                raise InputError(f"experience.{name} {getattr(self, name)}", "may not be negative", "give 0 or more")
        if not 0 <= self.dropout <= 1:
            raise InputError(f"experience.dropout {self.dropout}", "is a share from 0 to 1", "set it to 0.2, say")
        if self.dropout and self.use == "test":
            raise InputError(
                f"experience.dropout {self.dropout} with experience.use test",
                "training has no memory to drop",
                "set experience.use: train_and_test, or leave dropout out",
            )
        if not self.strategies + self.warnings:
            raise InputError("experience.strategies 0 and warnings 0", "would show nothing", "set experience: null")


def _check(values: dict[str, float], low: float) -> None:
    for name, value in values.items():
        if not value > low:
            raise InputError(f"{name} {value}", f"must be above {low}", "give a positive number")
