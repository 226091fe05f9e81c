"""Which of a training's policies is kept, from their rewards on the same validation examples."""

from collections.abc import Mapping, Sequence

import numpy as np


def choose_step(rewards: Mapping[int, Sequence[float]], rule: str) -> int:
    """The step to keep. `rewards`: step -> N rewards, the examples in one order.

    `best` takes the greatest mean, the earliest among equals. `one_standard_error` (Breiman et al. 1984) takes the
    earliest step that the best one does not exceed by more than one standard error of their paired difference: a gain
    that is no larger than its noise is not paid for. Examples count as independent; those of one user are not, so the
    rule asks for a little less than it says.

    >>> choose_step({0: [0.0, 0.0, 0.0], 4: [0.2, -0.2, 0.1]}, "best")
    4
    >>> choose_step({0: [0.0, 0.0, 0.0], 4: [0.2, -0.2, 0.1]}, "one_standard_error")
    0
    """
    rows = {step: np.asarray(values, dtype=np.float64) for step, values in sorted(rewards.items())}
    best = max(rows, key=lambda step: rows[step].mean())  # the first of equals
    if rule == "best":
        return best
    return next(step for step, values in rows.items() if _within_noise(rows[best] - values))


def _within_noise(gains: np.ndarray) -> bool:
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.inf
    return bool(gains.mean() <= error)
