"""Checkpoints that are whole or ignored, and the trainer behaviour both policies share.

TRL does not save its buffer of generated rollouts, so a checkpoint is taken only where that buffer is used up; the
random states saved there then make a resumed run generate exactly what the uninterrupted one would have.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from recsys.errors import InputError
from recsys.storage import replacing, write_json
from verbalize.processes import leads, share

MARKER = "complete.json"


def last_complete(folder: Path) -> Path | None:
    """The checkpoint of the most steps that was written to its end; half-written ones are removed."""
    complete = []
    for path in folder.glob("checkpoint-*"):
        if (path / MARKER).exists():
            complete.append(path)
        else:
            shutil.rmtree(path)
    return max(complete, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """`checkpoint-12` -> 12."""
    return int(checkpoint.name.rpartition("-")[2])


def drops_out(model: torch.nn.Module) -> bool:
    """Whether any of its dropout layers is active in training."""
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())


class ResumableTrainer:
    """Mixin before a TRL trainer: whole checkpoints, adapters restored on resume, abort on an infinite loss."""

    args: Any
    model: Any
    state: Any

    def training_step(self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One micro-batch. Raises InputError, with the batch saved to disk, when its loss is not finite."""
        loss = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]
        if not torch.isfinite(loss):
            self.abort(f"loss {loss.item()}")
        return loss

    def refuse_dropout(self) -> None:
        """Raises InputError for a policy whose log-probabilities would differ from one forward to the next."""
        if drops_out(self.model):
            raise InputError(
                "a policy with dropout",
                "would sample from one policy and train another",
                "set the adapter's dropout to 0",
            )

    def abort(self, what: str) -> None:
        """Save the rollouts in use and raise an error that names the file."""
        path = Path(self.args.output_dir) / f"aborted-step-{self.state.global_step}.pt"
        with replacing(path) as temporary:
            torch.save(getattr(self, "_buffered_inputs", None), temporary)
        raise InputError(
            f"{what} at step {self.state.global_step}",
            f"training cannot continue with numbers that are not finite; the batch is in {path}",
            "inspect the batch; lower learning_rate or max_grad_norm and resume from the last checkpoint",
        )

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        step = share(self.state.global_step)  # every process has saved its random states
        if leads():
            write_json({"step": step}, Path(self.args.output_dir) / f"checkpoint-{step}" / MARKER)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        policy: Any = self.model if model is None else model
        # With a reference adapter beside the policy, transformers loads the sub-folder `ref` and forgets the policy.
        if "ref" in getattr(policy, "peft_config", {}):
            policy.load_adapter(resume_from_checkpoint, "default", is_trainable=True)
            policy.set_adapter("default")

    def _send_telemetry(self) -> None:
        """Nothing: TRL would report each training to its makers; what leaves the machine is opted into."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: adapters get this project's own card when they are selected, not at every checkpoint."""


class FiniteGradients(TrainerCallback):
    """Aborts before the optimizer would spread a gradient that is not finite into the weights."""

    def __init__(self) -> None:
        self.trainer: ResumableTrainer | None = None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for name, parameter in kwargs["model"].named_parameters():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                assert self.trainer is not None
                self.trainer.abort(f"gradient of {name}")
