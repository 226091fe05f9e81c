"""A turn as a training sample: its prompt, the actions it could take, the one taken; and what a model says of it.

Acting and learning go through the same functions, so there is no second definition of the policy that could drift away
from the first. Two policies:

    score     π(a) = softmax(s(a) / temperature) over the admissible actions, s(a) = log p(a, end of turn | chat),
              summed or averaged over tokens: one log-probability and one entropy a turn, both exact
    generate  tokens sampled freely; a log-probability and an entropy per token

Prompts are fitted to a budget by leaving out the oldest turns after the first observation, which states the goal.
Turns that share prompt and actions (the first turns of a game's episodes, at least) are computed once, and a turn
whose prompt begins a later one's shares its tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from recsys.errors import InputError
from recsys.models.branching import sample_branches
from recsys.models.chat import encode_chat
from recsys.models.packed import packed_logprobs, packed_tokens
from recsys.models.packing import PackedRequest, prefix_chains
from recsys.models.tokenisation import encode_texts
from recsys.seeding import rng
from verbalize.agents.language_policies import end_of_turn, read_action
from verbalize.agents.policies import admissible_of
from verbalize.agents.rollouts import Situation


@dataclass(frozen=True)
class ActingSettings:
    """How turns are taken (see the module); `temperature` 0 takes the best action."""

    acting: Literal["score", "generate"] = "score"
    temperature: float = 1.0
    per_token: bool = False
    max_new_tokens: int = 16
    prompt_budget: int = 512
    token_budget: int = 2048


@dataclass(frozen=True)
class Choice:
    """Token ids: `prompt` (P,), the `branches` to choose from, each with its end of turn, and which one was chosen. A
    generated action is the only branch."""

    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]
    chosen: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that a forward pass feeds for it."""
        return len(self.prompt) + sum(len(branch) - 1 for branch in self.branches)


Key = tuple[str, int, int]
"""Task, attempt and number of a turn."""


class TurnPolicy:
    """Acts with a language model and keeps every turn it took in `taken`, when scoring with its entropy in `entropies`.
    `seed` names its draws when scoring; free generation draws from torch's generator."""

    def __init__(self, model: Any, tokenizer: Any, settings: ActingSettings, seed: int = 0) -> None:
        self.model, self.tokenizer, self.settings, self.seed = model, tokenizer, settings, seed
        self.taken: dict[Key, Choice] = {}
        self.entropies: list[float] = []

    def act(self, situations: Sequence[Situation]) -> list[str]:
        prompts = [
            tuple(fitted_ids(self.tokenizer, situation.chat, self.settings.prompt_budget)) for situation in situations
        ]
        acting = self._score if self.settings.acting == "score" else self._generate
        actions, choices = acting(situations, prompts)
        for situation, choice in zip(situations, choices, strict=True):
            self.taken[situation.task.id, situation.attempt, situation.turn] = choice
        return actions

    def _score(
        self, situations: Sequence[Situation], prompts: Sequence[tuple[int, ...]]
    ) -> tuple[list[str], list[Choice]]:
        end = end_of_turn(self.tokenizer)
        offered = []
        for situation, prompt in zip(situations, prompts, strict=True):
            encoded = encode_texts(self.tokenizer, admissible_of(situation))
            offered.append(Choice(prompt, tuple((*ids, end) for ids in encoded)))
        with torch.no_grad():
            rows = action_scores(self.model, offered, self.settings.per_token, self.settings.token_budget)
        actions, choices = [], []
        for situation, choice, scores in zip(situations, offered, rows, strict=True):
            chosen = self._choose(situation, scores)
            self.entropies.append(
                float(entropy(torch.log_softmax(scores / (self.settings.temperature or 1.0), dim=-1)))
            )
            actions.append(admissible_of(situation)[chosen])
            choices.append(Choice(choice.prompt, choice.branches, chosen))
        return actions, choices

    def _choose(self, situation: Situation, scores: Tensor) -> int:
        values = scores.double().cpu().numpy()
        if self.settings.temperature == 0:
            return int(values.argmax())
        draws = rng(self.seed, "turn-policy", situation.task.id, situation.attempt, situation.turn)
        # The largest of log-probabilities with Gumbel noise is a draw from their softmax.
        return int((values / self.settings.temperature + draws.gumbel(size=len(values))).argmax())

    def _generate(
        self, situations: Sequence[Situation], prompts: Sequence[tuple[int, ...]]
    ) -> tuple[list[str], list[Choice]]:
        members: dict[tuple[int, ...], list[int]] = {}
        for number, prompt in enumerate(prompts):
            members.setdefault(prompt, []).append(number)
        temperature = self.settings.temperature
        samples = sample_branches(
            self.model,
            list(members),
            [len(numbers) for numbers in members.values()],
            self.settings.max_new_tokens,
            [end_of_turn(self.tokenizer)],
            (lambda logits: logits / temperature) if temperature else None,
            greedy=temperature == 0,
        )
        written: dict[int, Choice] = {}
        for (prompt, numbers), drawn in zip(members.items(), samples, strict=True):
            for number, sample in zip(numbers, drawn, strict=True):
                written[number] = Choice(prompt, (tuple(sample.tokens),))
        choices = [written[number] for number in range(len(situations))]
        return [read_action(self.tokenizer, choice.branches[0]) for choice in choices], choices


