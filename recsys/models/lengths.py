"""How long a row is fed: in bfloat16 on a CPU lengths are rounded up, so that few different ones occur.

There torch keeps what it prepared for every shape that it has multiplied, a few megabytes for each new length of text:
a process that reads texts of ever new lengths grows by gigabytes an hour and becomes slower. float32 and GPUs need
nothing of the kind.
"""

import torch
from torch import Tensor, nn

LENGTH_STEP = 32
ROUNDED_DTYPES = (torch.bfloat16,)


def fed_length(tokens: int, like: Tensor, positions: int | None = None) -> int:
    """`tokens`, or the next multiple of LENGTH_STEP where `like`, a weight or a hidden state, is of a rounded type on a
    CPU; not beyond the model's `positions`, where padding counts as text.

    >>> [fed_length(n, torch.empty(1, dtype=torch.bfloat16)) for n in (1, 32, 33)], fed_length(33, torch.empty(1))
    ([32, 32, 64], 33)
    """
    if like.dtype not in ROUNDED_DTYPES or like.device.type != "cpu":
        return tokens
    rounded = -(-tokens // LENGTH_STEP) * LENGTH_STEP
    return rounded if positions is None else max(tokens, min(rounded, positions))


def projected(head: nn.Module, hidden: Tensor) -> Tensor:
    """`head(hidden)`, (N, D) -> (N, V), of as many rows as `fed_length` says."""
    more = fed_length(len(hidden), hidden) - len(hidden)
    return head(nn.functional.pad(hidden, (0, 0, 0, more)))[: len(hidden)] if more else head(hidden)


def positions_of(model: nn.Module) -> int | None:
    """How many positions a model has, if it says so."""
    return getattr(model.config, "max_position_embeddings", None)


def weight_of(body: nn.Module) -> Tensor:
    """A weight of floating-point type: the type and device in which a model computes."""
    return next(parameter for parameter in body.parameters() if parameter.is_floating_point())
