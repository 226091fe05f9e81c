"""`ScoringPolicy` with kept keys and values (`episode_cache`): a turn costs its new observation and the admissible
actions instead of the whole chat. Scores equal `ScoringPolicy`'s to about 1e-4.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from recsys.models.lengths import fed_length, projected, weight_of
from recsys.models.packed import block_mask, body_and_head
from recsys.models.tokenisation import encode_texts
from verbalize.agents.episode_cache import EpisodeCache
from verbalize.agents.language_policies import ScoringPolicy, end_of_turn
from verbalize.agents.policies import admissible_of
from verbalize.agents.rollouts import Situation


@dataclass(frozen=True, eq=False)
class CachedScoringPolicy(ScoringPolicy):
    """Chooses as `ScoringPolicy` does. The model's weights must not change while it is in use."""

    _cache: EpisodeCache = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_cache", EpisodeCache(self.tokenizer))

    def score(self, situations: Sequence[Situation]) -> list[np.ndarray]:
        """Per situation (A,) float64, in the order of its admissible actions. Episodes that are not asked about any
        more are forgotten."""
        self._cache.keep(situations)
        with torch.no_grad():
            return [self._score(situation) for situation in situations]

    def _score(self, situation: Situation) -> np.ndarray:
        end = [end_of_turn(self.tokenizer)]
        branches = [ids + end for ids in encode_texts(self.tokenizer, admissible_of(situation))]
        ids = self._cache.prompt(situation)
        body, head = body_and_head(self.model)
        cache, common = self._cache.begin(body, situation, ids, max(map(len, branches)))
        logprobs = _branch_logprobs(body, head, cache, ids[common:], common, branches)
        self._cache.end(situation, ids, cache)
        return np.array([float(row.mean() if self.config.per_token else row.sum()) for row in logprobs])


def _branch_logprobs(
    body: Any, head: Any, cache: DynamicCache, new: list[int], start: int, branches: list[list[int]]
) -> list[torch.Tensor]:
    """Log-probabilities of each branch's tokens after the `start` tokens in the cache and the `new` ones, which it
    then holds, followed by the branches and what rounds their length up.
    """
    weight = weight_of(body)
    device = weight.device
    ids, places, segments = list(new), list(range(start, start + len(new))), [0] * len(new)
    rows, tokens = [], []  # of each branch token: the fed position that predicts it, and the token
    for number, branch in enumerate(branches, start=1):
        own = len(ids)
        rows += [len(new) - 1, *range(own, own + len(branch) - 1)]
        tokens += branch
        ids += branch[:-1]
        places += range(start + len(new), start + len(new) + len(branch) - 1)
        segments += [number] * (len(branch) - 1)
    more = fed_length(len(ids), weight) - len(ids)
    ids, places, segments = ids + [ids[-1]] * more, places + [0] * more, segments + [-1] * more
    own_mask = block_mask(torch.tensor([segments], device=device), weight.dtype)  # (1, 1, n, n)
    mask = torch.cat([own_mask.new_zeros(1, 1, len(ids), start), own_mask], dim=-1)  # all see what the cache holds
    hidden = body(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([places], device=device),
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state[0]
    first = len(new) - 1  # nothing is read before the last token of the prompt
    logprobs = torch.log_softmax(projected(head, hidden[first : len(ids) - more]).float(), dim=-1)
    picked = logprobs[torch.tensor(rows, device=device) - first, torch.tensor(tokens, device=device)]
    return list(picked.split([len(branch) for branch in branches]))
