"""GRPO for multi-turn agents on TRL's trainer: every turn of every episode is its own sample.

TRL's own multi-turn path keeps one growing context per episode, to which nothing can be prepended; SLEA-RL
(arXiv 2603.18079) puts other experience into the system message at every step. So a sample is a turn: the prompt as the
policy saw it, the action it took, the advantage of that action (`advantages.py`). What is replaced is where TRL assumes
one completion per dataset row: a dataset row names a game, `play` turns the rows of a batch into any number of turns,
and a step runs them in portions of bounded size. TRL keeps the clipped objective, KL, logging, optimizer, checkpoints.

The loss is TRL's `dapo`: a sum over actions (or generated tokens) divided by their number in the whole batch, the one
of its losses that uneven portions leave exact, with TRL's KL term, whose gradient is that of the reverse KL. Without a
KL term, turns whose advantage is 0 add nothing to it and are not computed, though they count in the denominator; a
batch without any other leaves the policy as it is, where stock TRL would still move it by the optimizer's momentum.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import use_adapter

from recsys.errors import InputError
from verbalize.agents.agent_trainer_batch import TurnBatch
from verbalize.agents.agent_trainer_turns import (
    ActingSettings,
    Choice,
    choice_logprobs,
    portions,
    text_logprobs,
)
from verbalize.agents.slea_settings import AgentTraining
from verbalize.optimize.checkpoints import ResumableTrainer

Play = Callable[[Sequence[str], int], TurnBatch]
"""Names of the batch's games (each once) and the number of steps done -> the turns played."""


