"""`GeneratingPolicy` with kept keys and values (`episode_cache`): a turn costs its new observation and the action.

What is new in a chat is read episode by episode; then the actions of all parallel episodes are decoded together, one
token of each in a forward pass, as decoding is bound by reading the weights. The likeliest token is taken every time;
draws are left to `GeneratingPolicy`, which training uses. Who else plays changes logits in their last bits alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from recsys.errors import InputError
from recsys.models.lengths import weight_of
from recsys.models.packed import body_and_head
from verbalize.agents.episode_cache import EpisodeCache, read
from verbalize.agents.language_policies import GeneratingPolicy, end_of_turn, read_action
from verbalize.agents.rollouts import Situation


@dataclass(frozen=True, eq=False)
class CachedGeneratingPolicy(GeneratingPolicy):
    """Writes what `GeneratingPolicy` does at temperature 0. The model's weights must not change while it is in use."""

    _cache: EpisodeCache = field(init=False)

    def __post_init__(self) -> None:
        if self.config.temperature:
            raise InputError(
                f"temperature = {self.config.temperature}", "must be 0: nothing is drawn here", "use GeneratingPolicy"
            )
        object.__setattr__(self, "_cache", EpisodeCache(self.tokenizer))

    def act(self, situations: Sequence[Situation]) -> list[str]:
        if not situations:
            return []
        self._cache.keep(situations)
        body, head = body_and_head(self.model)
        caches, first = [], []
        with torch.no_grad():
            for situation in situations:
                ids = self._cache.prompt(situation)
                cache, common = self._cache.begin(body, situation, ids, self.config.max_new_tokens)
                first.append(int(head(read(body, ids[common:], cache)[-1]).argmax()))
                self._cache.end(situation, ids, cache)
                caches.append(cache)
            end, most = end_of_turn(self.tokenizer), self.config.max_new_tokens
            written = decode_together(body, head, caches, first, end, most)
        return [read_action(self.tokenizer, tokens[: -1 if tokens[-1] == end else None]) for tokens in written]


def decode_together(
    body: Any, head: Any, caches: Sequence[DynamicCache], first: Sequence[int], end: int, most: int
) -> list[list[int]]:
    """R prompts' caches, which stay as they are, and the first token behind each -> R continuations of at most `most`
    tokens, up to and including `end`. Prompts are padded to the left; rows that have ended are fed until all have.
    """
    lengths = [cache.get_seq_length() for cache in caches]
    joint, mask = _padded(caches, lengths), _padding_mask(lengths, most, weight_of(body))
    written = [[token] for token in first]
    for step in range(most - 1):
        if all(tokens[-1] == end for tokens in written):
            break
        hidden = body(
            input_ids=torch.tensor([tokens[-1:] for tokens in written], device=mask.device),
            position_ids=torch.tensor([[length + step] for length in lengths], device=mask.device),
            attention_mask=mask[..., : max(lengths) + step + 1],
            past_key_values=joint,
            use_cache=True,
        ).last_hidden_state[:, -1]  # (R, D)
        for tokens, token in zip(written, head(hidden).argmax(dim=-1).tolist(), strict=True):
            if tokens[-1] != end:
                tokens.append(token)
    return written


def _padded(caches: Sequence[DynamicCache], lengths: Sequence[int]) -> DynamicCache:
    """One cache of R rows as long as the longest, the others with zeros before their beginning."""
    joint = DynamicCache()
    for number in range(len(caches[0].layers)):
        layers: list[Any] = [cache.layers[number] for cache in caches]
        keys, values = (
            torch.cat([_left(states, max(lengths)) for states in side], dim=0)
            for side in ([layer.keys for layer in layers], [layer.values for layer in layers])
        )
        joint.update(keys, values, number)
    return joint


def _left(states: Tensor, length: int) -> Tensor:
    """(1, heads, n, D) -> (1, heads, length, D), zeros before."""
    return torch.nn.functional.pad(states, (0, 0, length - states.shape[2], 0))


def _padding_mask(lengths: Sequence[int], more: int, weight: Tensor) -> Tensor:
    """Additive (R, 1, 1, longest + more): the columns before a row's beginning are not seen."""
    columns = torch.arange(max(lengths) + more, device=weight.device)
    hidden = columns[None] < max(lengths) - torch.tensor(lengths, device=weight.device)[:, None]
    mask = torch.zeros(hidden.shape, dtype=weight.dtype, device=weight.device)
    return mask.masked_fill_(hidden, torch.finfo(weight.dtype).min)[:, None, None]
