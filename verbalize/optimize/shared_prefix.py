"""GRPO for long prompts: the G rollouts of a prompt share its computation, in generation and in the loss.

A verbalizer's prompt is a log of a thousand tokens, its completion a tenth of that. Stock TRL runs G x (P + C) tokens
per prompt; here it is P + G x C, by `recsys.models.branching` (rollouts) and `recsys.models.packed` (log-probabilities
and their gradients). The mathematics of the step is TRL's own: this module only answers the two questions its trainer
asks of the model. After Prefix Grouper (arXiv 2506.05433), with one block mask instead of two attention calls.

Groups whose rewards are all equal have advantage 0: with neither KL nor entropy bonus they add nothing to the gradient,
so their forward runs without one and their backward not at all.

On first use both paths are compared with stock TRL on the first group; when they differ by more than the tolerance, or
the configuration needs something only stock has, the trainer warns, naming the reason, and goes on with stock. Where
vLLM was chosen to generate, it does, and the loss alone is shared.
"""

import logging
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from recsys.models.branching import Process, sample_branches
from recsys.models.packed import BranchTokens, packed_tokens
from recsys.models.packing import PackedRequest
from verbalize.optimize.checkpoints import drops_out
from verbalize.optimize.groups import WholeGroups, group_equal, split_padded, through_forward

logger = logging.getLogger(__name__)

TOLERANCE, ROUNDED_TOLERANCE = 1e-3, 0.1
"""Largest difference of a token's log-probability to stock, in nats: float32 weights, and those of fewer bits."""
TOKEN_BUDGET = 8192
"""Tokens of one forward pass of the loss; only memory depends on it."""
PROMPTS_DECODED = 4
"""Prompts that generate together at the least: no gradients, so even a CPU has the memory; more where a loss takes more
of them (`prompts_per_forward`)."""


