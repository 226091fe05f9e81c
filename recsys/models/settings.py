"""Configuration of adapters, importable without torch."""

from dataclasses import dataclass

from recsys.errors import InputError
from recsys.later import later

ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
ENCODER_ATTENTION = ("query", "key", "value", "attention.output.dense")
ENCODER_MLP = ("intermediate.dense", "output.dense")
"""The same projections by the names that BERT and its relatives have for them."""


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapter: update = alpha / rank * B A on each target projection (arXiv 2106.09685).

    `mlp` adds the feed-forward projections: three times the trainable parameters on SmolLM2, more capacity to fit.
    `dropout` other than 0 makes sampling and training passes disagree; keep 0 for reinforcement learning.
    `last_layers` adapts only the last so many transformer layers, None all: no gradient is computed below them, which
    saves most of the backward pass where few are chosen.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    mlp: bool = False
    last_layers: int | None = later(None)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"lora rank {self.rank}", "must be at least 1", "set rank to 8, 16 or 32")
        if self.last_layers is not None and self.last_layers < 1:
            raise InputError(f"lora last_layers {self.last_layers}", "must be at least 1", "use null for all layers")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"lora dropout {self.dropout}", "must be in [0, 1)", "set dropout to 0.0")

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the projections that receive an adapter."""
        return ATTENTION_PROJECTIONS + (MLP_PROJECTIONS if self.mlp else ())


@dataclass(frozen=True)
class AdapterCard:
    """What an adapter was made from: enough to refuse it on another base, and to make it again.

    `prompt` identifies the format of the prompts that it was trained to answer, where there is one.
    """

    base_name: str
    base_hash: str
    data: str
    split: str
    licence: str
    command: str
    revision: str
    note: str = ""
    prompt: str = ""
