"""Many samples of one prompt, the prompt computed once: the rollouts of shared-prefix GRPO.

Stock generation repeats a prompt of P tokens G times: G prefills, and G copies of its keys and values that every
decoding step reads and moves. Here the G branches of a prompt live in *one* row of the cache: the prompt's P entries,
then the tokens of all branches, step by step. A decoding step feeds one token per live branch as a row of queries; an
additive mask lets a query see the prompt and the keys of its own branch, and all of them stand at the same position.
Any model that takes a 4-D mask works unpatched (as in `packed`, which computes the loss of the same shape).

Keys of other branches are computed and masked away: G (P + G C) scores per step instead of G (P + C). For verbalizers
(P about 1,000, C below 100) the prompt dominates. A branch that has ended is no longer fed. Rows hold different
prompts, padded to the left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from recsys.errors import InputError
from recsys.models.lengths import fed_length, positions_of, weight_of
from recsys.models.packed import block_mask, body_and_head

PADDING = -1  # owner of keys that nobody sees: left padding, and the slots of branches that have ended
PROMPT = 0  # owner of the prompt's keys, which every branch sees; branches own 1, 2, ...

Process = Callable[[Tensor], Tensor]
"""Logits (N, V) float32 -> logits to sample from, e.g. divided by a temperature and cut to a nucleus."""


@dataclass
class _Row:
    """One prompt and its branches while they grow."""

    prompt: Sequence[int]
    tokens: list[list[int]]
    logprobs: list[list[float]]
    live: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """One completion: token ids up to and including an end token, and the log-probability of each before `process`."""

    tokens: list[int]
    logprobs: list[float]


def sample_branches(
    model: Any,
    prompts: Sequence[Sequence[int]],
    counts: Sequence[int],
    max_new_tokens: int,
    end_tokens: Sequence[int],
    process: Process | None = None,
    *,
    greedy: bool = False,
    rows_per_batch: int = 4,
) -> list[list[Sample]]:
    """`counts[i]` completions of `prompts[i]` each: result[i][j].

    Draws from torch's global generator of the model's device, prompt by prompt within a batch of `rows_per_batch`
    prompts. `greedy` takes the likeliest token. Raises InputError for an empty prompt or more tokens than the model's
    positions.
    """
    body, head = body_and_head(model)
    positions = positions_of(body)
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise InputError(f"prompt {number}", "is empty, so nothing predicts its first token", "begin with a token")
        if positions is not None and len(prompt) + max_new_tokens > positions:
            raise InputError(
                f"prompt {number} with {len(prompt)} tokens and {max_new_tokens} to come",
                f"exceeds the model's {positions} positions",
                "shorten the prompt or the completion",
            )
    choose = _Chooser(process or (lambda logits: logits), greedy)
    ends = frozenset(end_tokens)
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))  # similar lengths share a batch
    results: list[list[Sample]] = [[] for _ in prompts]
    for start in range(0, len(order), rows_per_batch):
        chosen = order[start : start + rows_per_batch]
        rows = [
            _Row(prompts[number], [[] for _ in range(counts[number])], [[] for _ in range(counts[number])])
            for number in chosen
        ]
        with torch.no_grad():
            _decode(body, head, rows, max_new_tokens, ends, choose)
        for number, row in zip(chosen, rows, strict=True):
            results[number] = [Sample(*pair) for pair in zip(row.tokens, row.logprobs, strict=True)]
    return results


@dataclass(frozen=True)
class _Chooser:
    process: Process
    greedy: bool

    def __call__(self, logits: Tensor) -> list[tuple[int, float]]:
        """Logits (N, V) -> N token ids, each with its log-probability before `process`."""
        logits = logits.float()
        if self.greedy:
            chosen = logits.argmax(dim=-1)
        else:
            chosen = torch.multinomial(torch.softmax(self.process(logits), dim=-1), 1)[:, 0]
        logprobs = logits.gather(1, chosen[:, None])[:, 0] - torch.logsumexp(logits, dim=-1)
        return list(zip(chosen.tolist(), logprobs.tolist(), strict=True))


def _decode(
    body: Any, head: Any, rows: list[_Row], max_new_tokens: int, ends: frozenset[int], choose: _Chooser
) -> None:
    cache = DynamicCache()
    last, owners = _prefill(body, cache, rows)
    every = [(number, branch) for number, row in enumerate(rows) for branch in range(len(row.tokens))]
    logits = head(last)[torch.tensor([number for number, _ in every], device=last.device)]
    fed = every
    for _ in range(max_new_tokens):
        for (number, branch), (token, logprob) in zip(fed, choose(logits), strict=True):
            rows[number].tokens[branch].append(token)
            rows[number].logprobs[branch].append(logprob)
        for row in rows:
            row.live = [
                branch
                for branch, tokens in enumerate(row.tokens)
                if tokens[-1] not in ends and len(tokens) < max_new_tokens
            ]
        fed = [(number, branch) for number, row in enumerate(rows) for branch in row.live]
        if not fed:
            return
        hidden, owners = _step(body, cache, rows, owners)
        width = hidden.shape[1]
        places = [number * width + place for number, row in enumerate(rows) for place in range(len(row.live))]
        logits = head(hidden.reshape(-1, hidden.shape[-1])[torch.tensor(places, device=hidden.device)])


def _prefill(body: Any, cache: DynamicCache, rows: list[_Row]) -> tuple[Tensor, Tensor]:
    """Fills the cache with the prompts, padded to the left; last hidden states (R, D) and the keys' owners (R, P)."""
    weight = weight_of(body)
    device = weight.device
    longest = fed_length(max(len(row.prompt) for row in rows), weight)
    gaps = [longest - len(row.prompt) for row in rows]
    ids = [[row.prompt[0]] * gap + list(row.prompt) for gap, row in zip(gaps, rows, strict=True)]
    positions = [[0] * gap + list(range(len(row.prompt))) for gap, row in zip(gaps, rows, strict=True)]
    owners = torch.tensor([[PADDING] * gap + [PROMPT] * (longest - gap) for gap in gaps], device=device)
    hidden = body(
        input_ids=torch.tensor(ids, device=device),
        position_ids=torch.tensor(positions, device=device),
        attention_mask=block_mask(owners, weight.dtype) if any(gaps) else None,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return hidden[:, -1], owners


def _step(body: Any, cache: DynamicCache, rows: list[_Row], owners: Tensor) -> tuple[Tensor, Tensor]:
    """Feeds the last token of every live branch; hidden states (R, A, D), A the most live branches of a row."""
    device = owners.device
    width = max(len(row.live) for row in rows)
    ids, positions, queries = [], [], []
    for row in rows:
        gap = width - len(row.live)
        ids.append([row.tokens[branch][-1] for branch in row.live] + [row.prompt[0]] * gap)
        steps = len(row.tokens[row.live[0]]) if row.live else 1
        positions.append([len(row.prompt) + steps - 1] * width)
        queries.append([branch + 1 for branch in row.live] + [PADDING] * gap)
    asking = torch.tensor(queries, device=device)  # (R, A)
    owners = torch.cat([owners, asking], dim=1)  # (R, K)
    keys = owners[:, None, :]
    seen = (keys == PROMPT) | ((keys == asking[:, :, None]) & (keys != PADDING))  # (R, A, K)
    dtype = weight_of(body).dtype
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)
    hidden = body(
        input_ids=torch.tensor(ids, device=device),
        position_ids=torch.tensor(positions, device=device),
        attention_mask=mask[:, None],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return hidden, owners
