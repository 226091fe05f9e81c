"""The policy that is judged: the trained one's best actions, with keys and values kept from turn to turn.

In training every turn is computed by the functions that learn from it. Judging needs no gradient, so what a chat has in
common with its last turn is not computed again, which without lessons saves about two thirds of the tokens of a game;
lessons stand in the system message, and where they change from step to step, the chat is computed anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from verbalize.agents.agent_trainer_turns import ActingSettings, TurnPolicy, fitted_chat
from verbalize.agents.cached_scoring import CachedScoringPolicy
from verbalize.agents.language_policies import ActingConfig
from verbalize.agents.rollouts import Policy, Situation


@dataclass(frozen=True, eq=False)
class FittedPolicy:
    """`policy`, shown chats that are fitted to `budget` tokens as in training."""

    policy: Policy
    tokenizer: Any
    budget: int

    def act(self, situations: Sequence[Situation]) -> list[str]:
        return self.policy.act(
            [
                replace(situation, chat=fitted_chat(self.tokenizer, situation.chat, self.budget))
                for situation in situations
            ]
        )


def judged_policy(model: Any, tokenizer: Any, settings: ActingSettings) -> Policy:
    """A policy that acts as `TurnPolicy` does with `settings`, up to the rounding of its scores (about 1e-4). The
    model's weights must not change while it is in use."""
    if settings.acting == "generate" or settings.temperature > 0:
        return TurnPolicy(model, tokenizer, settings)
    scoring = CachedScoringPolicy(model, tokenizer, ActingConfig(per_token=settings.per_token))
    return FittedPolicy(scoring, tokenizer, settings.prompt_budget)
