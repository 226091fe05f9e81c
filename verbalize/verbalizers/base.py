"""The verbalizer protocol and its guard: a verbalizer sees history and cutoff, never the target or the slate.

One more column may stand beside them: `memory`, text that a policy's prompt shows besides the history. Only
`verbalize.experience.verbalizer` writes it, from other users' records known before the cutoff; templates and executed
actions do not read it.
"""

from typing import Protocol, runtime_checkable

import polars as pl

from recsys.errors import InputError

INPUT_COLUMNS = ("example_id", "cutoff_time", "history")
MEMORY = "memory"
_UNSLOTTED = str.maketrans("<>", "‹›")


@runtime_checkable
class Verbalizer(Protocol):
    """Histories to texts, deterministic given its seed."""

    name: str

    def verbalize(self, inputs: pl.DataFrame) -> list[str]:
        """B rows of `INPUT_COLUMNS` -> B texts, in row order. Extra columns but `MEMORY` raise InputError (see
        `guard_inputs`).
        """
        ...


def guard_inputs(inputs: pl.DataFrame) -> pl.DataFrame:
    """Return `inputs` unchanged, or raise InputError when a column is missing or one more than allowed is present."""
    extra = [name for name in inputs.columns if name not in (*INPUT_COLUMNS, MEMORY)]
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


def memories(inputs: pl.DataFrame) -> list[str]:
    """What each of B prompts is to show besides the history, made safe; "" where there is nothing."""
    if MEMORY not in inputs.columns:
        return [""] * len(inputs)
    return [safe_memory(text) for text in inputs[MEMORY].fill_null("")]


def safe_memory(text: str) -> str:
    """The same without "<" and ">", as in sanitised titles: remembered text completes no slot marker and no special
    token. Idempotent.
    """
    return text.translate(_UNSLOTTED)


def without_memory(inputs: pl.DataFrame) -> pl.DataFrame:
    """The same inputs as a policy without memory sees them: what histories are cut by."""
    return inputs.drop(MEMORY, strict=False)