class _PortionedSteps:
    """Mixin below `ResumableTrainer`: one training step plays a batch and runs its turns portion by portion."""

    def training_step(self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        trainer: Any = self
        model.train()
        batch = trainer.play(list(dict.fromkeys(row["prompt"] for row in inputs)), trainer.state.global_step)
        metrics = trainer._metrics["train"]
        for name, value in batch.metrics.items():
            metrics[name].append(value)
        parts = trainer.parts_of(batch)
        trainer._buffered_inputs = parts  # what an abort saves
        before = {name: len(values) for name, values in metrics.items()}
        total = torch.zeros((), device=trainer.accelerator.device)
        for part in parts:
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(model, part)
            trainer.accelerator.backward(loss)
            total += loss.detach()
        _one_value_each(metrics, before, [float(part["completion_mask"].sum()) for part in parts])
        trainer._step += 1
        return total


class AgentGRPOTrainer(ResumableTrainer, _PortionedSteps, GRPOTrainer):
    """`GRPOTrainer` whose dataset rows are names of games (column `prompt`). Make `args` with `agent_config`."""

    def __init__(
        self,
        model: Any,
        *,
        play: Play,
        settings: ActingSettings,
        before_saving: Callable[[int], None] = lambda step: None,
        **kwargs: Any,
    ) -> None:
        self.play, self.settings, self.before_saving = play, settings, before_saving
        self._choices: Sequence[Choice] = ()
        super().__init__(model, _unused_reward, **kwargs)
        if self.args.loss_type != "dapo" or self.args.gradient_accumulation_steps != 1 or self.num_iterations != 1:
            raise InputError(
                f"{self.args.loss_type}, {self.args.gradient_accumulation_steps} accumulated batches, "
                f"{self.num_iterations} iterations",
                "turns are trained by the dapo loss, one batch at a time, once",
                "make the arguments with agent_config",
            )
        if self.accelerator.num_processes > 1:
            raise InputError(
                f"{self.accelerator.num_processes} processes",
                "agents are trained by one",
                "start it without a distributed launcher",
            )
        self.refuse_dropout()

    def parts_of(self, batch: TurnBatch) -> list[dict[str, Any]]:
        """The batch's turns as inputs of TRL's loss, in portions.

        `prompt_ids` (B, 1) is a turn's number in its portion, `completion_ids` (B, C) the chosen action's number or the
        generated tokens: the loss passes both to `_get_per_token_logps_and_entropies`, which looks the turn up.
        """
        device = self.accelerator.device
        lengths = [self._length(choice) for choice in batch.choices]
        wanted = [
            number
            for number, choice in enumerate(batch.choices)
            if self.beta != 0
            or (batch.advantages[number] != 0 and (self.settings.acting == "generate" or len(choice.branches) > 1))
        ]
        parts = []
        for places in portions([batch.choices[number] for number in wanted], self.settings.token_budget):
            numbers = [wanted[place] for place in places]
            width = max(lengths[number] for number in numbers)
            mask = torch.tensor([[place < lengths[number] for place in range(width)] for number in numbers])
            choices = [batch.choices[number] for number in numbers]
            part: dict[str, Any] = {
                "choices": choices,
                "prompt_ids": torch.arange(len(numbers), device=device)[:, None],
                "prompt_mask": torch.ones(len(numbers), 1, dtype=torch.long, device=device),
                "completion_ids": self._completions(choices, width).to(device),
                "completion_mask": mask.long().to(device),
                "advantages": torch.tensor(batch.advantages[numbers], dtype=torch.float32, device=device),
                "num_items_in_batch": torch.tensor(float(sum(lengths)), device=device),
            }
            if self.beta != 0:
                part["ref_per_token_logps"] = self._reference(part)
            parts.append(part)
        return parts

    def _length(self, choice: Choice) -> int:
        return len(choice.branches[0]) if self.settings.acting == "generate" else 1

    def _completions(self, choices: Sequence[Choice], width: int) -> Tensor:
        if self.settings.acting == "score":
            return torch.tensor([[choice.chosen] for choice in choices])
        return torch.tensor([[*tokens, *[0] * (width - len(tokens))] for (tokens,) in (c.branches for c in choices)])

    def _reference(self, part: dict[str, Any]) -> Tensor:
        """Log-probabilities under the policy the run started with, as TRL keeps it."""
        model = self.accelerator.unwrap_model(self.model)
        assert isinstance(model, PeftModel)
        with torch.no_grad(), use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
            return self._logprobs(model, part["choices"], part["completion_ids"].shape[1])[0]

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self._choices = inputs["choices"]
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any, **unused: Any
    ) -> tuple[Tensor, Tensor, None]:
        """Turns by number in the first column -> (B, C) log-probabilities and entropies of what was chosen."""
        chosen = [self._choices[number] for number in input_ids[:, 0].tolist()]
        return *self._logprobs(self.accelerator.unwrap_model(model), chosen, logits_to_keep), None

    def _logprobs(self, model: Any, choices: Sequence[Choice], width: int) -> tuple[Tensor, Tensor]:
        with self.accelerator.autocast():
            if self.settings.acting == "score":
                return choice_logprobs(model, choices, self.settings)
            return text_logprobs(model, choices, self.settings, width)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self.before_saving(self.state.global_step)
        super()._save_checkpoint(model, trial)


def agent_config(training: AgentTraining, folder: Path, steps: int, seed: int) -> GRPOConfig:
    """TRL's settings for at most `steps` batches; the caller ends training at its budget of environment steps."""
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=steps,
        seed=seed,
        data_seed=seed,
        per_device_train_batch_size=training.games_per_batch * training.group_size,
        gradient_accumulation_steps=1,
        steps_per_generation=1,
        num_generations=training.group_size,
        num_iterations=1,
        shuffle_dataset=False,
        max_completion_length=training.max_new_tokens,
        temperature=training.temperature,
        beta=training.beta,
        loss_type="dapo",
        learning_rate=training.learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=training.max_grad_norm,
        save_strategy="steps",
        save_steps=training.save_every,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
    )


def _unused_reward(completions: Sequence[Any], **unused: Any) -> list[float | None]:
    """TRL asks for one; rewards come from the environments, with the turns."""
    raise InputError("a reward function", "is not how agents are rewarded", "play episodes")


def _one_value_each(metrics: Any, before: dict[str, int], weights: Sequence[float]) -> None:
    """Replace what the portions of a step logged one by one by its mean over actions."""
    for name, values in metrics.items():
        new = values[before.get(name, 0) :]
        if len(new) == len(weights) > 1:
            mean = sum(value * weight for value, weight in zip(new, weights, strict=True)) / sum(weights)
            metrics[name] = [*values[: before.get(name, 0)], mean]
