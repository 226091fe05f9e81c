"""Keys and values of the chats of running episodes: what a chat has in common with its last turn is not computed again.

A chat only grows, so its keys and values are kept from turn to turn. The system message is a chunk of its own whose
keys every episode with the same message starts from: with retrieved trajectories in it, it is the longest part of the
prompt. Where dynamic retrieval changes the system message, the episode is computed anew. The chunks a chat is computed
in follow from the chat alone, so what an episode becomes does not depend on who else plays.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from recsys.errors import InputError
from recsys.models.chat import encode_chat
from recsys.models.lengths import fed_length, positions_of, weight_of
from verbalize.agents.rollouts import Situation

_SYSTEMS = 16  # system messages whose keys are kept: 46 kB a token for a 135M model in float32


@dataclass
class _Computed:
    """A prompt's ids and their keys and values."""

    ids: list[int]
    cache: DynamicCache


class EpisodeCache:
    """Of one model, whose weights must not change while it is in use."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._episodes: dict[tuple[str, int], _Computed] = {}
        self._systems: OrderedDict[tuple[int, ...], DynamicCache] = OrderedDict()

    def keep(self, situations: Sequence[Situation]) -> None:
        """Forget the episodes that are not asked about any more."""
        for ended in self._episodes.keys() - {_episode(situation) for situation in situations}:
            del self._episodes[ended]

    def prompt(self, situation: Situation) -> list[int]:
        """The ids of a situation's chat."""
        return encode_chat(self.tokenizer, situation.chat, add_generation_prompt=True)

    def begin(self, body: Any, situation: Situation, ids: list[int], room: int) -> tuple[DynamicCache, int]:
        """A cache to go on from, and how many of `ids` it holds, fewer than all: the caller computes the others.

        Raises InputError when the prompt and `room` more tokens exceed the positions of the model.
        """
        positions = positions_of(body)
        if positions is not None and len(ids) + room > positions:
            raise InputError(
                f"episode {situation.task.id} with {len(ids) + room} tokens",
                f"exceeds the model's {positions} positions",
                "lower max_steps or the budget of the memory",
            )
        system = self._system_length(situation, ids)
        held = self._episodes.get(_episode(situation))
        common = _common(held.ids, ids[:-1]) if held else 0
        if held and common >= system:
            crop(held.cache, common)
            return held.cache, common
        return self._system(body, ids[:system]), system

    def end(self, situation: Situation, ids: list[int], cache: DynamicCache) -> None:
        """Keep the prompt; what was computed behind it goes."""
        crop(cache, len(ids))
        self._episodes[_episode(situation)] = _Computed(ids, cache)

    def _system_length(self, situation: Situation, ids: list[int]) -> int:
        """Tokens of the chat's system message; 0 without one."""
        if situation.chat[0]["role"] != "system":
            return 0
        return _common(encode_chat(self.tokenizer, situation.chat[:1]), ids[:-1])

    def _system(self, body: Any, ids: list[int]) -> DynamicCache:
        """A cache of its own that holds these ids."""
        if not ids:
            return DynamicCache()
        key = tuple(ids)
        if key not in self._systems:
            cache = DynamicCache()
            read(body, ids, cache)
            self._systems[key] = cache
            if len(self._systems) > _SYSTEMS:
                self._systems.popitem(last=False)
        self._systems.move_to_end(key)
        copy = DynamicCache()
        layers: Any = self._systems[key].layers
        for number, layer in enumerate(layers):
            copy.update(layer.keys, layer.values, number)  # concatenates, so the original stays as it is
        return copy


def read(body: Any, ids: Sequence[int], cache: DynamicCache) -> torch.Tensor:
    """Compute `ids` behind what the cache holds, which then holds them too: hidden states (len(ids), D)."""
    weight, start = weight_of(body), cache.get_seq_length()
    more = fed_length(len(ids), weight) - len(ids) if len(ids) > 1 else 0  # behind them, and so never seen by them
    places = [*range(start, start + len(ids)), *[0] * more]
    answer = body(
        input_ids=torch.tensor([[*ids, *[ids[-1]] * more]], device=weight.device),
        position_ids=torch.tensor([places], device=weight.device),
        past_key_values=cache,
        use_cache=True,
    )
    crop(cache, start + len(ids))
    return answer.last_hidden_state[0, : len(ids)]


def crop(cache: DynamicCache, length: int) -> None:
    """Leave the first `length` tokens."""
    if surplus := cache.get_seq_length() - length:
        cache.crop(-surplus)


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    return next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _episode(situation: Situation) -> tuple[str, int]:
    return situation.task.id, situation.attempt
