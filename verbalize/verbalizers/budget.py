"""Prompts that fit: histories lose their oldest events until the prompt made from them is within a token budget.

Why here: trainers no longer truncate prompts, and truncating tokens would cut a slot or an instruction. What was
dropped is counted.
"""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from recsys.errors import InputError


def fit_to_budget(
    inputs: pl.DataFrame,
    prompt_tokens: Callable[[pl.DataFrame], Sequence[int]],
    budget: int,
    keep_at_most: int | None = None,
) -> tuple[pl.DataFrame, dict[str, int]]:
    """`inputs` with histories cut to their most recent events so that every prompt has at most `budget` tokens, and
    counts.

    `prompt_tokens` maps B inputs to the B lengths of their prompts in tokens. The number of events kept is found by
    bisection, which verifies what it returns and costs log2(H) calls; where a prompt may shrink when an event is
    added, the result still fits but need not be the longest that does. `keep_at_most` caps the events kept before any
    counting. Counts: `histories_cut`, `events_dropped` (by the budget, not by the cap). Raises InputError when a
    prompt with its newest event alone (or, for an empty history, with none) does not fit.
    """
    if keep_at_most is not None:
        inputs = inputs.with_columns(pl.col("history").list.tail(keep_at_most))
    lengths = inputs["history"].list.len().fill_null(0).cast(pl.Int64).to_numpy()
    fits = np.asarray(prompt_tokens(inputs), dtype=np.int64) <= budget
    low = np.where(fits, lengths, np.minimum(lengths, 1))  # known or, for the shortest, about to be shown to fit
    high = np.where(fits, lengths, np.maximum(lengths - 1, low))
    shortest = np.flatnonzero(~fits)
    if len(shortest):
        tokens = np.asarray(prompt_tokens(_tails(inputs, low, shortest)), dtype=np.int64)
        if (tokens > budget).any():
            worst = int(shortest[int(tokens.argmax())])
            raise InputError(
                f"a prompt of {int(tokens.max())} tokens (example {inputs['example_id'][worst]})",
                f"exceeds the budget of {budget} tokens even with a single event",
                "raise the token budget or shorten the instruction",
            )
    while len(open_rows := np.flatnonzero(low < high)):
        middle = (low + high + 1) // 2
        tokens = np.asarray(prompt_tokens(_tails(inputs, middle, open_rows)), dtype=np.int64)
        inside = tokens <= budget
        low[open_rows[inside]] = middle[open_rows[inside]]
        high[open_rows[~inside]] = middle[open_rows[~inside]] - 1
    counts = {"histories_cut": int((low < lengths).sum()), "events_dropped": int((lengths - low).sum())}
    return _tails(inputs, low, np.arange(len(inputs))), counts


def _tails(inputs: pl.DataFrame, kept: np.ndarray, rows: np.ndarray) -> pl.DataFrame:
    """The given rows with histories cut to their last `kept[row]` events."""
    tails = pl.Series("kept", kept, dtype=pl.Int64)
    return inputs.with_columns(history=pl.col("history").list.tail(pl.lit(tails)))[rows]
