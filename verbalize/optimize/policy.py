"""The slot policy: one distribution over four actions per event, all of them read from a single forward pass.

The prompt shows one event per line, each line ending with a marker token. The model's next-token distribution at a
marker, renormalised over the alphabet {drop, keep} x {plain, with metadata}, is the policy for that event. Given the
prompt, the actions of a history are independent, so one forward over P tokens yields the log-probability of *every*
action sequence. Sampling, the old, the new and the reference log-probabilities, KL and entropy all go through
`slot_logprobs`: there is no second definition that could drift away from the first.

A display policy is the same with a single slot, at the end of the prompt: its four actions are displays (`slots`).

Shapes: H slots (events) of a prompt, 4 actions, G rollouts of a prompt.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from recsys.errors import InputError
from recsys.models.lengths import fed_length, positions_of, weight_of
from recsys.models.loading import LanguageModel
from recsys.models.tokenisation import encode_texts
from verbalize.verbalizers.base import guard_inputs, without_memory
from verbalize.verbalizers.budget import fit_to_budget
from verbalize.verbalizers.slots import SlotConfig, carry_out, slot_prompts


@dataclass(frozen=True)
class SlotTokens:
    """Token ids of the marker and of the alphabet; an action is an index into `alphabet`."""

    alphabet: tuple[int, ...]
    marker: int

    def symbol_of(self, token: int) -> int:
        """Token id -> action. Raises InputError for a token outside the alphabet."""
        try:
            return self.alphabet.index(token)
        except ValueError:
            raise InputError(
                f"token id {token}",
                f"is not in the action alphabet {self.alphabet}",
                "sample actions with the slot policy only",
            ) from None


def resolve_tokens(tokenizer: PreTrainedTokenizerBase, alphabet: Sequence[str], marker: str) -> SlotTokens:
    """Ids of the alphabet and of the marker. Raises InputError unless each is one token and all differ."""
    ids = []
    for text in (*alphabet, marker):
        encoded = tokenizer.encode(text, add_special_tokens=False)
        if len(encoded) != 1:
            raise InputError(
                f"action symbol {text!r}",
                f"is {len(encoded)} tokens for this tokenizer, not one",
                "choose symbols and a marker that are single tokens",
            )
        ids.append(encoded[0])
    if len(set(ids)) != len(ids):
        raise InputError(f"action symbols {[*alphabet, marker]}", "must be different tokens", "choose distinct symbols")
    return SlotTokens(tuple(ids[:-1]), ids[-1])


def slot_positions(prompt_ids: Sequence[int], marker: int, expected: int | None = None) -> list[int]:
    """Indices of the marker in a prompt, in order. Raises InputError when there are not `expected` (or none at all)."""
    found = [index for index, token in enumerate(prompt_ids) if token == marker]
    if not found or (expected is not None and len(found) != expected):
        raise InputError(
            f"a prompt with {len(found)} slot markers",
            f"needs one per event, {expected if expected is not None else 'at least one'}",
            "make sure titles cannot contain the marker and that the marker keeps its token in context",
        )
    return found


def slot_logprobs(
    model: Any,
    prompts: Sequence[Sequence[int]],
    tokens: SlotTokens,
    temperature: float = 1.0,
    prompts_per_forward: int = 1,
) -> list[Tensor]:
    """B prompts (token ids) -> B tensors (H_b, 4) of log-probabilities over the alphabet, in natural logs.

    Cost: one forward over the prompt; only slot positions pass through the output layer. Prompts of a chunk are
    right-padded: under a causal mask a slot cannot see the padding, so no attention mask is needed. Gradients flow if
    enabled. Scaled by `temperature` before the softmax, as the trainer scales sampled logits.
    """
    weight = weight_of(model)
    device, alphabet = weight.device, torch.tensor(tokens.alphabet, device=weight.device)
    result: list[Tensor] = []
    for start in range(0, len(prompts), prompts_per_forward):
        chunk = [list(prompt) for prompt in prompts[start : start + prompts_per_forward]]
        slots = [slot_positions(prompt, tokens.marker) for prompt in chunk]
        width = fed_length(max(map(len, chunk)), weight, positions_of(model))
        input_ids = torch.tensor([prompt + [tokens.marker] * (width - len(prompt)) for prompt in chunk], device=device)
        kept = sorted({position for row in slots for position in row})
        logits = model(input_ids=input_ids, logits_to_keep=torch.tensor(kept, device=device), use_cache=False).logits
        place = {position: index for index, position in enumerate(kept)}
        for row, positions in enumerate(slots):
            rows = torch.tensor([place[position] for position in positions], device=device)
            chosen = logits[row].index_select(0, rows).index_select(1, alphabet)  # (H, 4)
            result.append(torch.log_softmax(chosen.float() / temperature, dim=-1))
    return result


def sample_actions(logprobs: Tensor, group_size: int) -> Tensor:
    """(H, 4) log-probabilities -> (G, H) actions. Uses torch's global CPU generator, which checkpoints save."""
    return torch.multinomial(logprobs.detach().exp().cpu(), group_size, replacement=True).T


