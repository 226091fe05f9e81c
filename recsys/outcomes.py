"""One outcome per example and arm, out of decisions: averaged over an example's slates, then over seeds.

A frame of decisions needs example_id, user_id, verbalizer, recommender, seed, rank and, for chance levels, either
`scores` or `slate_size`; `slate_index` where there are redraws. Small recorded artefacts can therefore be recomputed
too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from recsys.errors import InputError
from recsys.metrics import chance_level, expression


class Arm(NamedTuple):
    """A verbalizer read by a recommender. `Arm(*tuple_of_two)` works wherever an arm is named."""

    verbalizer: str
    recommender: str

    def __str__(self) -> str:
        return f"{self.verbalizer} × {self.recommender}"


def arms(decisions: pl.DataFrame) -> list[Arm]:
    """The arms present, sorted."""
    return [
        Arm(*row)
        for row in decisions.select("verbalizer", "recommender").unique().sort("verbalizer", "recommender").rows()
    ]


def seed_outcomes(decisions: pl.DataFrame, metric: str) -> pl.DataFrame:
    """verbalizer, recommender, seed, example_id, user_id, value, chance: averaged over slates. Sorted by these keys."""
    sized = _with_slate_size(decisions)
    levels = {size: chance_level(metric, size) for size in sized["slate_size"].unique().to_list()}
    keys = ["verbalizer", "recommender", "seed", "example_id"]
    return (
        sized.group_by(keys)
        .agg(
            pl.col("user_id").first(),
            value=expression(metric).mean(),
            chance=pl.col("slate_size").replace_strict(levels, return_dtype=pl.Float64).mean(),
        )
        .sort(keys)
    )


def outcomes(decisions: pl.DataFrame, metric: str) -> pl.DataFrame:
    """verbalizer, recommender, example_id, user_id, value, chance: averaged over slates, then seeds.

    Raises InputError when the seeds of an arm do not rank the same examples: their average would mix arms and examples.
    """
    frame = seed_outcomes(decisions, metric)
    keys = ["verbalizer", "recommender"]
    complete = frame.group_by(keys).agg(
        pl.len(), pl.col("seed").n_unique().alias("seeds"), pl.col("example_id").n_unique().alias("examples")
    )
    uneven = complete.filter(pl.col("len") != pl.col("seeds") * pl.col("examples"))
    if uneven.height:
        row = uneven.row(0, named=True)
        raise InputError(
            f"arm {Arm(row['verbalizer'], row['recommender'])}: {row['len']} outcomes from {row['seeds']} seeds and "
            f"{row['examples']} examples",
            "each seed of an arm must rank the same examples",
            "finish the evaluation of every seed",
        )
    keys.append("example_id")
    return frame.group_by(keys).agg(pl.col("user_id").first(), pl.col("value", "chance").mean()).sort(keys)


def paired_outcomes(decisions: pl.DataFrame, chosen: Sequence[tuple[str, str]], metric: str) -> pl.DataFrame:
    """example_id, user_id, chance, and columns "0", "1", ..., one per arm; InputError unless their slates agree."""
    present, first = set(arms(decisions)), None
    joined: pl.DataFrame | None = None
    keys = ["example_id", "slate_index"] if "slate_index" in decisions.columns else ["example_id"]
    shape = ["slate_size", "target_index"] if "target_index" in decisions.columns else ["slate_size"]
    decisions = _with_slate_size(decisions)
    for place, arm in enumerate(Arm(*names) for names in chosen):
        if arm not in present:
            raise InputError(
                f"arm {arm}", "is not among the decisions", f"name one of {[str(other) for other in sorted(present)]}"
            )
        mine = decisions.filter(pl.col("verbalizer") == arm.verbalizer, pl.col("recommender") == arm.recommender)
        ranked = mine.select(*keys, *shape).unique().sort(keys)
        first = ranked if first is None else first
        if not ranked.equals(first):
            raise InputError(
                f"arms {Arm(*chosen[0])} and {arm}",
                f"ranked different examples or slates ({first.height} and {ranked.height} rankings)",
                "evaluate both on the same examples and slates",
            )
        column = outcomes(mine, metric).select("example_id", "user_id", "chance", pl.col("value").alias(str(place)))
        joined = column if joined is None else joined.join(column.select("example_id", str(place)), on="example_id")
    if joined is None:
        raise InputError("no arms", "a comparison needs at least one arm", "name the arms")
    return joined.sort("example_id")


def seed_means(decisions: pl.DataFrame, metric: str) -> dict[Arm, dict[int, float]]:
    """Mean per arm and training seed, each seed shown beside their average."""
    frame = seed_outcomes(decisions, metric).group_by("verbalizer", "recommender", "seed").agg(pl.col("value").mean())
    means: dict[Arm, dict[int, float]] = {}
    for verbalizer, recommender, seed, value in frame.sort("verbalizer", "recommender", "seed").rows():
        means.setdefault(Arm(verbalizer, recommender), {})[seed] = value
    return means


def _with_slate_size(decisions: pl.DataFrame) -> pl.DataFrame:
    size = pl.col("slate_size") if "slate_size" in decisions.columns else pl.col("scores").list.len()
    return decisions.with_columns(slate_size=size.cast(pl.Int64))
