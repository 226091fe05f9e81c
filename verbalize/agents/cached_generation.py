"""`GeneratingPolicy` with kept keys and values (`episode_cache`): a turn costs its new observation and the action.

Episodes are decoded one after another, each a batch of its own, so that what one becomes does not depend on who else
plays. The likeliest token is taken every time; draws are left to `GeneratingPolicy`, which training uses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from recsys.errors import InputError
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
        self._cache.keep(situations)
        with torch.no_grad():
            return [read_action(self.tokenizer, self._write(situation)) for situation in situations]

    def _write(self, situation: Situation) -> list[int]:
        """The tokens of the action, without the one that ends the turn."""
        ids, end = self._cache.prompt(situation), end_of_turn(self.tokenizer)
        body, head = body_and_head(self.model)
        cache, common = self._cache.begin(body, situation, ids, self.config.max_new_tokens)
        written: list[int] = []
        fed = ids[common:]
        while len(written) < self.config.max_new_tokens:
            token = int(head(read(body, fed, cache)[-1]).argmax())
            if token == end:
                break
            written.append(token)
            fed = [token]
        self._cache.end(situation, ids, cache)
        return written
