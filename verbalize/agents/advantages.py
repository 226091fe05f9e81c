"""Episode and step advantages of GiGPO and SLEA-RL (arXiv 2603.18079) as pure functions on arrays.

    A(i, t) = A_episode(i) + w · A_step(i, t)
    A_episode  return of episode i, normalised within its group (the rollouts of one task), as in GRPO
    A_step     discounted return from step t on, normalised within the step group (i, t) belongs to: steps at alike
               observations. GiGPO groups equal observations of one task; SLEA-RL groups an observation cluster

Normalised means minus the mean, and with `scale` divided by the standard deviation (n − 1) plus EPSILON, which are
TRL's definitions: with w = 0 this is GRPO's advantage exactly. A group of one has nothing to compare with and
contributes 0; so does a group of equal returns. Deviation from the authors' code, which only subtracts the mean in
A_step: the paper normalises, and so does `scale=True`.
"""

from collections.abc import Sequence

import numpy as np

from recsys.errors import InputError

EPSILON = 1e-4
NO_GROUP = -1


def normalise_in_groups(values: np.ndarray, groups: Sequence[int] | np.ndarray, scale: bool = True) -> np.ndarray:
    """(N,) values minus their group's mean, divided by its spread if `scale`. Groups of one, and rows of group −1 (in
    none), give 0.

    >>> normalise_in_groups(np.array([1.0, 0.0, 5.0]), [7, 7, 8], scale=False).tolist()
    [0.5, -0.5, 0.0]
    """
    values = np.asarray(values, dtype=np.float64)
    labels, codes, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if len(values) != len(codes):
        raise InputError(f"{len(values)} values and {len(codes)} groups", "each value has one group", "pass both alike")
    mean = np.bincount(codes, values, len(labels)) / np.maximum(counts, 1)
    centred = values - mean[codes]
    if scale:
        variance = np.bincount(codes, centred**2, len(labels)) / np.maximum(counts - 1, 1)
        centred = centred / (np.sqrt(variance) + EPSILON)[codes]
    alone = (counts[codes] == 1) | (labels[codes] == NO_GROUP)
    return np.where(alone, 0.0, centred)


def discounted_returns(rewards: Sequence[float] | np.ndarray, gamma: float) -> np.ndarray:
    """(T,) rewards of one episode -> (T,) returns R_t = r_t + γ R_{t+1}.

    >>> discounted_returns([0, 0, 1], 0.5).tolist()
    [0.25, 0.5, 1.0]
    """
    returns = np.zeros(len(rewards))
    following = 0.0
    for step in range(len(rewards) - 1, -1, -1):
        following = float(rewards[step]) + gamma * following
        returns[step] = following
    return returns


def episode_advantages(returns: Sequence[float], tasks: Sequence[int], scale: bool = True) -> np.ndarray:
    """(E,) episode returns and their task groups -> (E,) A_episode."""
    return normalise_in_groups(np.asarray(returns, dtype=np.float64), tasks, scale)


def step_advantages(
    rewards: Sequence[Sequence[float]],
    clusters: Sequence[Sequence[int]],
    gamma: float = 0.95,
    tasks: Sequence[int] | None = None,
    scale: bool = True,
) -> list[np.ndarray]:
    """Per episode (T_i,) A_step from its rewards and the cluster number of the observation before each action.

    With `tasks` (GiGPO) steps compare only within their episode's task; without (SLEA-RL), across all episodes of the
    batch. Cluster −1 belongs to no group and gives 0.
    """
    lengths = [len(r) for r in rewards]
    if lengths != [len(c) for c in clusters]:
        raise InputError(
            f"episodes of {lengths} rewards with {[len(c) for c in clusters]} cluster labels",
            "each step has one reward and one cluster",
            "label the observation before each action",
        )
    if not sum(lengths):
        return [np.zeros(0) for _ in rewards]
    returns = np.concatenate([discounted_returns(r, gamma) for r in rewards])
    labels = np.concatenate([np.asarray(c, dtype=np.int64) for c in clusters])
    if tasks is not None:
        pairs = np.stack([np.repeat(np.asarray(tasks, dtype=np.int64), lengths), labels], 1)
        codes = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
        labels = np.where(labels == NO_GROUP, NO_GROUP, codes)
    flat = normalise_in_groups(returns, labels, scale)
    return np.split(flat, np.cumsum(lengths)[:-1])


def combined_advantages(
    rewards: Sequence[Sequence[float]],
    tasks: Sequence[int],
    clusters: Sequence[Sequence[int]] | None = None,
    weight: float = 1.0,
    gamma: float = 0.95,
    within_tasks: bool = False,
    scale: bool = True,
) -> list[np.ndarray]:
    """Per episode (T_i,) advantages of its actions: GRPO without `clusters` or with `weight` 0, GiGPO with anchor
    states as clusters and `within_tasks`, SLEA-RL with observation clusters.

    An episode's return is the plain sum of its rewards.
    """
    whole = episode_advantages([float(sum(r)) for r in rewards], tasks, scale)
    parts = [np.full(len(r), advantage) for r, advantage in zip(rewards, whole, strict=True)]
    if clusters is None or weight == 0:
        return parts
    steps = step_advantages(rewards, clusters, gamma, tasks if within_tasks else None, scale)
    return [part + weight * step for part, step in zip(parts, steps, strict=True)]