class SharedPrefixTrainer(WholeGroups):
    """Mixin before `GRPOTrainer`; `shared_prefix=False` leaves everything to it."""

    def __init__(
        self,
        *args: Any,
        shared_prefix: bool = True,
        prompts_per_forward: int = 1,
        **kwargs: Any,
    ) -> None:
        self.prompts_decoded = max(PROMPTS_DECODED, prompts_per_forward)
        self._dead: Tensor | None = None
        self._unchecked = {"loss", "rollouts"}
        super().__init__(*args, **kwargs)
        self.shares_prefix = shared_prefix
        if shared_prefix and (reason := needs_stock(self)):
            self._fall_back(reason)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """TRL's loss, told which rollouts cannot move the policy."""
        trainer: Any = self
        silent = trainer.beta == 0.0 and not trainer._entropy_bonus_enabled
        self._dead = (inputs["advantages"].reshape(len(inputs["advantages"]), -1) == 0).all(dim=1) if silent else None
        try:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        finally:
            self._dead = None

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: Any, fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> tuple[list[list[int]], None]:
        trainer: Any = self
        if not self.shares_prefix or trainer.use_vllm:  # vLLM has a prefix cache of its own
            return super()._generate_single_turn(  # type: ignore[misc]
                prompt_ids, images, fields, num_generations, has_tool_images
            )
        groups = group_equal(prompt_ids)
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        with trainer.accelerator.autocast():
            samples = sample_branches(
                model,
                [prompt for prompt, _ in groups],
                [len(members) for _, members in groups],
                trainer.max_completion_length,
                trainer.eos_token_ids,
                process_of(trainer.args),
                rows_per_batch=self.prompts_decoded,
            )
        completions: list[list[int]] = [[] for _ in prompt_ids]
        for (_, members), drawn in zip(groups, samples, strict=True):
            for index, sample in zip(members, drawn, strict=True):
                completions[index] = sample.tokens
        if "rollouts" in self._unchecked:
            self._unchecked.discard("rollouts")
            prompt, drawn = groups[0][0], samples[0][:2]
            stock = [self._stock(model, prompt, sample.tokens, 1.0) for sample in drawn]
            self._compare("rollouts", [torch.tensor(sample.logprobs) for sample in drawn], stock)
        return completions, None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **fields: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(B, P + C) ids -> (B, C) log-probabilities and entropies; 0 where a completion is padding."""
        trainer: Any = self
        if not self.shares_prefix:
            return super()._get_per_token_logps_and_entropies(  # type: ignore[misc]
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size,
                compute_entropy,
                compute_aux_loss,
                **fields,
            )
        prompts, completions = split_padded(input_ids, attention_mask, logits_to_keep)
        rows: list[BranchTokens] = through_forward(
            model, lambda: self._rows(trainer.accelerator.unwrap_model(model), prompts, completions, compute_entropy)
        )
        logps = torch.stack([_padded(row.logprobs, logits_to_keep) for row in rows])
        if "loss" in self._unchecked:
            self._unchecked.discard("loss")
            stock = [self._stock(model, prompts[0], completions[0], trainer.temperature)]
            self._compare("loss", [rows[0].logprobs], stock)
        if not compute_entropy:
            return logps, None, None
        spreads = [_padded(row.entropies, logits_to_keep) for row in rows if row.entropies is not None]
        return logps, torch.stack(spreads), None

    def _rows(
        self, model: Any, prompts: list[list[int]], completions: list[list[int]], entropies: bool
    ) -> list[BranchTokens]:
        trainer: Any = self
        groups = group_equal(prompts)
        dead = self._dead if self._dead is not None and torch.is_grad_enabled() else None
        rows: list[Any] = [None] * len(prompts)
        for frozen in (False, True):
            some = [group for group in groups if (dead is not None and bool(dead[group[1]].all())) is frozen]
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen), trainer.accelerator.autocast():
                values = packed_tokens(
                    model,
                    [PackedRequest(prompt, [completions[index] for index in members]) for prompt, members in some],
                    TOKEN_BUDGET,
                    temperature=trainer.temperature,
                    entropies=entropies,
                    entropy_gradients=trainer._entropy_bonus_enabled,
                )
            for (_, members), answers in zip(some, values, strict=True):
                for index, answer in zip(members, answers, strict=True):
                    rows[index] = answer
        if dead is not None and bool(dead.all()):
            # Nothing to learn, yet the trainer will ask for a gradient: give it one that is exactly 0.
            zero = sum(weight.sum() for weight in model.parameters() if weight.requires_grad) * 0.0
            rows[0] = BranchTokens(rows[0].logprobs + zero, rows[0].entropies)
        return rows

    def _stock(self, model: Any, prompt: list[int], completion: list[int], temperature: float) -> Tensor:
        """Log-probabilities of one completion by an ordinary forward of the whole sequence, (C,)."""
        trainer: Any = self
        inner = trainer.accelerator.unwrap_model(model)
        inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
        ids = torch.tensor([[*prompt, *completion]], device=trainer.accelerator.device)
        with torch.no_grad(), trainer.accelerator.autocast():
            hidden = inner.base_model(input_ids=ids, use_cache=False).last_hidden_state
            logits = inner.get_output_embeddings()(hidden)[0, len(prompt) - 1 : -1].float() / temperature
        targets = ids[0, len(prompt) :, None]
        return (logits.gather(1, targets)[:, 0] - torch.logsumexp(logits, dim=-1)).cpu()

    def _compare(self, what: str, ours: list[Tensor], stock: list[Tensor]) -> None:
        trainer: Any = self
        worst = max(float((a.detach().cpu().float() - b).abs().max()) for a, b in zip(ours, stock, strict=True))
        exact = next(trainer.model.parameters()).dtype == torch.float32
        if not worst <= (TOLERANCE if exact else ROUNDED_TOLERANCE):
            self._fall_back(f"log-probabilities in the {what} differ from stock by {worst:.2g} nats")

    def _fall_back(self, reason: str) -> None:
        self.shares_prefix = False
        logger.warning("shared prefixes are off, every rollout computes its own prompt: %s", reason)


def needs_stock(trainer: Any) -> str | None:
    """Why a trainer's configuration cannot share prefixes; None when it can."""
    args = trainer.args
    reasons = {
        "generation by continuous batching": getattr(trainer, "use_transformers_continuous_batching", False),
        "a repetition penalty": args.repetition_penalty != 1.0,
        f"generation_kwargs {args.generation_kwargs}": bool(args.generation_kwargs),
        "images or tools": trainer._is_vlm or bool(trainer.tools),
        "a router's auxiliary loss": trainer.aux_loss_enabled,
        "dropout, which would differ between the copies of a prompt": drops_out(trainer.model),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def process_of(args: Any) -> Process:
    """TRL's sampling settings as one function of logits (N, V): temperature, then top-k, top-p, min-p."""
    chain = LogitsProcessorList()
    if args.top_k:
        chain.append(TopKLogitsWarper(args.top_k))
    if args.top_p < 1.0:
        chain.append(TopPLogitsWarper(args.top_p))
    if args.min_p is not None:
        chain.append(MinPLogitsWarper(args.min_p))
    nothing: Any = torch.empty(0, dtype=torch.long)  # these warpers do not read what was written before
    return lambda logits: chain(nothing, logits / args.temperature)


def _padded(values: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, length - len(values)))
