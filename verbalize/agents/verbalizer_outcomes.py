"""What the arms' texts were worth: means over examples, seeds averaged first, intervals over users.

All outcomes of a user move together in the bootstrap (`recsys.significance`); comparisons are paired by example.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.significance import bootstrap_means, interval
from verbalize.agents.verbalizer_arms import MEASURED

MEANS = (*MEASURED, "steps", "shown")


def by_example(judged: Mapping[tuple[str, int], pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Arm -> example_id, user_id and the MEANS of each example over the arm's seeds, sorted by example."""
    tables: dict[str, list[pl.DataFrame]] = {}
    for (arm, _), table in judged.items():
        tables.setdefault(arm, []).append(table.select("example_id", "user_id", *MEANS))
    return {
        arm: pl.concat(seeds).group_by("example_id", "user_id").agg(pl.col(MEANS).mean()).sort("example_id")
        for arm, seeds in tables.items()
    }


def summarise(table: pl.DataFrame) -> dict[str, dict[str, float | None]]:
    """Of each of the MEANS: value, low, high; without an interval where there is one user only."""
    users = table["user_id"].to_numpy()
    return {name: _mean(table[name].to_numpy(), users) for name in MEANS}


def compare(a: pl.DataFrame, b: pl.DataFrame, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """`a` minus `b`, example by example. Raises InputError when they are of other examples."""
    if not a["example_id"].equals(b["example_id"]):
        raise InputError(
            f"{len(a)} and {len(b)} examples", "a paired comparison needs the same ones in both", "judge both on them"
        )
    users = a["user_id"].to_numpy()
    return {name: _mean((a[name] - b[name]).to_numpy(), users) for name in names}


def _mean(values: np.ndarray, users: np.ndarray) -> dict[str, float | None]:
    means = bootstrap_means(values, users)
    ends = (None if math.isnan(end) else round(end, 6) for end in interval(means.draws[:, 0], means.n_users))
    return dict(zip(("value", "low", "high"), (round(float(means.estimate[0]), 6), *ends), strict=True))
