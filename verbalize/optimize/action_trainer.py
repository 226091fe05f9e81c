"""GRPO for the slot policy on TRL's trainer: G rollouts of a prompt share one forward pass.

A rollout is one action token per event, read at the prompt's slots (see `policy`), so nothing is decoded and no
completion token is ever fed to the model. Where stock GRPO runs G sequences of P + C tokens per prompt through the
model, this trainer runs the prompt once: P tokens instead of G * (P + C), in sampling, in the reference and, with
gradients, in the loss. TRL keeps everything else: advantages, clipping, KL, entropy bonus, logging, checkpoints. Its
loss reads log-probabilities and entropies only through `_get_per_token_logps_and_entropies`, overridden here, so the
ratio, KL, clip and entropy it reports are all over the four actions. With `changed`, every action of every slot has an
advantage of its own (`slot_credit`).
"""

from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from recsys.errors import InputError
from recsys.models.tokenisation import encode_texts
from verbalize.optimize.checkpoints import ResumableTrainer
from verbalize.optimize.drawn_prompts import DrawnPrompts
from verbalize.optimize.groups import WholeGroups, group_equal, split_padded, through_forward
from verbalize.optimize.policy import SlotTokens, action_logprobs, entropy, sample_actions, slot_logprobs
from verbalize.optimize.slot_credit import SlotCredit


class ActionGRPOTrainer(ResumableTrainer, DrawnPrompts, SlotCredit, WholeGroups, GRPOTrainer):
    """`GRPOTrainer` whose prompts are plain strings with slots and whose completions are action tokens."""

    def __init__(self, *args: Any, tokens: SlotTokens, prompts_per_forward: int = 1, **kwargs: Any) -> None:
        self.tokens, self.prompts_per_forward = tokens, prompts_per_forward
        super().__init__(*args, **kwargs)
        if self.args.mask_truncated_completions or self.args.use_vllm:
            raise InputError(
                "mask_truncated_completions or use_vllm",
                "do not apply to actions, which have no end token",
                "leave both off",
            )
        self.refuse_dropout()

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict]:
        return encode_texts(self._tokenizer, prompts), None, {}

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: Any,
        multimodal_fields: Any,
        num_generations: int,
        has_tool_images: bool = False,
    ) -> tuple[list[list[int]], None]:
        """Prompts, each repeated `num_generations` times in a row -> as many action sequences, as token ids."""
        groups = group_equal(prompt_ids)
        with torch.no_grad():
            per_prompt = self._slot_logprobs(self.model, [prompt for prompt, _ in groups])
        completions: list[list[int]] = [[] for _ in prompt_ids]
        self.sampled = [torch.empty(0)] * len(prompt_ids)
        for (_, members), logprobs in zip(groups, per_prompt, strict=True):
            for index, actions in zip(members, sample_actions(logprobs, len(members)).tolist(), strict=True):
                completions[index] = [self.tokens.alphabet[action] for action in actions]
                self.sampled[index] = logprobs
        return completions, None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **unused: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        """(B, P + C) ids -> (B, C) log-probabilities and entropies of the actions; 0 where a completion is padding.

        A completion has one action per slot or, where slots are paid apart, all four of the first slot, then of the
        next, and so on.
        """
        prompts, completions = split_padded(input_ids, attention_mask, logits_to_keep)
        groups = group_equal(prompts)
        per_prompt = self._slot_logprobs(model, [prompt for prompt, _ in groups])
        symbols = symbols_of(input_ids[:, -logits_to_keep:], self.tokens)
        rows: list[Tensor] = [torch.empty(0)] * len(prompts)
        entropies: list[Tensor] = [torch.empty(0)] * len(prompts)
        for (_, members), logprobs in zip(groups, per_prompt, strict=True):
            logprobs = logprobs.repeat_interleave(len(completions[members[0]]) // len(logprobs), dim=0)
            padding = (0, logits_to_keep - len(logprobs))
            chosen = action_logprobs(logprobs, symbols[members, : len(logprobs)])  # (G, H)
            spread = torch.nn.functional.pad(entropy(logprobs), padding)
            for index, row in zip(members, torch.nn.functional.pad(chosen, padding), strict=True):
                rows[index], entropies[index] = row, spread
        return torch.stack(rows), torch.stack(entropies) if compute_entropy else None, None

    def _slot_logprobs(self, model: Any, prompts: list[list[int]]) -> list[Tensor]:
        inner = self.accelerator.unwrap_model(model)
        with self.accelerator.autocast():
            return through_forward(
                model, lambda: slot_logprobs(inner, prompts, self.tokens, self.temperature, self.prompts_per_forward)
            )


def symbols_of(completion_ids: Tensor, tokens: SlotTokens) -> Tensor:
    """Token ids -> actions 0..3 of the same shape; padding and anything else -> 0, to be masked by the caller."""
    symbols = torch.zeros_like(completion_ids)
    for symbol, token in enumerate(tokens.alphabet):
        symbols[completion_ids == token] = symbol
    return symbols
