"""The verbalizer protocol and its guard: a verbalizer sees history and cutoff, never the target or the slate."""

from typing import Protocol, runtime_checkable

import polars as pl

from recsys.errors import InputError

INPUT_COLUMNS = ("example_id", "cutoff_time", "history")


@runtime_checkable
class Verbalizer(Protocol):
    """Histories to texts, deterministic given its seed."""

    name: str

    def verbalize(self, inputs: pl.DataFrame) -> list[str]:
        """B rows of `INPUT_COLUMNS` -> B texts, in row order. Extra columns raise InputError (see `guard_inputs`)."""
        ...


def guard_inputs(inputs: pl.DataFrame) -> pl.DataFrame:
    """Return `inputs` unchanged, or raise InputError when a column is missing or one more than allowed is present."""
    extra = [name for name in inputs.columns if name not in INPUT_COLUMNS]
    missing = [name for name in INPUT_COLUMNS if name not in inputs.columns]
    if extra:
        raise InputError(
            f"columns {extra}",
            "a verbalizer may see only the history and the cutoff, or the target leaks",
            "pass verbalizer_inputs(examples)",
        )
    if missing:
        raise InputError(f"columns {inputs.columns}", f"lack {missing}", "pass verbalizer_inputs(examples)")
    return inputs


def verbalizer_inputs(examples: pl.DataFrame) -> pl.DataFrame:
    """The part of an `examples` table that a verbalizer may see."""
    return examples.select(INPUT_COLUMNS)
