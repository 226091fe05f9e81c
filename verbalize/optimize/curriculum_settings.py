"""Settings of the curriculum. Standard library only: the configuration of a run is read before torch is."""

from dataclasses import dataclass

from recsys.errors import InputError


@dataclass(frozen=True)
class CurriculumConfig:
    """Draw training prompts in proportion to how much the rewards of their rollouts have differed so far."""

    floor: float = 0.25
    """Share of the draws that is uniform over all prompts. No prompt is ever given up, since the policy that made its
    group dead changes; and no weight of `unbiased` exceeds 1 / floor."""
    smoothing: float = 1.0
    """Groups of rollouts that the mean variance of all prompts counts as, beside a prompt's own: one group of a few
    rollouts says little."""
    decay: float = 0.7
    """What a group counts once a newer one of the same prompt is there; 1 forgets nothing, small follows the policy."""
    unbiased: bool = True
    """Multiply a group's advantages by uniform / drawn probability: expected gradients stay those of uniform draws, and
    only their noise is less. False turns the objective towards prompts that still differ."""

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            raise InputError(
                f"train.curriculum.floor = {self.floor}",
                "must lie in (0, 1]: at 0 a prompt whose rollouts once agreed would never be drawn again",
                "try 0.25",
            )
        if self.smoothing <= 0:
            raise InputError(f"train.curriculum.smoothing = {self.smoothing}", "must be above 0", "try 1")
        if not 0 < self.decay <= 1:
            raise InputError(f"train.curriculum.decay = {self.decay}", "must lie in (0, 1]", "try 0.7")
