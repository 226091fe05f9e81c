"""The curriculum inside TRL's trainer: a step's prompts are drawn when it generates, not when the run begins.

TRL's data loader fetches rows ahead of the step that uses them, so rows cannot depend on the rollouts before them. Here
they are stand-ins that hold only their `place` in the step; prompts take their places when rollouts are made.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from recsys.storage import read_json, write_json
from verbalize.optimize.curriculum import STATE, Curriculum, Draw
from verbalize.processes import gather, leads

PLACE = "place"


def stand_ins(row: Mapping[str, Any], prompts_per_step: int, count: int) -> list[Mapping[str, Any]]:
    """`count` rows in TRL's form, `prompts_per_step` places after one another; `row` is any prompt."""
    return [{**row, PLACE: place % prompts_per_step} for place in range(count)]


class DrawnPrompts:
    """Mixin before a GRPO trainer, behind `ResumableTrainer`: without a `curriculum` it changes nothing."""

    accelerator: Any
    args: Any
    state: Any

    def __init__(
        self, *args: Any, curriculum: Curriculum | None = None, prompts_per_step: int = 1, **kwargs: Any
    ) -> None:
        self.curriculum, self.prompts_per_step = curriculum, prompts_per_step
        self._drawn: Draw | None = None
        super().__init__(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self.curriculum is None:
            return super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        # Every process draws the same from the same state, and takes the places that TRL gave it.
        drawn = self._drawn = self.curriculum.draw(self.state.global_step, self.prompts_per_step)
        places = [row[PLACE] for row in inputs]
        rows = self.curriculum.rows
        chosen = [{**rows[drawn.indices[place]], PLACE: place} for place in places]
        outputs: dict[str, Any] = super()._generate_and_score_completions(chosen)  # type: ignore[misc]
        advantages = outputs["advantages"]
        weights = torch.as_tensor(drawn.weights[places], dtype=advantages.dtype, device=advantages.device)
        # (B,), or (B, C) where each slot has its own
        outputs["advantages"] = advantages * weights.view(-1, *[1] * (advantages.dim() - 1))
        return outputs

    def _calculate_rewards(self, inputs: list[dict[str, Any]], *args: Any) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards(inputs, *args)  # type: ignore[misc]  # of all processes
        if self.curriculum is not None:
            assert self._drawn is not None  # by the generation whose rollouts these are
            group = self.args.num_generations
            places = gather([row[PLACE] for row in inputs])[::group]
            self.curriculum.observe(self._drawn.indices[places].tolist(), _groups(rewards, group))
            for name, value in self._drawn.log.items():
                self._log_metric(name, value)  # type: ignore[attr-defined]
        return rewards

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        if self.curriculum is not None and leads():
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            write_json(self.curriculum.state(), folder / STATE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        if self.curriculum is not None:
            self.curriculum.restore(read_json(Path(resume_from_checkpoint) / STATE))


def _groups(rewards: torch.Tensor, group: int) -> Any:
    """(n G, 1) -> (n, G) float64."""
    return rewards[:, 0].double().cpu().numpy().reshape(-1, group)
