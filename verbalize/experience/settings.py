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


def _check(values: dict[str, float], low: float) -> None:
    for name, value in values.items():
        if not value > low:
            raise InputError(f"{name} {value}", f"must be above {low}", "give a positive number")
