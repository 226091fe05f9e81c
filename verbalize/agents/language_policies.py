"""A language model as policy: by the likelihood of the admissible actions, or by free generation.

Scoring computes a chat once and all actions behind it in the same forward pass (`recsys.models.packed`); generation
shares a chat's cache between its samples (`recsys.models.branching`). Situations with the same chat, as the attempts at
a task have in their first turn, are computed together in both.

An action is scored with the token that ends the turn: without it, an action that begins another (`take key`, `take key
from chest`) could never be less likely than it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from recsys.errors import InputError
from recsys.models.branching import sample_branches
from recsys.models.chat import encode_chat
from recsys.models.packed import packed_logprobs
from recsys.models.packing import PackedRequest
from recsys.models.tokenisation import encode_texts
from recsys.seeding import rng
from verbalize.agents.policies import admissible_of
from verbalize.agents.rollouts import Situation


@dataclass(frozen=True)
class ActingConfig:
    """`temperature` 0 takes the best action. Scoring: `per_token` divides an action's log-probability by its tokens, so
    that long actions are not at a disadvantage; `seed` of the draws; `token_budget` of a forward pass. Generation: at
    most `max_new_tokens` an action; draws come from torch's generator, as in training.
    """

    temperature: float = 0.0
    per_token: bool = False
    seed: int = 0
    token_budget: int = 8192
    max_new_tokens: int = 24

    def __post_init__(self) -> None:
        if self.temperature < 0 or min(self.token_budget, self.max_new_tokens) < 1:
            raise InputError(f"{self}", "temperature is at least 0, token counts at least 1", "correct the setting")


@dataclass(frozen=True, eq=False)
class ScoringPolicy:
    """Chooses among the admissible actions by log p(action, end of turn | chat)."""

    model: Any
    tokenizer: Any
    config: ActingConfig = ActingConfig()

    def act(self, situations: Sequence[Situation]) -> list[str]:
        return [
            self._choose(situation, scores)
            for situation, scores in zip(situations, self.score(situations), strict=True)
        ]

    def score(self, situations: Sequence[Situation]) -> list[np.ndarray]:
        """Per situation (A,) float64, in the order of its admissible actions."""
        keys = [(_prompt(self.tokenizer, situation), admissible_of(situation)) for situation in situations]
        distinct = list(dict.fromkeys(keys))
        end = [end_of_turn(self.tokenizer)]
        requests = [
            PackedRequest(prompt, [ids + end for ids in encode_texts(self.tokenizer, actions)])
            for prompt, actions in distinct
        ]
        with torch.no_grad():
            rows = packed_logprobs(self.model, requests, self.config.token_budget)
        scores = {
            key: np.array([float(logprobs.mean() if self.config.per_token else logprobs.sum()) for logprobs in row])
            for key, row in zip(distinct, rows, strict=True)
        }
        return [scores[key] for key in keys]

    def _choose(self, situation: Situation, scores: np.ndarray) -> str:
        actions = admissible_of(situation)
        if self.config.temperature == 0:
            return actions[int(scores.argmax())]
        draws = rng(self.config.seed, "scoring-policy", situation.task.id, situation.attempt, situation.turn)
        # The largest of log-probabilities with Gumbel noise is a draw from their softmax.
        return actions[int((scores / self.config.temperature + draws.gumbel(size=len(scores))).argmax())]


@dataclass(frozen=True, eq=False)
class GeneratingPolicy:
    """Writes its action freely; the first line that is not blank counts."""

    model: Any
    tokenizer: Any
    config: ActingConfig = ActingConfig()

    def act(self, situations: Sequence[Situation]) -> list[str]:
        members: dict[tuple[int, ...], list[int]] = {}
        for number, situation in enumerate(situations):
            members.setdefault(_prompt(self.tokenizer, situation), []).append(number)
        temperature = self.config.temperature
        samples = sample_branches(
            self.model,
            list(members),
            [1 if temperature == 0 else len(numbers) for numbers in members.values()],
            self.config.max_new_tokens,
            [end_of_turn(self.tokenizer)],
            (lambda logits: logits / temperature) if temperature else None,
            greedy=temperature == 0,
        )
        actions = [""] * len(situations)
        for numbers, drawn in zip(members.values(), samples, strict=True):
            texts = [read_action(self.tokenizer, sample.tokens) for sample in drawn]
            for place, number in enumerate(numbers):
                actions[number] = texts[place % len(texts)]  # greedy: one sample serves all
        return actions


def read_action(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The action in generated tokens: the first line that is not blank, or ""."""
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def end_of_turn(tokenizer: Any) -> int:
    """The token that ends a message. Raises InputError for a tokenizer without one."""
    if tokenizer.eos_token_id is None:
        raise InputError("tokenizer without an end token", "cannot tell where an action ends", "set its eos_token")
    return int(tokenizer.eos_token_id)


def _prompt(tokenizer: Any, situation: Situation) -> tuple[int, ...]:
    return tuple(encode_chat(tokenizer, situation.chat, add_generation_prompt=True))
