"""Settings of supervised fine-tuning on expert trajectories. Standard library only: read before torch is."""

from dataclasses import dataclass, field
from typing import Literal

from recsys.errors import InputError
from recsys.later import later
from recsys.models.settings import LoraSettings


@dataclass(frozen=True)
class SftConfig:
    """LoRA on whole trajectories, loss on what the assistant says (arXiv 2603.18272: r 8, α 16, dropout 0.1, constant
    learning rate, no weight decay). Its learning rate of 5e-5 belongs to models of 4B and more; 135M bears a larger
    one.
    """

    epochs: int = 3
    batch_size: int = 8
    """Trajectories per optimizer step."""
    forward_tokens: int = 2048
    """Most tokens of one forward pass, padding included: bounds memory, and changes no gradient."""
    max_tokens: int = 2048
    """A longer trajectory is cut after the last action that fits."""
    learning_rate: float = 3e-4
    max_grad_norm: float = 1.0
    lora: LoraSettings = field(default_factory=lambda: LoraSettings(rank=8, alpha=16, dropout=0.1))
    dtype: Literal["float32", "bfloat16"] = later("float32")
    """Of the frozen weights while the adapter, in float32, is tuned; afterwards both are merged in float32 and play.
    `experiments/benchmarks/cpu_dtype.py` tells which is faster where."""
    validate_every: int = 1
    """Epochs between games played to choose the checkpoint; the last epoch is always judged."""
    save_every: int = 5
    """Optimizer steps between checkpoints."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "forward_tokens", "max_tokens", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"sft.{name} = {getattr(self, name)}", "must be at least 1", "raise it")
        if not (self.learning_rate > 0 and self.max_grad_norm > 0):
            raise InputError(
                f"sft.learning_rate = {self.learning_rate}, max_grad_norm = {self.max_grad_norm}",
                "must be above 0",
                "try 3e-4 and 1.0",
            )
