"""Several processes of one run, as `accelerate launch` and torchrun start them: the first leads, the others help train.

A launcher tells each process its number (`RANK`) and how many there are (`WORLD_SIZE`); without one there is a single
process, and everything here does nothing. The leader alone holds locks, writes files and decides, and shares what it
decided. Waiting costs no computation and may take as long as a stage does. When a process fails, the launcher ends the
others.
"""

import datetime as dt
import os
from collections.abc import Sequence
from typing import Any, TypeVar

from recsys.errors import InputError

PATIENCE = dt.timedelta(days=7)
"""How long helpers wait for a leader that is busy alone."""

T = TypeVar("T")


def process_count() -> int:
    """Processes of this run; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leads() -> bool:
    """Whether this process is the first one, or the only one."""
    return process_count() == 1 or int(os.environ.get("RANK", "0")) == 0


def share(value: T) -> T:
    """The leader's value, once every process has come here."""
    if process_count() == 1:
        return value
    box = [value]
    _group().broadcast_object_list(box, src=0)
    return box[0]


def gather(values: Sequence[T]) -> list[T]:
    """The values of all processes, the leader's first, in every process."""
    if process_count() == 1:
        return list(values)
    boxes: list[Any] = [None] * process_count()
    _group().all_gather_object(boxes, list(values))
    return [value for box in boxes for value in box]


def part_of(total: int, name: str) -> int:
    """Each process's equal part of a number. Raises InputError when it cannot be split so."""
    count = process_count()
    if total % count:
        raise InputError(
            f"{name} = {total} with {count} processes",
            "every process takes the same number of prompts",
            f"choose a multiple of {count}, or start another number of processes",
        )
    return total // count


def leave() -> None:
    """Leave the others, after the last word between them."""
    if process_count() > 1:
        _group().destroy_process_group()


def _group() -> Any:
    """torch.distributed, joined on first use: the trainers, which come later, take the group that there is."""
    import torch
    import torch.distributed as group

    if not group.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))  # what "cuda" then means
        group.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    return group
