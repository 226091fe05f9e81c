"""Settings of recommender training. Standard library only: the configuration of a run is read before torch is."""

from dataclasses import dataclass, field

from recsys.errors import InputError
from recsys.later import later
from recsys.models.settings import LoraSettings

METHODS = {"cross_entropy": "cross-entropy", "grpo": "GRPO with rewards +1 and -1"}
"""How the recommender learns -> what its card says of it."""


@dataclass(frozen=True)
class RecommenderTrainingConfig:
    """Cross-entropy over the slate, or GRPO on its answers, on texts of every style in equal shares.

    The texts decide whom the recommender favours: trained on one template it prefers that template. Here each training
    example shows a text drawn from `templates` or from random keep/drop x metadata actions: no arm is privileged.
    """

    method: str = later("cross_entropy")
    """`grpo`: softmax(score_scale x scores) is a policy whose answers are candidates: +1 for the target, else -1."""
    answers: int | None = later(None)
    """`grpo` only: answers sampled per slate. None takes the exact mean over all of them, which has no noise."""
    scale_advantages: bool = later(True)
    """`grpo` only: divide advantages by their spread over the answers of a slate, as GRPO does; False is REINFORCE."""
    templates: tuple[str, ...] = ("titles", "titles_metadata", "concatenation")
    random_actions: float = 0.5
    """Share of examples whose text comes from random actions instead of a template."""
    learned: str | None = None
    """Folder `train/<key>/seed-<N>` of an earlier run with this recipe's `policy`: what that policy writes is one more
    style beside `templates`. With `templates: []` and `random_actions: 0` it is the only one, as in the paper."""
    examples: int = 600
    """Slates seen in all; beyond the training examples at hand these come round again, negatives and texts redrawn."""
    users: float = 0.7
    """Share of the training users it learns from. The others reward the verbalizer: a target that was learned by heart
    is found whatever the text says."""
    targets_per_user: int | None = later(None)
    """How many targets of each of them; None: those of `examples`, 0: all before the training window ends. More than a
    verbalizer is judged by."""
    accumulation: int = 8
    learning_rate: float = 3e-4
    score_scale: float = 0.15
    """Multiplies scores before the softmax: summed log-probability ratios span tens of nats, and training on them as
    they are diverges. A sentence encoder divides its cosines by `recommender.embedding.temperature` already: 1."""
    max_grad_norm: float = 1.0
    lora: LoraSettings = field(default_factory=LoraSettings)
    seed: int = 0
    save_every: int = 80
    """Examples between checkpoints; a multiple of `accumulation`."""

    def __post_init__(self) -> None:
        for name in ("examples", "accumulation", "save_every"):
            if getattr(self, name) < 1 or getattr(self, name) % self.accumulation:
                raise InputError(
                    f"recommender_training.{name} = {getattr(self, name)}",
                    f"must be a positive multiple of accumulation = {self.accumulation}",
                    "round it up",
                )
        if self.method not in METHODS:
            raise InputError(
                f"recommender_training.method = {self.method!r}",
                f"is not one of {', '.join(METHODS)}",
                "choose one of these",
            )
        if self.method != "grpo" and (self.answers is not None or not self.scale_advantages):
            name = "answers" if self.answers is not None else "scale_advantages"
            raise InputError(
                f"recommender_training.{name} = {getattr(self, name)}",
                f"belongs to method grpo, and the method is {self.method}",
                f"leave {name} out, or set recommender_training.method: grpo",
            )
        if self.answers is not None and self.answers < 2:
            raise InputError(
                f"recommender_training.answers = {self.answers}",
                "advantages compare the answers to one slate",
                "sample at least 2, or set null for the exact mean",
            )
        if self.targets_per_user is not None and self.targets_per_user < 0:
            raise InputError(
                f"recommender_training.targets_per_user = {self.targets_per_user}",
                "is a number of targets from 1, or 0 for all",
                "set 0, or null for those of examples",
            )
        if not 0 < self.users < 1:
            raise InputError(
                f"recommender_training.users = {self.users}",
                "is a share in (0, 1): the recommender and the verbalizer learn from different users",
                "try 0.7",
            )
        if not 0 <= self.random_actions <= 1:
            raise InputError(
                f"recommender_training.random_actions = {self.random_actions}", "is a share in [0, 1]", "try 0.5"
            )
