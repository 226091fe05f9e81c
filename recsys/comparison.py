"""Tables of results: arms with intervals, and one arm against another, with users as the unit that is resampled.

Everything derives from decisions (`outcomes` says which columns it takes); averaging over slates and seeds comes first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from recsys.errors import InputError
from recsys.metrics import chance_corrected
from recsys.outcomes import Arm, outcomes, paired_outcomes, seed_means
from recsys.significance import (
    RESAMPLES,
    bootstrap_means,
    effective_n,
    interval,
    p_value,
    relative_draws,
    simultaneous_differences,
)

DEFAULT_METRICS = ("recall@1", "recall@3", "mrr", "ndcg@10")


@dataclass(frozen=True)
class Comparison:
    """Arm a against arm b on the same examples. `value`, `low`, `high` are a - b, or a / b - 1 when `relative`."""

    a: Arm
    b: Arm
    metric: str
    relative: bool
    value: float
    low: float
    high: float
    p: float
    n: int
    users: int
    n_effective: float
    value_a: float
    value_b: float
    chance_corrected_a: float
    chance_corrected_b: float
    per_seed_a: dict[int, float]
    per_seed_b: dict[int, float]
    discordance: float

    @property
    def difference(self) -> float:
        """a - b, whether or not `value` is relative."""
        return self.value_a - self.value_b


def summarise(
    decisions: pl.DataFrame,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pl.DataFrame:
    """One row per metric and arm, metrics as given, arms sorted: verbalizer, recommender, metric, n, users,
    n_effective, value, low, high, chance, chance_corrected, per_seed (list of {seed, value}). Interval ends are
    null for an arm with fewer than two users.
    """
    rows = []
    for metric in metrics:
        by_seed = seed_means(decisions, metric)
        for (verbalizer, recommender), frame in outcomes(decisions, metric).group_by(
            ["verbalizer", "recommender"], maintain_order=True
        ):
            arm = Arm(str(verbalizer), str(recommender))
            values, users = frame["value"].to_numpy(), frame["user_id"].to_numpy()
            means = bootstrap_means(values, users, resamples=resamples, seed=seed)
            low, high = interval(means.draws[:, 0], means.n_users, level)
            value, chance = float(means.estimate[0]), float(frame["chance"].mean())  # type: ignore[arg-type]
            rows.append(
                {
                    "verbalizer": arm.verbalizer,
                    "recommender": arm.recommender,
                    "metric": metric,
                    "n": frame.height,
                    "users": means.n_users,
                    "n_effective": effective_n(values, users),
                    "value": value,
                    "low": low,
                    "high": high,
                    "chance": chance,
                    "chance_corrected": chance_corrected(value, chance),
                    "per_seed": [{"seed": name, "value": mean} for name, mean in by_seed[arm].items()],
                }
            )
    return pl.DataFrame(rows, schema=_SUMMARY).with_columns(pl.col("low", "high").fill_nan(None))


def compare(
    decisions: pl.DataFrame,
    a: tuple[str, str],
    b: tuple[str, str],
    metric: str = "recall@1",
    *,
    relative: bool = False,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Paired comparison of two arms by a bootstrap over users.

    `n_effective` is the smallest of the effective n of a's outcomes, b's outcomes and their differences. Raises
    InputError when an arm is absent, when the arms did not rank the same examples and slates, and with fewer than two
    users. A relative difference to a baseline whose mean is 0 is not a number; its interval reaches to infinity.
    """
    frame = paired_outcomes(decisions, [a, b], metric)
    values, users = frame.select("0", "1").to_numpy(), frame["user_id"].to_numpy()
    means = bootstrap_means(values, users, resamples=resamples, seed=seed)
    if means.n_users < 2:
        raise InputError(f"{means.n_users} user", "a bootstrap over users needs at least two", "evaluate more users")
    value_a, value_b = map(float, means.estimate)
    drawn_a, drawn_b = means.draws.T
    difference = drawn_a - drawn_b
    low, high = interval(relative_draws(drawn_a, drawn_b) if relative else difference, means.n_users, level)
    by_seed = seed_means(decisions, metric)
    chance = float(frame["chance"].mean())  # type: ignore[arg-type]
    return Comparison(
        a=Arm(*a),
        b=Arm(*b),
        metric=metric,
        relative=relative,
        value=(value_a / value_b - 1 if value_b else math.nan) if relative else value_a - value_b,
        low=low,
        high=high,
        p=p_value(difference, means.n_users),
        n=len(values),
        users=means.n_users,
        n_effective=min(
            effective_n(column, users) for column in (values[:, 0], values[:, 1], values[:, 0] - values[:, 1])
        ),
        value_a=value_a,
        value_b=value_b,
        chance_corrected_a=chance_corrected(value_a, chance),
        chance_corrected_b=chance_corrected(value_b, chance),
        per_seed_a=by_seed[Arm(*a)],
        per_seed_b=by_seed[Arm(*b)],
        discordance=float(((values[:, 0] - values[:, 1]) ** 2).mean()),
    )


def best_against_all(
    decisions: pl.DataFrame,
    best: tuple[str, str],
    others: Sequence[tuple[str, str]],
    metric: str = "recall@1",
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pl.DataFrame:
    """`best` (chosen on other data, i.e. on validation) minus each of `others`, with intervals that hold all at once.

    Columns verbalizer, recommender, difference, low, high.
    """
    frame = paired_outcomes(decisions, [best, *others], metric)
    values = frame.select(str(place) for place in range(len(others) + 1)).to_numpy()
    means = bootstrap_means(values, frame["user_id"].to_numpy(), resamples=resamples, seed=seed)
    rows = [
        (*other, *triple) for other, triple in zip(others, simultaneous_differences(means, 0, level)[1:], strict=True)
    ]
    return pl.DataFrame(rows, schema=["verbalizer", "recommender", "difference", "low", "high"], orient="row")


_SUMMARY: dict[str, pl.DataType | type[pl.DataType]] = {
    "verbalizer": pl.String,
    "recommender": pl.String,
    "metric": pl.String,
    "n": pl.Int64,
    "users": pl.Int64,
    "n_effective": pl.Float64,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "chance": pl.Float64,
    "chance_corrected": pl.Float64,
    "per_seed": pl.List(pl.Struct({"seed": pl.Int64, "value": pl.Float64})),
}
