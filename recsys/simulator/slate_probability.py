"""How likely a slate policy is to draw exactly these negatives, for each candidate in the role of the target.

The names on a slate tell something about which of them is the target: popular negatives are drawn more often, so an
item that is on the slate *although* it is rarely drawn is more likely to be the target. Pure functions; logs are
natural; terms equal for all candidates of a slate are left out, since only ratios matter.
"""

from math import lgamma

import numpy as np

# Trapezoids on x = log of the race's time. The integrand is analytic and falls off exponentially on both sides, so the
# error falls with exp(-π² / step): at 0.2 below rounding.
_X = np.arange(-45.0, 4.6, 0.2)


def uniform_log_probability(size: int) -> np.ndarray:
    """`uniform`: every set of negatives among the untouched items is equally likely, whichever is the target: zeros
    (S,)."""
    return np.zeros(size)


def race_log_probability(weights: np.ndarray, rest: float) -> np.ndarray:
    """`popularity`: negatives drawn one after the other without replacement, in proportion to their weights.

    `weights` (S,) > 0 of the slate's items, `rest` the summed weight of all other items that could have been drawn.
    Drawing in proportion without replacement is a race: item i arrives at an exponential time of rate w_i, the first
    S − 1 are drawn. With candidate c as the target the slate arises when all its others arrive before all the rest:

        P(S \\ c | c) = ∫ R e^{-R t} Π_{i ∈ S, i ≠ c} (1 − e^{-w_i t}) dt,    R = rest

    so that ratios approach w_c' / w_c when single weights are small against R: "preference over sampling weight".
    Returns (S,) up to a common term. With rest = 0 nothing else could have been drawn: zeros.
    """
    if rest <= 0:
        return np.zeros(len(weights))
    arrived = np.log(-np.expm1(-np.outer(weights / rest, np.exp(_X))))  # (S, X)
    logs = (arrived.sum(axis=0) - arrived) + (_X - np.exp(_X))
    high = logs.max(axis=1)
    return high + np.log(np.exp(logs - high[:, None]).sum(axis=1))


def cell_log_probability(slate: np.ndarray, pools: list[np.ndarray]) -> np.ndarray:
    """`matched`: negatives drawn uniformly from the target's cell. `slate` (S,) item codes, `pools[c]` the codes that
    could be drawn were slate[c] the target. −log C(|pool|, S − 1), or −inf where a negative is not in the pool."""
    negatives = len(slate) - 1
    logs = np.full(len(slate), -np.inf)
    for place, pool in enumerate(pools):
        if np.isin(np.delete(slate, place), pool).all():
            n = len(pool)
            logs[place] = lgamma(negatives + 1) + lgamma(n - negatives + 1) - lgamma(n + 1)
    return logs


def posterior(log_preference: np.ndarray, log_draw: np.ndarray) -> np.ndarray:
    """(S,) probabilities that each candidate is the target: preference times the probability of the other names.

    >>> posterior(np.log([0.2, 0.1]), np.log([0.5, 1.0])).tolist()
    [0.5, 0.5]
    """
    logs = log_preference + log_draw
    shares = np.exp(logs - logs.max())
    return shares / shares.sum()
