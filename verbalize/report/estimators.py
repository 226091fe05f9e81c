"""From an artefact to a number: the estimators a claim may name. Pure, seeded by name, so a recomputation is exact.

Rankings go through `recsys.comparison` and `recsys.headroom`, as in a report: slates, then seeds are averaged, and
users are resampled. What a run takes is estimated in `cost_estimators`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from recsys.comparison import compare
from recsys.controls import surviving_gain
from recsys.errors import InputError
from recsys.headroom import pool_headroom
from recsys.outcomes import outcomes
from recsys.significance import RESAMPLES, bootstrap_means, effective_n, interval, relative_draws
from verbalize.report.cost_estimators import peak, ratio_of_times, seconds
from verbalize.report.estimates import Estimate, of_arms, seeds_of

RECOMMENDER = ""  # an artefact's arm names verbalizer and recommender together


def estimate(name: str, table: pl.DataFrame, parameters: Mapping[str, Any]) -> Estimate:
    """Run a named estimator. Raises InputError for unknown names, parameters or arms, and for results that are not
    finite.
    """
    if name not in ESTIMATORS:
        raise InputError(
            f"estimator {name!r}", f"must be one of {', '.join(ESTIMATORS)}", "correct the claim's estimator"
        )
    try:
        found = ESTIMATORS[name](table, **parameters)
    except (TypeError, pl.exceptions.ColumnNotFoundError) as error:
        raise InputError(
            f"estimator {name} with {dict(parameters)}",
            f"does not fit an artefact with columns {table.columns} ({error})",
            "correct the claim's estimator",
        ) from error
    if not all(math.isfinite(v) for v in (found.value, found.low, found.high)):
        raise InputError(
            f"{name} gives {found.value} [{found.low}, {found.high}]",
            "a claim needs a finite number and interval",
            "use at least two users, and a baseline that is not 0",
        )
    return found


def paired_difference(
    table: pl.DataFrame, a: str, b: str, metric: str = "recall@1", resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean of `metric` (a name of `recsys.metrics.expression`) for arm `a` minus arm `b`, which must have ranked the
    same slates.
    """
    return _compare(table, a, b, metric, False, resamples, seed)