def greedy_actions(logprobs: Tensor) -> list[int]:
    """(H, 4) -> the H most probable actions; the first of equals."""
    return logprobs.argmax(dim=-1).tolist()


def action_logprobs(logprobs: Tensor, actions: Tensor) -> Tensor:
    """(H, 4) log-probabilities and (G, H) actions -> (G, H) log-probabilities of those actions."""
    return (
        logprobs.unsqueeze(0)
        .expand(len(actions), -1, -1)
        .gather(2, actions.to(logprobs.device).unsqueeze(2))
        .squeeze(2)
    )


def entropy(logprobs: Tensor) -> Tensor:
    """(..., 4) -> (...): -sum p log p, at most log 4."""
    return -(logprobs.exp() * logprobs).sum(dim=-1)


def kl_divergence(new: Tensor, old: Tensor) -> Tensor:
    """KL(new || old) per slot, exact over the alphabet: (..., 4), (..., 4) -> (...)."""
    return (new.exp() * (new - old)).sum(dim=-1)


class ActionPolicyVerbalizer:
    """A language model with a slot policy, as a verbalizer: greedy actions, executed. Follows `Verbalizer`."""

    def __init__(
        self,
        lm: LanguageModel,
        config: SlotConfig,
        *,
        name: str = "action_policy",
        prompt_budget: int = 1024,
        prompts_per_forward: int = 1,
    ) -> None:
        self.name, self.lm, self.config = name, lm, config
        self.tokens = resolve_tokens(lm.tokenizer, config.symbols, config.marker)
        self.prompt_budget, self.prompts_per_forward = prompt_budget, prompts_per_forward

    def fit(self, inputs: pl.DataFrame) -> tuple[pl.DataFrame, list[list[int]]]:
        """The inputs with histories cut to the token budget, and their prompts' token ids.

        Memory has a budget of its own and is not counted: the same events are shown with and without it.
        """

        def prompt_tokens(rows: pl.DataFrame) -> list[int]:
            return [len(ids) for ids in self.encode(without_memory(rows))]

        fitted, _ = fit_to_budget(guard_inputs(inputs), prompt_tokens, self.prompt_budget)
        return fitted, self.encode(fitted)

    def encode(self, inputs: pl.DataFrame) -> list[list[int]]:
        """Token ids of the prompts, as the trainer encodes them."""
        return encode_texts(self.lm.tokenizer, slot_prompts(inputs, self.config))

    def logprobs(self, inputs: pl.DataFrame) -> list[Tensor]:
        """B rows -> B tensors (H_b, 4), without gradients."""
        return self._logprobs(self.fit(inputs)[1])

    def actions(self, inputs: pl.DataFrame) -> list[list[int]]:
        """B rows -> B lists of one greedy action per slot: per event shown to the policy, or one in all."""
        return [greedy_actions(row) for row in self.logprobs(inputs)]

    def verbalize(self, inputs: pl.DataFrame) -> list[str]:
        """B rows -> B texts, or names of displays. Deterministic: the most probable action of every slot."""
        fitted, prompts = self.fit(inputs)
        return carry_out(fitted, [greedy_actions(row) for row in self._logprobs(prompts)], self.config)

    def _logprobs(self, prompts: list[list[int]]) -> list[Tensor]:
        with torch.no_grad(), evaluating(self.lm.model):
            return slot_logprobs(self.lm.model, prompts, self.tokens, prompts_per_forward=self.prompts_per_forward)


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, the previous mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
