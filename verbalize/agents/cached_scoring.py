"""`ScoringPolicy` with memory: what an episode's chat has in common with its last turn is not computed again.

A chat only grows, so its keys and values are kept from turn to turn; a turn costs its new observation and the
admissible actions instead of the whole chat. The system message is a chunk of its own whose keys every episode with
the same message starts from: with retrieved trajectories in it, it is the longest part of the prompt. Where dynamic
retrieval changes the system message, the episode is computed anew.

Scores equal `ScoringPolicy`'s to about 1e-4. The chunks a chat is computed in follow from the chat alone, so an
episode's scores do not depend on who else plays.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from recsys.errors import InputError
from recsys.models.chat import encode_chat
from recsys.models.packed import block_mask, body_and_head, dtype_of
from recsys.models.tokenisation import encode_texts
from verbalize.agents.language_policies import ScoringPolicy, end_of_turn
from verbalize.agents.policies import admissible_of
from verbalize.agents.rollouts import Situation

_SYSTEMS = 16  # system messages whose keys are kept: 46 kB a token for a 135M model in float32


@dataclass
class _Computed:
    """A prompt's ids and their keys and values."""

    ids: list[int]
    cache: DynamicCache


@dataclass(frozen=True, eq=False)
class CachedScoringPolicy(ScoringPolicy):
    """Chooses as `ScoringPolicy` does. The model's weights must not change while it is in use."""

    _episodes: dict[tuple[str, int], _Computed] = field(default_factory=dict, init=False)
    _systems: OrderedDict[tuple[int, ...], DynamicCache] = field(default_factory=OrderedDict, init=False)

    def score(self, situations: Sequence[Situation]) -> list[np.ndarray]:
        """Per situation (A,) float64, in the order of its admissible actions. Episodes that are not asked about any
        more are forgotten."""
        asked = {_episode(situation) for situation in situations}
        for ended in self._episodes.keys() - asked:
            del self._episodes[ended]
        with torch.no_grad():
            return [self._score(situation) for situation in situations]

    def _score(self, situation: Situation) -> np.ndarray:
        end = [end_of_turn(self.tokenizer)]
        branches = [ids + end for ids in encode_texts(self.tokenizer, admissible_of(situation))]
        ids = encode_chat(self.tokenizer, situation.chat, add_generation_prompt=True)
        body, head = body_and_head(self.model)
        longest = len(ids) + max(map(len, branches))
        positions = getattr(body.config, "max_position_embeddings", None)
        if positions is not None and longest > positions:
            raise InputError(
                f"episode {situation.task.id} with {longest} tokens",
                f"exceeds the model's {positions} positions",
                "lower max_steps or the budget of the memory",
            )
        system = self._system_length(situation, ids)
        held = self._episodes.get(_episode(situation))
        common = _common(held.ids, ids[:-1]) if held else 0
        if held and common >= system:
            _crop(held.cache, common)
        else:
            held, common = _Computed([], self._begin(body, ids[:system])), system
        logprobs = _branch_logprobs(body, head, held.cache, ids[common:], common, branches)
        _crop(held.cache, len(ids))
        self._episodes[_episode(situation)] = _Computed(ids, held.cache)
        return np.array([float(row.mean() if self.config.per_token else row.sum()) for row in logprobs])

    def _system_length(self, situation: Situation, ids: list[int]) -> int:
        """Tokens of the chat's system message; 0 without one."""
        if situation.chat[0]["role"] != "system":
            return 0
        return _common(encode_chat(self.tokenizer, situation.chat[:1]), ids[:-1])

    def _begin(self, body: Any, ids: list[int]) -> DynamicCache:
        """A cache of its own that holds these ids."""
        if not ids:
            return DynamicCache()
        key = tuple(ids)
        if key not in self._systems:
            cache = DynamicCache()
            device = next(body.parameters()).device
            body(input_ids=torch.tensor([ids], device=device), past_key_values=cache, use_cache=True)
            self._systems[key] = cache
            if len(self._systems) > _SYSTEMS:
                self._systems.popitem(last=False)
        self._systems.move_to_end(key)
        copy = DynamicCache()
        layers: Any = self._systems[key].layers
        for number, layer in enumerate(layers):
            copy.update(layer.keys, layer.values, number)  # concatenates, so the original stays as it is
        return copy


def _branch_logprobs(
    body: Any, head: Any, cache: DynamicCache, new: list[int], start: int, branches: list[list[int]]
) -> list[torch.Tensor]:
    """Log-probabilities of each branch's tokens after the `start` tokens in the cache and the `new` ones, which it
    then holds, followed by the branches.
    """
    device = next(body.parameters()).device
    ids, places, segments = list(new), list(range(start, start + len(new))), [0] * len(new)
    rows, tokens = [], []  # of each branch token: the fed position that predicts it, and the token
    for number, branch in enumerate(branches, start=1):
        own = len(ids)
        rows += [len(new) - 1, *range(own, own + len(branch) - 1)]
        tokens += branch
        ids += branch[:-1]
        places += range(start + len(new), start + len(new) + len(branch) - 1)
        segments += [number] * (len(branch) - 1)
    own_mask = block_mask(torch.tensor([segments], device=device), dtype_of(body))  # (1, 1, n, n)
    mask = torch.cat([own_mask.new_zeros(1, 1, len(ids), start), own_mask], dim=-1)  # all see what the cache holds
    hidden = body(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([places], device=device),
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state[0]
    first = len(new) - 1  # nothing is read before the last token of the prompt
    logprobs = torch.log_softmax(head(hidden[first:]).float(), dim=-1)
    picked = logprobs[torch.tensor(rows, device=device) - first, torch.tensor(tokens, device=device)]
    return list(picked.split([len(branch) for branch in branches]))


def _crop(cache: DynamicCache, length: int) -> None:
    if surplus := cache.get_seq_length() - length:
        cache.crop(-surplus)


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    return next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _episode(situation: Situation) -> tuple[str, int]:
    return situation.task.id, situation.attempt