def fitted_ids(tokenizer: Any, chat: Sequence[dict[str, str]], budget: int) -> list[int]:
    """Ids of the chat that asks for an action, fitted to the budget; see `fitted_chat`."""
    return _fitted(tokenizer, chat, budget)[1]


def fitted_chat(tokenizer: Any, chat: Sequence[dict[str, str]], budget: int) -> list[dict[str, str]]:
    """The chat such that asking for an action takes at most `budget` tokens: system message and first observation stay,
    as do the most recent turns that fit. Raises InputError when the first and the present observation do not."""
    return _fitted(tokenizer, chat, budget)[0]


def _fitted(tokenizer: Any, chat: Sequence[dict[str, str]], budget: int) -> tuple[list[dict[str, str]], list[int]]:
    head = 2 if chat and chat[0]["role"] == "system" else 1
    kept = list(chat)
    while len(ids := encode_chat(tokenizer, kept, add_generation_prompt=True)) > budget:
        if len(kept) < head + 4:  # what is left out is an action and the observation that answered it
            raise InputError(
                f"a prompt of {len(ids)} tokens without its earlier turns",
                f"does not fit into prompt_budget = {budget}",
                "raise prompt_budget, or lower memory_budget",
            )
        del kept[head : head + 2]
    return kept, ids


def action_scores(model: Any, choices: Sequence[Choice], per_token: bool, token_budget: int) -> list[Tensor]:
    """Per choice (A,) float32: log p(action, end of turn | prompt), summed or averaged over tokens. Gradients flow when
    enabled."""
    distinct = list(dict.fromkeys((choice.prompt, choice.branches) for choice in choices))
    rows = packed_logprobs(model, [PackedRequest(*request) for request in distinct], token_budget)
    scores = {
        request: torch.stack([tokens.mean() if per_token else tokens.sum() for tokens in row])
        for request, row in zip(distinct, rows, strict=True)
    }
    return [scores[choice.prompt, choice.branches] for choice in choices]


def choice_logprobs(model: Any, choices: Sequence[Choice], settings: ActingSettings) -> tuple[Tensor, Tensor]:
    """B scored choices -> (B, 1) log-probabilities of what was chosen and (B, 1) entropies, over admissible actions."""
    rows = action_scores(model, choices, settings.per_token, settings.token_budget)
    logprobs = [torch.log_softmax(row / settings.temperature, dim=-1) for row in rows]
    chosen = torch.stack([row[choice.chosen] for row, choice in zip(logprobs, choices, strict=True)])
    entropies = torch.stack([entropy(row) for row in logprobs])
    return chosen[:, None], entropies[:, None]


def entropy(logprobs: Tensor) -> Tensor:
    """(A,) log-probabilities -> their entropy in nats, at most log A."""
    return -(logprobs.exp() * logprobs).sum()


def text_logprobs(model: Any, choices: Sequence[Choice], settings: ActingSettings, width: int) -> tuple[Tensor, Tensor]:
    """B generated choices -> (B, width) log-probabilities and entropies of their tokens; 0 beyond their end."""
    branches: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for choice in choices:
        written = branches.setdefault(choice.prompt, [])
        if choice.branches[0] not in written:
            written.append(choice.branches[0])
    rows = packed_tokens(
        model,
        [PackedRequest(prompt, written) for prompt, written in branches.items()],
        settings.token_budget,
        temperature=settings.temperature,
        entropies=True,
    )
    said = {
        (prompt, branch): tokens
        for (prompt, written), row in zip(branches.items(), rows, strict=True)
        for branch, tokens in zip(written, row, strict=True)
    }
    logprobs, entropies = [], []
    for choice in choices:
        tokens = said[choice.prompt, choice.branches[0]]
        padding = (0, width - len(tokens.logprobs))
        assert tokens.entropies is not None
        logprobs.append(torch.nn.functional.pad(tokens.logprobs, padding))
        entropies.append(torch.nn.functional.pad(tokens.entropies, padding))
    return torch.stack(logprobs), torch.stack(entropies)


def portions(choices: Sequence[Choice], token_budget: int) -> list[list[int]]:
    """Positions in portions whose distinct trunks and branches hold at most `token_budget` tokens together (at least
    one prompt each), longest first; choices of one prompt stay together, and so do those whose prompts begin one of
    them, as far as they fit.

    >>> short, long, other = Choice((1, 2), ((3, 5), (4,))), Choice((1, 2, 3), ((3,),)), Choice((6, 7, 8), ((9,),))
    >>> [portions([short, long, short, other], budget) for budget in (3, 4, 9)]
    [[[1], [0, 2], [3]], [[1, 0, 2], [3]], [[1, 0, 2, 3]]]
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for number, choice in enumerate(choices):
        members.setdefault(choice.prompt, []).append(number)
    prompts = list(members)
    groups: list[tuple[int, list[int]]] = []  # tokens and positions
    for chain in prefix_chains(prompts):
        size, together = 0, list[int]()
        for prompt in (prompts[place] for place in chain):
            behind = sum(
                len(branch) - 1 for branch in {b for number in members[prompt] for b in choices[number].branches}
            )
            if together and size + behind > token_budget:
                groups.append((size, together))
                together = []
            size = size + behind if together else len(prompt) + behind
            together = together + members[prompt]
        groups.append((size, together))
    found: list[list[int]] = []
    room = 0
    for size, together in sorted(groups, key=lambda group: -group[0]):
        if not found or size > room:
            found.append([])
            room = token_budget
        found[-1] += together
        room -= size
    return found
