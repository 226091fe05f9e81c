"""Intervals and tests that take the user, not the ranking, as the unit: outcomes of one user resemble each other.

Users are resampled with replacement and keep all their outcomes (cluster bootstrap), the same users for every arm
(paired). Intervals are percentile intervals with Hesterberg's expansion: a bootstrap over U users underestimates
the spread by sqrt((U - 1) / U) and ignores Student's heavier tails; the tail shares are widened accordingly, which
matters below about 40 users and vanishes above. Sources: Cameron & Miller (2015) for clustering; Hesterberg (2015),
arXiv 1411.5279.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from recsys.errors import InputError
from recsys.seeding import rng

RESAMPLES = 10_000
ROUNDING = 1e-12
_CHUNK = 4_000_000  # resampled users held at once


@dataclass(frozen=True)
class BootstrapMeans:
    """`estimate` (A,): mean outcome of A arms; `draws` (R, A): the same on R resamples; `n_users`."""

    estimate: np.ndarray
    draws: np.ndarray
    n_users: int


def bootstrap_means(
    values: np.ndarray, users: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> BootstrapMeans:
    """Cluster bootstrap of mean outcomes. `values` (N, A) or (N,), finite; `users` (N,) labels.

    The mean weighs every outcome equally, so users with more outcomes weigh more. Independent of row order. O(R (U
    + U A)).
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if not len(values) or not np.isfinite(values).all():
        raise InputError(
            f"{len(values)} outcomes, {int((~np.isfinite(values)).sum())} of them not finite",
            "a bootstrap needs at least one outcome, and finite ones",
            "check the decisions of this arm",
        )
    labels, codes = np.unique(np.asarray(users), return_inverse=True)
    n_users = len(labels)
    counts = np.bincount(codes, minlength=n_users).astype(np.float64)  # (U,)
    sums = np.column_stack([np.bincount(codes, weights=column, minlength=n_users) for column in values.T])  # (U, A)
    generator = rng("bootstrap", seed, n_users)
    draws = np.empty((resamples, values.shape[1]))
    step = max(1, _CHUNK // n_users)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        picked = generator.integers(n_users, size=(rows, n_users)) + np.arange(rows)[:, None] * n_users
        weights = np.bincount(picked.ravel(), minlength=rows * n_users).reshape(rows, n_users).astype(np.float64)
        draws[start : start + rows] = (weights @ sums) / (weights @ counts)[:, None]
    return BootstrapMeans(sums.sum(axis=0) / counts.sum(), draws, n_users)


def interval(draws: np.ndarray, n_users: int, level: float = 0.95) -> tuple[float, float]:
    """Expanded percentile interval of one statistic from its draws (R,); (nan, nan) with fewer than two users."""
    if n_users < 2:
        return math.nan, math.nan
    tail = float(norm.cdf(-math.sqrt(n_users / (n_users - 1)) * student.ppf(0.5 + level / 2, n_users - 1)))
    low, high = np.quantile(draws, [tail, 1 - tail], method="nearest")
    return float(low), float(high)


def p_value(draws: np.ndarray, n_users: int) -> float:
    """Two-sided p for "the statistic is 0": one minus the level at which `interval` begins to hold 0. At least
    about 2/R.

    1 with fewer than two users, and 1 for arms that never differ. A draw within ROUNDING of 0 counts on both sides: on
    which its last bits fall depends on how many threads summed it.
    """
    if n_users < 2:
        return 1.0
    share = (1 + min(int((draws <= ROUNDING).sum()), int((draws >= -ROUNDING).sum()))) / (len(draws) + 1)
    if share >= 0.5:
        return 1.0
    return float(2 * student.cdf(norm.ppf(share) * math.sqrt((n_users - 1) / n_users), n_users - 1))


def relative_draws(draws_a: np.ndarray, draws_b: np.ndarray) -> np.ndarray:
    """Draws of mean_a / mean_b - 1. Where mean_b is 0 the draw is +inf, or 0 when mean_a is 0 too."""
    safe = np.where(draws_b == 0, 1.0, draws_b)
    return np.where(draws_b == 0, np.where(draws_a == 0, 0.0, np.inf), draws_a / safe - 1)


def intraclass_correlation(values: np.ndarray, users: np.ndarray) -> float:
    """ANOVA estimate of the correlation of two outcomes of one user, unequal group sizes allowed, clipped to [0, 1].

        ρ = (MSB - MSW) / (MSB + (m0 - 1) MSW),   m0 = (N - Σ m_u² / N) / (U - 1)

    0 when it cannot be told: every user has one outcome, or all outcomes are equal. 1 with a single user. A
    negative estimate is chance (outcomes of a user do not repel) and becomes 0, so the effective n never exceeds n.
    """
    values = np.asarray(values, dtype=np.float64)
    _, codes = np.unique(np.asarray(users), return_inverse=True)
    sizes = np.bincount(codes)
    n, n_users = len(values), len(sizes)
    if n_users < 2:
        return 1.0 if n > 1 else 0.0
    if n == n_users:
        return 0.0
    means = np.bincount(codes, weights=values) / sizes
    between = float(sizes @ (means - values.mean()) ** 2) / (n_users - 1)
    within = float(((values - means[codes]) ** 2).sum()) / (n - n_users)
    m0 = (n - float((sizes.astype(float) ** 2).sum()) / n) / (n_users - 1)
    denominator = between + (m0 - 1) * within
    return float(np.clip((between - within) / denominator, 0.0, 1.0)) if denominator > 1e-15 else 0.0


def effective_n(values: np.ndarray, users: np.ndarray) -> float:
    """n / (1 + (m - 1) ρ) with m = Σ m_u² / n, the mean group size an outcome sees: exact for unequal groups (Kish
    1965).
    """
    sizes = np.unique(np.asarray(users), return_counts=True)[1].astype(float)
    n = sizes.sum()
    return float(n / (1 + (float((sizes**2).sum()) / n - 1) * intraclass_correlation(values, users)))


@dataclass(frozen=True)
class DetectableEffect:
    """The smallest true difference found with the given power: absolute, and relative to the baseline's accuracy."""

    absolute: float
    relative: float
    n_effective: float
    accuracy: float
    discordance: float


def minimum_detectable_effect(
    n_effective: float, accuracy: float, discordance: float, *, power: float = 0.8, alpha: float = 0.05
) -> DetectableEffect:
    """Paired two-sided test of two arms:  δ = (z_{1-α/2} + z_power) sqrt(ψ / n_eff).

    ψ is the discordance E[(a - b)²]: for hits and misses the share of rankings on which the arms disagree. Taking ψ
    for the variance (instead of ψ - δ²) errs on the safe side. δ can never exceed ψ; where it would, no effect is
    detectable: inf.
    """
    if n_effective <= 0 or not 0 <= accuracy <= 1 or not 0 <= discordance <= 1:
        raise InputError(
            f"n_effective {n_effective}, accuracy {accuracy}, discordance {discordance}",
            "need n_effective > 0 and shares in [0, 1]",
            "measure them on validation first",
        )
    delta = float(norm.ppf(1 - alpha / 2) + norm.ppf(power)) * math.sqrt(discordance / n_effective)
    delta = delta if delta <= discordance else math.inf
    return DetectableEffect(delta, delta / accuracy if accuracy else math.inf, n_effective, accuracy, discordance)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjusted p-values, same keys: reject where adjusted ≤ α and the family-wise error stays below α.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    adjusted, running = {}, 0.0
    for place, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def simultaneous_differences(means: BootstrapMeans, best: int, level: float = 0.95) -> list[tuple[float, float, float]]:
    """(difference, low, high) of arm `best` minus each of the A arms; all intervals hold together with probability
    `level`.

    Max-|t|: d_j ± c s_j, with s_j the bootstrap spread and c the quantile of max_j |d*_j - d_j| / s_j over draws.
    An arm that never differs from `best` (itself, say) gets (0, 0, 0). `best` must have been chosen on other data.
    """
    difference = means.estimate[best] - means.estimate  # (A,)
    draws = means.draws[:, [best]] - means.draws  # (R, A)
    if means.n_users < 2:
        return [(float(d), math.nan, math.nan) for d in difference]
    spread = draws.std(axis=0)
    moving = spread > 1e-12
    largest = (np.abs(draws[:, moving] - difference[moving]) / spread[moving]).max(axis=1, initial=0.0)
    # Draws over few users are too narrow and miss Student's tails: the reach is widened as for a single interval.
    widening = math.sqrt(means.n_users / (means.n_users - 1))
    widening *= float(student.ppf(0.5 + level / 2, means.n_users - 1) / norm.ppf(0.5 + level / 2))
    reach = np.where(moving, float(np.quantile(largest, level)) * widening * spread, 0.0)
    return [(float(d), float(d - r), float(d + r)) for d, r in zip(difference, reach, strict=True)]
