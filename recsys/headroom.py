"""How much could be won by giving each user the candidate verbalization that suits them best?

The naive oracle (the best candidate per example, in hindsight) is hugely optimistic: with enough candidates chance
alone makes one of them right. Here the choice is *cross-fitted*: a user's candidate is chosen on one half of that
user's targets and scored on the other half, then the other way round, over several random halvings. The constant it
is compared with, the one candidate that is best for all users, is chosen on the same halves.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.outcomes import outcomes
from recsys.seeding import rng
from recsys.significance import RESAMPLES, bootstrap_means, interval, p_value


@dataclass(frozen=True)
class Headroom:
    """`value` = `chosen` - `constant`, both cross-fitted. The oracles are in-sample and optimistic; they are no
    estimate.
    """

    value: float
    low: float
    high: float
    p: float
    chosen: float
    constant: float
    naive_user_oracle: float
    naive_example_oracle: float
    naive_constant: float
    n: int
    users: int
    users_left_out: int


def pool_headroom(
    decisions: pl.DataFrame,
    recommender: str,
    metric: str = "recall@1",
    *,
    choose_by: str | None = None,
    shrinkage: float = 0.0,
    halvings: int = 20,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Headroom:
    """Cross-fitted headroom of the pool = all verbalizers that `decisions` holds for `recommender`.

    `choose_by` (default: `metric`) is the metric to choose with: a denser one, such as mrr, chooses better from few
    targets. `shrinkage` adds that many pseudo-targets with the candidate's mean over all users to each user's mean.
    Equal candidates go to the one that is better over all users. Users with one target cannot be halved: they are
    left out and counted. The interval resamples users and takes the choices as made. Raises InputError with fewer
    than two candidates or two users.
    """
    mine = decisions.filter(pl.col("recommender") == recommender)
    scored, names = _table(mine, metric)
    choosing, _ = _table(mine, choose_by or metric)
    frame = scored.join(choosing.drop("user_id"), on="example_id", suffix="/choose").sort("user_id", "example_id")
    halvable = frame.filter(pl.len().over("user_id") >= 2)
    n_left_out = frame["user_id"].n_unique() - halvable["user_id"].n_unique()
    users = halvable["user_id"].to_numpy()
    if len(names) < 2 or halvable["user_id"].n_unique() < 2:
        raise InputError(
            f"{len(names)} candidates, {halvable['user_id'].n_unique()} users with two targets or more",
            "headroom needs at least two of each",
            "decide a larger pool, or allow more targets a user",
        )
    codes = np.unique(users, return_inverse=True)[1]
    values = halvable.select(names).to_numpy()  # (N, C)
    criteria = halvable.select(f"{name}/choose" for name in names).to_numpy()  # (N, C)
    chosen, constant = np.zeros(len(values)), np.zeros(len(values))
    for number in range(halvings):
        half = _halves(codes, seed, number)
        for side in (0, 1):
            a, b = _choose(values, criteria, codes, half == side, shrinkage)
            chosen[half != side] += a / halvings
            constant[half != side] += b / halvings
    means = bootstrap_means(np.column_stack([chosen, constant]), users, resamples=resamples, seed=seed)
    draws = means.draws[:, 0] - means.draws[:, 1]
    low, high = interval(draws, means.n_users, level)
    user_means = _user_means(values, codes)
    sizes = np.bincount(codes)
    return Headroom(
        value=float(means.estimate[0] - means.estimate[1]),
        low=low,
        high=high,
        p=p_value(draws, means.n_users),
        chosen=float(means.estimate[0]),
        constant=float(means.estimate[1]),
        naive_user_oracle=float(user_means.max(axis=1) @ sizes / sizes.sum()),
        naive_example_oracle=float(values.max(axis=1).mean()),
        naive_constant=float(values.mean(axis=0).max()),
        n=len(values),
        users=means.n_users,
        users_left_out=n_left_out,
    )


def _choose(
    values: np.ndarray, criteria: np.ndarray, codes: np.ndarray, choose: np.ndarray, shrinkage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Choose on the rows in `choose` (N,), score on the others: outcomes under each user's choice and under the
    best constant.
    """
    overall = criteria[choose].mean(axis=0)  # (C,)
    counts = np.bincount(codes[choose], minlength=codes.max() + 1)[:, None]
    sums = _user_means(criteria[choose], codes[choose], len(counts)) * counts
    means = (sums + shrinkage * overall) / np.maximum(counts + shrinkage, 1e-12)
    best = np.lexsort(np.broadcast_arrays(overall, np.round(means, 12)), axis=1)[
        :, -1
    ]  # by mean, then by the overall mean
    rows = np.flatnonzero(~choose)
    return values[rows, best[codes[rows]]], values[rows, int(np.argmax(overall))]


def _user_means(values: np.ndarray, codes: np.ndarray, n_users: int | None = None) -> np.ndarray:
    """(U, C) means of (N, C) values by user code; 0 for a user without rows."""
    n_users = n_users or int(codes.max()) + 1
    sums = np.column_stack([np.bincount(codes, weights=column, minlength=n_users) for column in values.T])
    return sums / np.maximum(np.bincount(codes, minlength=n_users), 1)[:, None]


def _halves(codes: np.ndarray, seed: int, number: int) -> np.ndarray:
    """0 or 1 for each row (N,), each user's rows halved at random (an odd one falls on a random side)."""
    generator = rng(seed, "halves", number)
    order = np.lexsort((generator.random(len(codes)), codes))
    sizes = np.bincount(codes)
    place = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    half = np.empty(len(codes), dtype=np.int64)
    half[order] = (place + np.repeat(generator.integers(2, size=len(sizes)), sizes)) % 2
    return half


def _table(decisions: pl.DataFrame, metric: str) -> tuple[pl.DataFrame, list[str]]:
    """Outcomes with one column per verbalizer; InputError unless each ranked every example."""
    long = outcomes(decisions, metric)
    names = sorted(long["verbalizer"].unique().to_list())
    wide = long.pivot(on="verbalizer", index=["example_id", "user_id"], values="value")
    missing = wide.select(names).null_count().sum_horizontal().item() if wide.height else 0
    if missing:
        raise InputError(
            f"{missing} missing outcomes",
            "every candidate of the pool must have ranked every example",
            "finish the evaluation of the pool",
        )
    return wide.select("example_id", "user_id", *names), names
