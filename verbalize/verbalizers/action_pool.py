"""Scripted action sequences: the pool from which the warm start picks each training example's best, and whose
headroom is measured.

Every candidate is an action list that `actions.execute` can carry out and the policy can emit, so whatever the pool
wins is within the policy's reach.
"""

from collections.abc import Sequence

import polars as pl

from recsys.errors import InputError
from recsys.seeding import rng
from verbalize.verbalizers import template_expressions as expressions
from verbalize.verbalizers.actions import (
    CONSTANT_POLICIES,
    DROP,
    KEEP,
    KEEP_METADATA,
    ActionConfig,
    constant_actions,
    execute,
    history_lengths,
    shown_history,
)
from verbalize.verbalizers.base import guard_inputs

_AGE = pl.col("length") - 1 - pl.col("place")  # 0 is the newest event


def _keep_if(condition: pl.Expr, symbol: int = KEEP) -> pl.Expr:
    return pl.when(condition).then(symbol).otherwise(DROP)


CANDIDATES: dict[str, pl.Expr] = {
    "keep_all": pl.lit(KEEP),
    "keep_all_metadata": pl.lit(KEEP_METADATA),
    "recent_3": _keep_if(_AGE < 3),
    "recent_5": _keep_if(_AGE < 5),
    "recent_5_metadata": _keep_if(_AGE < 5, KEEP_METADATA),
    "recent_half_metadata": pl.when(pl.col("length") > _AGE * 2).then(KEEP_METADATA).otherwise(KEEP),
    "liked_only": _keep_if(pl.col("liked")),
    "liked_metadata": _keep_if(pl.col("liked"), KEEP_METADATA),
    "top_genre_metadata": _keep_if(pl.col("in_top_genre"), KEEP_METADATA),
    "alternate": _keep_if(_AGE % 2 == 0),
    "random_half": _keep_if(pl.col("draw") < 0.5),
    "random_half_metadata": _keep_if(pl.col("draw") >= 0.5, KEEP_METADATA),
}
"""Name -> the symbol of one event, an expression over `events_frame`.

liked: rating at least the mean of the shown history; without a rating, completion >= 0.5; without either, yes.
top genre: the history's most frequent one (first by name among equals); events without genres are not in it, and a
history without any genre keeps everything. random_half and random_half_metadata are complements of one seeded draw.
"""


def events_frame(inputs: pl.DataFrame, config: ActionConfig, seed: int) -> pl.DataFrame:
    """One row per shown event: row, place (0 oldest), length, liked, in_top_genre, seeded draw in [0, 1)."""
    history = pl.col("history")
    lengths = history_lengths(inputs, config)
    draws = [
        rng(seed, "action-pool", key).random(n).tolist() for key, n in zip(inputs["example_id"], lengths, strict=True)
    ]
    top_genre = expressions.genre_counts(history, 1).list.first().struct[0]
    per_event = (
        guard_inputs(inputs)
        .with_columns(history=shown_history(config))
        .select(
            row=pl.int_range(pl.len()),
            history="history",
            place=pl.int_ranges(0, history.list.len()),
            length=history.list.len().cast(pl.Int64),
            mean_rating=history.list.eval(expressions.field("rating")).list.mean(),
            top_genre=top_genre,
            draw=pl.Series("draw", draws, dtype=pl.List(pl.Float64)),
        )
    )
    return (
        per_event.filter(pl.col("length") > 0)
        .explode("history", "place", "draw")
        .unnest("history")
        .select(
            "row",
            "place",
            "length",
            "draw",
            liked=pl.coalesce(pl.col("rating") >= pl.col("mean_rating"), pl.col("completion") >= 0.5, pl.lit(True)),
            in_top_genre=pl.col("genres").list.contains(pl.col("top_genre")).fill_null(False)
            | pl.col("top_genre").is_null(),
        )
    )


def candidate_actions(
    inputs: pl.DataFrame, config: ActionConfig, seed: int = 0, names: Sequence[str] | None = None
) -> dict[str, list[list[int]]]:
    """Action lists of every candidate (or of `names`) for B inputs: name -> B lists of H_b symbols.

    Deterministic given `seed`, and independent of which other rows are present. Raises InputError for an unknown name.
    """
    names = list(CANDIDATES) if names is None else list(names)
    unknown = [name for name in names if name not in CANDIDATES]
    if unknown:
        raise InputError(f"candidates {unknown}", "are not in the pool", f"use some of {', '.join(CANDIDATES)}")
    per_row = (
        events_frame(inputs, config, seed)
        .select("row", *(CANDIDATES[name].cast(pl.Int8).alias(name) for name in names))
        .group_by("row", maintain_order=True)
        .agg(names)
    )
    rows = pl.DataFrame({"row": pl.int_range(len(inputs), eager=True)})
    aligned = rows.join(per_row, on="row", how="left", maintain_order="left").with_columns(pl.col(names).fill_null([]))
    return {name: aligned[name].to_list() for name in names}


class ScriptedActionVerbalizer:
    """A constant policy or a candidate of the pool behind the verbalizer protocol, through the same executor as the
    learned policy.

    Raises InputError for an unknown name.
    """

    def __init__(self, name: str, config: ActionConfig, seed: int = 0) -> None:
        if name not in CANDIDATES and name not in CONSTANT_POLICIES:
            known = ", ".join(dict.fromkeys([*CONSTANT_POLICIES, *CANDIDATES]))
            raise InputError(f"action policy {name!r}", "is neither constant nor in the pool", f"use one of {known}")
        self.name, self.config, self.seed = name, config, seed

    def verbalize(self, inputs: pl.DataFrame) -> list[str]:
        """B rows of example_id, cutoff_time, history -> B texts, in row order."""
        guard_inputs(inputs)
        if self.name in CONSTANT_POLICIES:
            actions = constant_actions(self.name, history_lengths(inputs, self.config))
        else:
            actions = candidate_actions(inputs, self.config, self.seed, [self.name])[self.name]
        return execute(inputs, actions, self.config)
