"""Limits that end a run with an explanation before it spends hours on a collapsed policy."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from transformers import TrainerCallback, TrainerControl

from verbalize.optimize.settings import LimitsConfig
from verbalize.processes import share


def broken_limit(records: Sequence[Mapping[str, Any]], limits: LimitsConfig) -> str | None:
    """The explanation of the first limit broken by a run's log so far (oldest first), or None.

    Records hold `step` and any of `kl`, `entropy`, `completion_length`, `groups.dead_groups`; a record without a
    quantity is skipped. A window limit needs a full window, so that one unlucky step stops nothing; KL counts at once.
    """
    if limits.max_kl is not None:
        values = _last(records, "kl", 1)
        if values and values[-1] > limits.max_kl:
            return (
                f"KL {values[-1]:.3g} to the starting policy is above max_kl = {limits.max_kl:g}: the policy has left "
                "the region where the reward was meant to hold. Raise beta, lower the learning rate or the limit"
            )
    for key, bound, above, advice in (
        (
            "entropy",
            limits.min_entropy,
            False,
            "rollouts of a group no longer differ; add entropy_bonus or label smoothing",
        ),
        ("completion_length", limits.max_completion_length, True, "texts are growing; add length_weight to the reward"),
        (
            "groups.dead_groups",
            limits.max_dead_groups,
            True,
            "hardly any group carries a gradient; use a denser reward",
        ),
    ):
        values = _last(records, key, limits.window)
        if bound is None or len(values) < limits.window:
            continue
        mean = fmean(values)
        if (mean > bound) if above else (mean < bound):
            name = f"{'max' if above else 'min'}_{key.rpartition('.')[2]}"
            return f"mean {key} over {limits.window} steps is {mean:.3g}, beyond {name} = {bound:g}: {advice}"
    return None


class StopAtLimits(TrainerCallback):
    """Stops the trainer when the log breaks a limit; `reason` then says why. `every`: steps that share rollouts."""

    def __init__(self, limits: LimitsConfig, records: Sequence[Mapping[str, Any]], every: int) -> None:
        self.limits, self.records, self.every = limits, records, every
        self.reason: str | None = None

    def on_log(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every:  # only where no rollout is pending may a run end in a checkpoint
            return
        if self.reason is None:
            self.reason = share(broken_limit(self.records, self.limits))  # all processes stop, or none
        if self.reason is not None:
            control.should_training_stop = control.should_save = True


def _last(records: Sequence[Mapping[str, Any]], key: str, count: int) -> list[float]:
    return [record[key] for record in records if record.get(key) is not None][-count:]
