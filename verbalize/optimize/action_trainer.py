"""GRPO for the slot policy on TRL's trainer: G rollouts of a prompt share one forward pass.

A rollout is one action token per event, read at the prompt's slots (see `policy`), so nothing is decoded and no
completion token is ever fed to the model. Where stock GRPO runs G sequences of P + C tokens per prompt through the
model, this trainer runs the prompt once: P tokens instead of G * (P + C), in sampling, in the reference and, with
gradients, in the loss. TRL keeps everything else: advantages, clipping, KL, entropy bonus, logging, checkpoints. Its
loss reads log-probabilities and entropies only through `_get_per_token_logps_and_entropies`, overridden here, so the
ratio, KL, clip and entropy it reports are all over the four actions.

Deviation from TRL: the rollouts of one generation are not shuffled over the micro-batches of a step, because a
micro-batch must hold whole groups for the forward to be shared. Gradients of a step are sums over micro-batches, so the
update is the same.
"""

from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from recsys.errors import InputError
from recsys.models.tokenisation import encode_texts
from verbalize.optimize.checkpoints import ResumableTrainer
from verbalize.optimize.policy import SlotTokens, action_logprobs, entropy, sample_actions, slot_logprobs


class ActionGRPOTrainer(ResumableTrainer, GRPOTrainer):
    """`GRPOTrainer` whose prompts are plain strings with slots and whose completions are action tokens."""

    _buffered_inputs: Any

    def __init__(self, *args: Any, tokens: SlotTokens, prompts_per_forward: int = 1, **kwargs: Any) -> None:
        self.tokens, self.prompts_per_forward = tokens, prompts_per_forward
        super().__init__(*args, **kwargs)
        if self.args.mask_truncated_completions or self.args.use_vllm:
            raise InputError(
                "mask_truncated_completions or use_vllm",
                "do not apply to actions, which have no end token",
                "leave both off",
            )
        if any(getattr(module, "p", 0) > 0 for module in self.model.modules() if isinstance(module, torch.nn.Dropout)):
            raise InputError(
                "a policy with dropout",
                "would sample from one policy and train another",
                "set the adapter's dropout to 0",
            )

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict]:
        return encode_texts(self._tokenizer, prompts), None, {}

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        slices = self.args.steps_per_generation
        if self._step % (slices * self.num_iterations) == 0 or self._buffered_inputs is None:
            self._buffered_inputs = split_tensor_dict(self._generate_and_score_completions(generation_batch), slices)
        return self._buffered_inputs[self._step % slices]

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
        for (_, members), logprobs in zip(groups, per_prompt, strict=True):
            for index, actions in zip(members, sample_actions(logprobs, len(members)).tolist(), strict=True):
                completions[index] = [self.tokens.alphabet[action] for action in actions]
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
        """(B, P + C) ids -> (B, C) log-probabilities and entropies of the actions; 0 where a completion is padding."""
        prompt_mask = attention_mask[:, :-logits_to_keep].bool()
        prompts = [row[mask].tolist() for row, mask in zip(input_ids[:, :-logits_to_keep], prompt_mask, strict=True)]
        groups = group_equal(prompts)
        per_prompt = self._slot_logprobs(model, [prompt for prompt, _ in groups])
        symbols = symbols_of(input_ids[:, -logits_to_keep:], self.tokens)
        rows: list[Tensor] = [torch.empty(0)] * len(prompts)
        entropies: list[Tensor] = [torch.empty(0)] * len(prompts)
        for (_, members), logprobs in zip(groups, per_prompt, strict=True):
            padding = (0, logits_to_keep - len(logprobs))
            chosen = action_logprobs(logprobs, symbols[members, : len(logprobs)])  # (G, H)
            spread = torch.nn.functional.pad(entropy(logprobs), padding)
            for index, row in zip(members, torch.nn.functional.pad(chosen, padding), strict=True):
                rows[index], entropies[index] = row, spread
        return torch.stack(rows), torch.stack(entropies) if compute_entropy else None, None

    def _slot_logprobs(self, model: Any, prompts: list[list[int]]) -> list[Tensor]:
        with self.accelerator.autocast():
            return slot_logprobs(model, prompts, self.tokens, self.temperature, self.prompts_per_forward)


def group_equal(prompts: list[list[int]]) -> list[tuple[list[int], list[int]]]:
    """Distinct prompts in order of appearance, each with the rows that hold it.

    >>> group_equal([[1], [1], [2], [1]])
    [([1], [0, 1, 3]), ([2], [2])]
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        members.setdefault(tuple(prompt), []).append(index)
    return [(list(prompt), rows) for prompt, rows in members.items()]


def symbols_of(completion_ids: Tensor, tokens: SlotTokens) -> Tensor:
    """Token ids -> actions 0..3 of the same shape; padding and anything else -> 0, to be masked by the caller."""
    symbols = torch.zeros_like(completion_ids)
    for symbol, token in enumerate(tokens.alphabet):
        symbols[completion_ids == token] = symbol
    return symbols