def relative_difference(
    table: pl.DataFrame, a: str, b: str, metric: str = "recall@1", resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """mean(a) / mean(b) - 1, a fraction: 0.93 is +93%."""
    return _compare(table, a, b, metric, True, resamples, seed)


def relative_difference_apart(
    table: pl.DataFrame, a: str, b: str, metric: str = "recall@1", resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """mean(a) / mean(b) - 1 of arms whose examples cannot be paired, as those of two records, which hide each user
    under another id each time: each arm's users are resampled by themselves. Where both ranked for the same users,
    whose outcomes resemble each other, the interval is wider than a paired one. `n` is that of the smaller arm.
    """
    rows = decisions_of(table, [a, b])
    arms = [outcomes(rows.filter(pl.col("verbalizer") == arm), metric) for arm in (a, b)]
    sides = [(arm["value"].to_numpy(), arm["user_id"].to_numpy()) for arm in arms]
    # Seeds of their own: with as many users, equal ones would draw the same places in both arms.
    drawn = [
        bootstrap_means(values, users, resamples=resamples, seed=2 * seed + side)
        for side, (values, users) in enumerate(sides)
    ]
    draws = relative_draws(drawn[0].draws[:, 0], drawn[1].draws[:, 0])
    low, high = interval(draws, min(one.n_users for one in drawn))
    mean_a, mean_b = (float(one.estimate[0]) for one in drawn)
    value = mean_a / mean_b - 1 if mean_b else math.nan
    n_effective = min(effective_n(values, users) for values, users in sides)
    return Estimate(value, low, high, min(len(values) for values, _ in sides), n_effective, seeds_of(rows))


def surviving_share(
    table: pl.DataFrame,
    learned: str,
    shuffled: str,
    baseline: str,
    metric: str = "recall@1",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """(shuffled - baseline) / (learned - baseline): the share of a gain that is left when texts change owners.

    Raises InputError where no gain is shown: a share of nothing has no interval.
    """
    rows = decisions_of(table, [learned, shuffled, baseline])
    first, other, last = ((arm, RECOMMENDER) for arm in (learned, shuffled, baseline))
    found = surviving_gain(rows, first, other, last, metric, resamples=resamples, seed=seed)
    gain = compare(rows, first, last, metric, resamples=resamples, seed=seed)
    if gain.low <= 0 or not math.isfinite(found.high):
        raise InputError(
            f"gain of {learned} over {baseline}: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]",
            "is not shown, so there is no share of it to survive",
            "the difference itself is the result",
        )
    return Estimate(found.share, found.low, found.high, gain.n, gain.n_effective, seeds_of(rows))


def headroom(
    table: pl.DataFrame,
    pool: Sequence[str],
    metric: str = "recall@1",
    choose_by: str | None = None,
    shrinkage: float = 0.0,
    halvings: int = 20,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Cross-fitted headroom of the arms in `pool` (`recsys.headroom`). `n_effective` is the number of users: each makes
    one choice.
    """
    rows = decisions_of(table, pool)
    found = pool_headroom(
        rows,
        RECOMMENDER,
        metric,
        choose_by=choose_by,
        shrinkage=shrinkage,
        halvings=halvings,
        resamples=resamples,
        seed=seed,
    )
    return Estimate(found.value, found.low, found.high, found.n, float(found.users), seeds_of(rows))


def mean_difference(table: pl.DataFrame, a: str, b: str, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Mean value of arm `a` minus arm `b` over the same examples, such as margins on validation after and before
    training.
    """
    rows = of_arms(table, [a, b])
    means = rows.group_by("example", "user", "arm").agg(pl.col("value").mean())
    sides = [means.filter(pl.col("arm") == arm).sort("example") for arm in (a, b)]
    if not sides[0]["example"].equals(sides[1]["example"]) or sides[0]["example"].n_unique() != len(sides[0]):
        raise InputError(
            f"arms {a} and {b} with {len(sides[0])} and {len(sides[1])} examples",
            "paired arms hold the same examples, each once",
            "measure both on the same examples",
        )
    difference, users = (sides[0]["value"] - sides[1]["value"]).to_numpy(), sides[0]["user"].to_numpy()
    boot = bootstrap_means(difference, users, resamples=resamples, seed=seed)
    low, high = interval(boot.draws[:, 0], boot.n_users)
    return Estimate(float(boot.estimate[0]), low, high, len(users), effective_n(difference, users), seeds_of(rows))


def ratio_of_means(table: pl.DataFrame, a: str, b: str, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """mean(a) / mean(b) of values of the same examples: a share when a counts part of what b counts."""
    return _ratio(table, [a], [b], resamples, seed)


def lift(
    table: pl.DataFrame, hits: str, chosen: str, positives: str, all: str, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """(hits / chosen) / (positives / all), each summed over the same examples: how many times the precision of a choice
    exceeds the base rate; 1 for a choice made blindly.
    """
    return _ratio(table, [hits, all], [chosen, positives], resamples, seed)


def _ratio(table: pl.DataFrame, above: list[str], below: list[str], resamples: int, seed: int) -> Estimate:
    """Product of the mean values of the arms `above` over that of the arms `below`; users are resampled. `n_effective`
    follows from the arm whose outcomes resemble each other most within users.
    """
    arms = [*above, *below]
    rows = of_arms(table, arms)
    means = rows.group_by("example", "user", "arm").agg(pl.col("value").mean())
    paired = means.pivot("arm", index=["example", "user"], values="value").sort("example")
    if paired["example"].n_unique() != len(paired) or any(paired.select(arms).null_count().row(0)):
        raise InputError(
            f"arms {arms} of {len(paired)} examples",
            "a ratio needs every arm's value of every example",
            "measure all arms on the same examples",
        )
    values, users = paired.select(arms).to_numpy(), paired["user"].to_numpy()
    boot = bootstrap_means(values, users, resamples=resamples, seed=seed)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is refused by `estimate`, which names the rule
        found, draws = (
            means[..., : len(above)].prod(axis=-1) / means[..., len(above) :].prod(axis=-1)
            for means in (boot.estimate, boot.draws)
        )
    low, high = interval(draws, boot.n_users)
    n_effective = min(effective_n(column, users) for column in values.T)
    return Estimate(float(found), low, high, len(users), n_effective, seeds_of(rows))


def _compare(table: pl.DataFrame, a: str, b: str, metric: str, relative: bool, resamples: int, seed: int) -> Estimate:
    rows = decisions_of(table, [a, b])
    found = compare(rows, (a, RECOMMENDER), (b, RECOMMENDER), metric, relative=relative, resamples=resamples, seed=seed)
    return Estimate(found.value, found.low, found.high, found.n, found.n_effective, seeds_of(rows))


def decisions_of(table: pl.DataFrame, arms: Sequence[str]) -> pl.DataFrame:
    """Outcome rows of `arms` under the column names that `recsys.comparison` reads."""
    names = {
        "example": "example_id",
        "user": "user_id",
        "arm": "verbalizer",
        "slate": "slate_index",
        "size": "slate_size",
    }
    return of_arms(table, arms).rename(names).with_columns(recommender=pl.lit(RECOMMENDER))


ESTIMATORS: dict[str, Callable[..., Estimate]] = {
    f.__name__: f
    for f in (
        paired_difference,
        relative_difference,
        relative_difference_apart,
        surviving_share,
        headroom,
        mean_difference,
        ratio_of_means,
        lift,
        ratio_of_times,
        seconds,
        peak,
    )
}
