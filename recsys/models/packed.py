"""One forward pass for many continuations of one prefix: the primitive behind slate scoring and shared-prefix rollouts.

A request is a prefix and its branches. The packed row is `prefix, branch_1, branch_2, ...`; an additive block mask lets
every branch see the prefix and itself only, and positions restart after the prefix for each branch, so the
log-probabilities equal those of separate sequences (rotary and learned positions alike) while the prefix is computed
once. Requests whose prefixes begin a longer one share its row (`recsys.models.packing`).

Differences from Prefix Grouper (arXiv 2506.05433): one mask instead of two attention calls, so any model that accepts
a 4-D mask works unpatched; the last token of a branch is never fed, as nothing is read from its output; and the
vocabulary projection (a fifth of the cost per token in a small model) runs only where a log-probability is needed.
The model's body and head are called directly, which also holds under PEFT (adapters sit inside the layers) and under
trainers that patch `forward`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from recsys.errors import InputError
from recsys.models.lengths import fed_length, positions_of, projected, weight_of
from recsys.models.packing import PackedRequest, Row, batches_of, check_requests, rows_of

HEAD_CHUNK = 256  # positions projected to the vocabulary at once: bounds memory at 256 x 49k floats (50 MB)


@dataclass(frozen=True)
class BranchTokens:
    """What a model says of a branch of C tokens: log-probabilities and, if asked for, entropies in nats, (C,) each."""

    logprobs: Tensor
    entropies: Tensor | None = None


def packed_logprobs(model: Any, requests: Sequence[PackedRequest], token_budget: int = 2048) -> list[list[Tensor]]:
    """Per-token log-probabilities: result[i][j] has shape (len(requests[i].branches[j]),), float32. See `packed_tokens`
    for the rest."""
    return [[branch.logprobs for branch in row] for row in packed_tokens(model, requests, token_budget)]


def packed_tokens(
    model: Any,
    requests: Sequence[PackedRequest],
    token_budget: int = 2048,
    *,
    temperature: float = 1.0,
    entropies: bool = False,
    entropy_gradients: bool = False,
) -> list[list[BranchTokens]]:
    """Log-probabilities and, if asked for, entropies of every branch's tokens, of softmax(logits / temperature).
    Entropies carry gradients only with `entropy_gradients`: they would keep one more (tokens, vocabulary) table alive.

    `token_budget` bounds the tokens of one forward pass, padding included: rows are sorted by length and batched up to
    it, and a row longer than that is split between branches, its prefix repeated. One prefix with one branch is never
    cut. Gradients flow when they are enabled by the caller. Raises InputError for an empty prefix, an empty branch or a
    sequence longer than the model's positions.
    """
    body, head = body_and_head(model)
    check_requests(requests, positions_of(body))
    project = _Projection(head, temperature, entropies, entropy_gradients)
    results = [[BranchTokens(torch.empty(0))] * len(request.branches) for request in requests]
    for batch in batches_of(rows_of(requests, token_budget), token_budget):
        for row, values in zip(batch, _forward(body, project, requests, batch), strict=True):
            for (request, branch), value in zip(row.chosen, values, strict=True):
                results[request][branch] = value
    return results


def reference_logprobs(model: Any, requests: Sequence[PackedRequest]) -> list[list[Tensor]]:
    """The same by definition: one full forward per branch. Slow; for tests and for distrust."""
    check_requests(requests, None)
    device = next(model.parameters()).device
    results = []
    for request in requests:
        values = []
        for branch in request.branches:
            ids = torch.tensor([[*request.prefix, *branch]], device=device)
            logits = model(input_ids=ids, use_cache=False).logits[0].float()
            logprobs = torch.log_softmax(logits, dim=-1)[len(request.prefix) - 1 : -1]
            values.append(logprobs.gather(1, ids[0, len(request.prefix) :, None])[:, 0])
        results.append(values)
    return results


def body_and_head(model: Any) -> tuple[nn.Module, nn.Module]:
    """The transformer without its head (ids -> hidden states) and the vocabulary projection, through PEFT wrappers.

    Raises InputError for models whose logits are more than `head(hidden)`: scaled or soft-capped logits, prompt
    learning.
    """
    adapters = getattr(model, "peft_config", {})
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = core.get_output_embeddings()
    remedy = "use a plain causal language model such as smollm2-135m"
    if any(getattr(config, "is_prompt_learning", False) for config in adapters.values()):
        raise InputError(
            "a prompt-learning adapter", "prepends virtual tokens that packed scoring does not know", "use LoRA"
        )
    for field in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(core.config, field, None) not in (None, 1, 1.0):
            raise InputError(f"{type(core).__name__} with {field}", "changes logits after the projection", remedy)
    if head is None or core.base_model is core:
        raise InputError(type(core).__name__, "has no separate body and vocabulary projection", remedy)
    return core.base_model, head


def _forward(
    body: nn.Module, project: "_Projection", requests: Sequence[PackedRequest], batch: list[Row]
) -> list[list[BranchTokens]]:
    """One pass over B rows padded to n tokens; per row, what is said of each branch."""
    weight = weight_of(body)
    n = fed_length(batch[0].length, weight, positions_of(body))
    ids, positions, segments, reach = ([] for _ in range(4))  # each B lists of n
    slots: list[int] = []  # flat positions (row * n + offset) whose next-token distribution is needed, each once
    picks: list[int] = []  # for every branch token: index into `slots`
    tokens: list[int] = []  # ... and the token itself
    for number, row in enumerate(batch):
        trunk = requests[row.trunk].prefix
        row_ids, row_positions, row_segments = list(trunk), list(range(len(trunk))), [0] * len(trunk)
        row_reach = [len(trunk)] * len(trunk)
        ends = sorted({len(requests[request].prefix) for request, _ in row.chosen})
        slot_after = {end: len(slots) + place for place, end in enumerate(ends)}  # what follows a prefix of that length
        slots += [number * n + end - 1 for end in ends]
        for segment, (request, branch) in enumerate(row.chosen, start=1):
            written, end = requests[request].branches[branch], len(requests[request].prefix)
            fed = len(written) - 1
            picks += [slot_after[end], *range(len(slots), len(slots) + fed)]
            tokens += written
            slots += range(number * n + len(row_ids), number * n + len(row_ids) + fed)
            row_ids += written[:-1]
            row_positions += range(end, end + fed)
            row_segments += [segment] * fed
            row_reach += [end] * fed
        padding = n - row.length
        ids.append(row_ids + [row_ids[-1]] * padding)
        positions.append(row_positions + [0] * padding)
        segments.append(row_segments + [-1] * padding)
        reach.append(row_reach + [0] * padding)

    at = partial(torch.tensor, device=weight.device)
    branching = any(max(row) > 0 for row in segments)
    hidden = body(
        input_ids=at(ids),
        # Without branch tokens the row is plain causal, and padding to the right is never seen: the faster kernel
        # serves, if nothing looks like several texts in one row.
        position_ids=at(positions) if branching else None,
        attention_mask=block_mask(at(segments), weight.dtype, at(reach)) if branching else None,
        use_cache=False,
    ).last_hidden_state  # (B, n, D)
    needed = hidden.reshape(-1, hidden.shape[-1])[at(slots)]  # (N, D)
    logprobs, entropies = project(needed, at(picks), at(tokens))
    lengths = [len(requests[request].branches[branch]) for row in batch for request, branch in row.chosen]
    spreads = entropies.split(lengths) if entropies is not None else [None] * len(lengths)
    pieces = (BranchTokens(*piece) for piece in zip(logprobs.split(lengths), spreads, strict=True))
    return [[next(pieces) for _ in row.chosen] for row in batch]


def block_mask(segments: Tensor, dtype: torch.dtype, reach: Tensor | None = None) -> Tensor:
    """(B, n) segment numbers (0 trunk, 1.. branches, -1 padding) -> additive mask (B, 1, n, n).

    A query sees keys at or before it that lie in its own segment, or in the trunk: in its first `reach` (B, n) tokens,
    or in all of it. The most negative finite number, not
    -inf: rows are never fully masked (every token sees itself), but kernels differ in how they treat infinities.
    """
    n = segments.shape[1]
    keys, queries = segments[:, None, :], segments[:, :, None]
    causal = torch.ones(n, n, dtype=torch.bool, device=segments.device).tril()
    trunk = keys == 0
    if reach is not None:
        trunk = trunk & (torch.arange(n, device=segments.device) < reach[:, :, None])
    seen = causal & ((keys == queries) | trunk)
    mask = torch.zeros(seen.shape, dtype=dtype, device=segments.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


@dataclass(frozen=True)
class _Projection:
    """Hidden states -> log-probabilities (and entropies) of chosen tokens in float32, HEAD_CHUNK positions at once."""

    head: nn.Module
    temperature: float
    entropies: bool
    entropy_gradients: bool

    def __call__(self, hidden: Tensor, picks: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """hidden (N, D); picks, tokens (T,): token t is read from the distribution at hidden[picks[t]] -> (T,) each."""
        order = torch.argsort(picks, stable=True)
        back = torch.argsort(order)
        picks, tokens = picks[order], tokens[order]
        starts = list(range(0, len(hidden), HEAD_CHUNK))
        edges = torch.searchsorted(picks, torch.tensor([*starts, len(hidden)], device=picks.device)).tolist()
        logprobs, entropies = [], []
        for start, low, high in zip(starts, edges, edges[1:], strict=False):
            logits = projected(self.head, hidden[start : start + HEAD_CHUNK]).float()  # (chunk, V)
            if self.temperature != 1.0:
                logits = logits / self.temperature
            rows = picks[low:high] - start
            normaliser = torch.logsumexp(logits, dim=-1)
            logprobs.append(logits[rows, tokens[low:high]] - normaliser[rows])
            if self.entropies:
                with torch.set_grad_enabled(self.entropy_gradients and torch.is_grad_enabled()):
                    means = (torch.softmax(logits, dim=-1) * logits).sum(dim=-1)
                    entropies.append((normaliser - means)[rows])
        return torch.cat(logprobs)[back], torch.cat(entropies)[back] if self.entropies else None
