"""Rollouts of one prompt belong together: what trainers that compute a prompt once for its whole group share."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import split_tensor_dict


class WholeGroups:
    """Mixin before a TRL trainer: the rollouts of a generation are not shuffled over the micro-batches of a step.

    A micro-batch must hold whole groups for their forward to be shared. The gradients of a step are sums over its
    micro-batches, so the update is that of stock TRL.
    """

    _buffered_inputs: Any

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        trainer: Any = self
        if not trainer.model.training:
            return super()._prepare_inputs(generation_batch)  # type: ignore[misc]
        slices = trainer.args.steps_per_generation
        if trainer._step % (slices * trainer.num_iterations) == 0 or self._buffered_inputs is None:
            self._buffered_inputs = split_tensor_dict(trainer._generate_and_score_completions(generation_batch), slices)
        return self._buffered_inputs[trainer._step % slices]


def group_equal(prompts: list[list[int]]) -> list[tuple[list[int], list[int]]]:
    """Distinct prompts in order of appearance, each with the rows that hold it.

    >>> group_equal([[1], [1], [2], [1]])
    [([1], [0, 1, 3]), ([2], [2])]
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        members.setdefault(tuple(prompt), []).append(index)
    return [(list(prompt), rows) for prompt, rows in members.items()]


def split_padded(input_ids: Tensor, attention_mask: Tensor, keep: int) -> tuple[list[list[int]], list[list[int]]]:
    """(B, P + C) ids with prompts padded to the left, completions to the right -> B prompts, B completions unpadded."""
    mask = attention_mask.bool()
    rows = list(zip(input_ids, mask, strict=True))
    prompts = [row[:-keep][seen[:-keep]].tolist() for row, seen in rows]
    completions = [row[-keep:][seen[-keep:]].tolist() for row, seen in rows]
    return prompts, completions


def through_forward(model: Any, compute: Callable[[], Any]) -> Any:
    """`compute()`, run inside the call of a distributed model.

    Data-parallel wrappers prepare the exchange of gradients when the model is called; work on its inner layers alone
    would leave every process with gradients of its own. Without such a wrapper this is `compute()`.
    """
    if not isinstance(model, torch.nn.parallel.DistributedDataParallel):
        return compute()
    inner = model.module.get_base_model() if hasattr(model.module, "get_base_model") else model.module
    stock = inner.forward

    def instead(*unused: Any, **unread: Any) -> Any:
        inner.forward = stock  # `compute` may call it
        return compute()

    inner.forward = instead
    try:
        return model()
    finally:
        inner.forward = stock
