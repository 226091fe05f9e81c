"""Which candidate of the pool is best for an example, when one example's rewards are mostly luck.

The best of a dozen candidates for one example is the one that luck favoured. Two things are known better: how well a
candidate does over all users, and how far what suited a user once suits that user again. An example's rewards are
therefore shrunk towards the candidates' means by the *reliability* of what is particular to it, measured between
different targets of the same user (an empirical-Bayes estimate), and what remains uncertain is expressed by the share
of Bayesian-bootstrap draws (Rubin 1981) of the users in which a candidate comes out best.
"""

import numpy as np
import polars as pl

from recsys.seeding import rng

DRAWS = 500


def reward_table(pool: pl.DataFrame) -> tuple[list[str], np.ndarray]:
    """A pool's candidates in their order there, and their rewards (N, C), examples in theirs."""
    wide = pool.pivot(on="candidate", index="example_id", values="reward", maintain_order=True)
    return wide.columns[1:], wide.drop("example_id").to_numpy()


def reliability(residuals: np.ndarray, users: np.ndarray, user_weights: np.ndarray) -> float:
    """How much of what is particular to one target of a user returns with another target of the same user, in [0, 1].

    residuals (N, C): rewards less their example's and their candidate's mean; users (N,): codes from 0; user_weights
    (U,). Covariance between targets of one user over variance; 0 where no user has two targets.
    """
    counts = np.bincount(users, minlength=len(user_weights))
    squares = np.bincount(users, weights=(residuals**2).sum(axis=1), minlength=len(user_weights))
    sums = np.stack([np.bincount(users, weights=one, minlength=len(user_weights)) for one in residuals.T])
    pairs = user_weights @ (counts * (counts - 1))
    spread = user_weights @ squares / (user_weights @ counts)
    if not pairs or not spread:
        return 0.0
    shared = user_weights @ ((sums**2).sum(axis=0) - squares) / pairs
    return float(np.clip(shared / spread, 0.0, 1.0))


def own_share(rewards: np.ndarray, user_ids: np.ndarray) -> float:
    """The reliability of (N, C) rewards of examples whose users are (N,) ids, users weighing alike."""
    users = np.unique(user_ids, return_inverse=True)[1]
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    return reliability(centred - centred.mean(axis=0), users, np.ones(users.max() + 1))


def best_shares(rewards: np.ndarray, user_ids: np.ndarray, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """(N, C) rewards of C candidates for N examples, (N,) user ids -> (N, C) shares of draws in which each is best.

    Rows sum to 1; candidates that tie share. Adding a constant to an example's rewards changes nothing.

    >>> rewards = np.array([[3.0, 0.0, 0.1], [2.0, 0.0, 0.3], [4.0, 1.0, 0.0], [2.5, 0.0, 9.0]])
    >>> best_shares(rewards, np.array(["a", "b", "c", "d"])).round(1)[3].tolist()  # one lucky example changes little
    [0.7, 0.0, 0.3]
    """
    users = np.unique(user_ids, return_inverse=True)[1]
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    generator = rng(seed, "best shares")
    shares = np.zeros(rewards.shape)
    for _ in range(draws):
        weights = generator.exponential(size=users.max() + 1)
        means = weights[users] @ centred / weights[users].sum()
        residuals = centred - means
        score = means + reliability(residuals, users, weights) * residuals
        best = score >= score.max(axis=1, keepdims=True) - 1e-12
        shares += best / best.sum(axis=1, keepdims=True)
    return shares / draws
