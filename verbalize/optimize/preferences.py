"""Preferences: which pairs to learn from, and the DPO loss (Rafailov et al., arXiv 2305.18290, equation 7).

GRPO samples anew at every step and pays for each sample with a ranking. DPO learns off-line from texts that are scored
already: log sigma(beta x (how much more the policy favours the winner than its reference does, minus the same of the
loser)). Beta ties the policy to its reference, so no KL term is needed. Which pairs are formed matters more than the
loss: rewards are means over a few slates, and the winner of a close pair mostly had luck.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recsys.errors import InputError


def pairs(rewards: Sequence[float], min_gap: float, limit: int) -> list[tuple[int, int, float]]:
    """K rewards of one prompt -> at most `limit` (winner, loser, gap), gaps falling, none below `min_gap`.

    Best against worst, second best against second worst, and so on: each candidate serves in one pair at most, so a
    lucky best cannot be the lesson of every pair. The first of equal rewards ranks higher. Raises InputError when a
    reward is not finite.

    >>> pairs([0.0, 3.0, 1.0, 2.5], min_gap=1.0, limit=2)
    [(1, 0, 3.0), (3, 2, 1.5)]
    """
    values = np.asarray(rewards, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"rewards {list(rewards)}", "must be finite to be compared", "check the recommender's scores")
    order = np.argsort(-values, kind="stable").tolist()
    matched = zip(order[: len(order) // 2], reversed(order), strict=False)
    found = [(winner, loser, float(values[winner] - values[loser])) for winner, loser in matched]
    return [pair for pair in found if pair[2] >= min_gap][:limit]


def log_ratio_gap(winner: Tensor, loser: Tensor, reference_winner: Tensor, reference_loser: Tensor) -> Tensor:
    """Log-probabilities (N,) of whole sequences -> (N,): log-ratio to the reference, the winner's minus the loser's."""
    return (winner - reference_winner) - (loser - reference_loser)


def dpo_loss(gap: Tensor, beta: float) -> Tensor:
    """`log_ratio_gap` (N,) -> -log sigmoid(beta x gap), (N,): ln 2 at the reference, 0 far beyond it."""
    return -torch.nn.functional.logsigmoid(beta * gap)


def no_pairs(min_gap: float, prompts: int) -> InputError:
    """The refusal when nothing can be learned."""
    return InputError(
        f"dpo.min_gap = {min_gap:g}",
        f"leaves no pair among the candidates of {prompts} prompts",
        "lower dpo.min_gap, which is in the reward's unit, or use a denser reward",
    )
