"""Which prompts to roll out: a curriculum by the variance of rewards within groups of rollouts.

Advantages are differences within a group, so a group whose rollouts are paid alike teaches nothing, and its G rewards
were bought for nothing. Prompts are drawn with probability

    p_i = floor / N + (1 - floor) v_i / sum_j v_j,    v_i = (smoothing m + S_i) / (smoothing + n_i),

where S_i sums the reward variances of prompt i's groups so far, n_i counts them (both decayed with every newer group of
that prompt), and m = sum S / sum n is the mean of all. A pool's scored candidates, where there are any, count as each
prompt's first group. Of a step's draws each prompt gets floor(n p_i) or ceil(n p_i) (systematic sampling): the fewest
repetitions that any draw with these expectations can have.

With weights 1 / (N p_i) on advantages the expected policy gradient is that of uniform draws, as in importance sampling;
KL and entropy bonus, where set, are taken over the prompts drawn.

Shapes: N prompts, n draws of a step, G rollouts of a draw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from recsys.seeding import rng, stable_hash
from verbalize.optimize.curriculum_settings import CurriculumConfig

STATE = "curriculum.json"
"""What a checkpoint holds of it."""


def smoothed_variances(sums: np.ndarray, counts: np.ndarray, smoothing: float) -> np.ndarray:
    """(N,) sums and counts of group variances -> (N,) estimates, each between the prompt's own mean and that of all.

    >>> smoothed_variances(np.array([2.0, 0.0]), np.array([1.0, 0.0]), 1.0).tolist()
    [2.0, 2.0]
    """
    total = counts.sum()
    mean = sums.sum() / total if total > 0 else 0.0
    return (smoothing * mean + sums) / (smoothing + counts)


def draw_probabilities(variances: np.ndarray, floor: float) -> np.ndarray:
    """(N,) variances >= 0 -> (N,) probabilities, at least floor / N each; uniform while no variance was seen.

    >>> draw_probabilities(np.array([3.0, 1.0]), 0.5).tolist()
    [0.625, 0.375]
    """
    total = variances.sum()
    uniform = np.full(len(variances), 1 / len(variances))
    return floor * uniform + (1 - floor) * (variances / total) if total > 0 else uniform


def systematic_draw(probabilities: np.ndarray, count: int, offset: float, order: np.ndarray) -> np.ndarray:
    """`count` indices; index i occurs floor or ceil(count p_i) times, count p_i in expectation over `offset`.

    Points (k + offset) / count, offset in [0, 1), are looked up in the cumulative probabilities. `order` is a
    permutation of the indices, without which neighbours would never be drawn together.

    >>> systematic_draw(np.array([0.5, 0.25, 0.25]), 4, 0.5, np.arange(3)).tolist()
    [0, 0, 1, 2]
    """
    ends = np.cumsum(probabilities[order])
    points = (np.arange(count) + offset) / count
    places = np.searchsorted(ends / ends[-1], points, side="right")
    return order[np.minimum(places, len(order) - 1)]


def effective_number(probabilities: np.ndarray) -> float:
    """1 / sum p^2: N where all are drawn alike, 1 where one is drawn always."""
    return float(1 / np.square(probabilities).sum())


@dataclass(frozen=True)
class Draw:
    """A step's prompts: indices (n,), the weights of their advantages (n,), and what the log says of the draw."""

    indices: np.ndarray
    weights: np.ndarray
    log: dict[str, float]


class Curriculum:
    """What is known of N training prompts, and the draws that follow from it.

    Draws depend on the seed, the step and this state alone, so a run resumed with the state draws as it would have.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], config: CurriculumConfig, seed: int, scored: pl.DataFrame | None = None
    ) -> None:
        """`rows`: the prompts, with example_id. `scored`: example_id, reward of several candidates of each."""
        self.rows, self.config, self.seed = rows, config, seed
        self.sums, self.counts, self.visits = np.zeros((3, len(rows)))
        if scored is not None and len(scored):
            variances = dict(scored.group_by("example_id").agg(pl.col("reward").var()).drop_nulls().iter_rows())
            for index, row in enumerate(rows):
                if row["example_id"] in variances:
                    self._add(index, variances[row["example_id"]])

    def draw(self, step: int, count: int) -> Draw:
        """The `count` prompts of the generation that begins after `step` optimizer steps."""
        variances = smoothed_variances(self.sums, self.counts, self.config.smoothing)
        probabilities = draw_probabilities(variances, self.config.floor)
        random = rng(self.seed, "curriculum", step)
        indices = systematic_draw(probabilities, count, random.random(), random.permutation(len(self.rows)))
        weights = 1 / (len(self.rows) * probabilities[indices]) if self.config.unbiased else np.ones(count)
        log = {
            "curriculum.effective_prompts": effective_number(probabilities),
            "curriculum.visited": float((self.visits > 0).mean()),
        }
        return Draw(indices, weights, log)

    def observe(self, indices: Sequence[int], rewards: np.ndarray) -> None:
        """Rewards (n, G) of the groups of the prompts `indices`, in the order in which they were rolled out."""
        for index, variance in zip(indices, rewards.var(axis=1, ddof=1), strict=True):
            self._add(index, float(variance))
            self.visits[index] += 1

    def state(self) -> dict[str, list[float]]:
        """All that draws follow from, as plain values."""
        return {"sums": self.sums.tolist(), "counts": self.counts.tolist(), "visits": self.visits.tolist()}

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Go on from a `state`."""
        self.sums, self.counts, self.visits = (np.array(state[name]) for name in ("sums", "counts", "visits"))

    def digest(self) -> int:
        """Identity of the state."""
        return stable_hash(self.state())

    def _add(self, index: int, variance: float) -> None:
        self.sums[index] = self.config.decay * self.sums[index] + variance
        self.counts[index] = self.config.decay * self.counts[index] + 1
