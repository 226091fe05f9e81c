"""Settings of policy training. Standard library only: the configuration of a run is read before torch is."""

from dataclasses import dataclass
from typing import Any

from recsys.errors import InputError
from recsys.later import later
from verbalize.config import plain
from verbalize.optimize.curriculum_settings import CurriculumConfig

LOSSES = ("dapo", "grpo", "dr_grpo", "bnpo")
SCALINGS = ("batch", "group", "none")
CHOICES = ("best", "one_standard_error")
CREDITS = ("group", "slots")
VLLM_MODES = ("colocate", "server")


@dataclass(frozen=True)
class LimitsConfig:
    """Bounds that end a run early, with an explanation. None switches a limit off; a window counts optimizer steps."""

    max_kl: float | None = 2.0
    """Nats per slot (or token) from the policy the run started with; from even to certain is 1.4."""
    min_entropy: float | None = 0.02
    """Nats per slot (or token), mean over the window: below it all rollouts of a group are alike."""
    max_completion_length: float | None = None
    """Mean tokens per rollout; only meaningful for rewrites, whose length can blow up."""
    max_dead_groups: float | None = 0.95
    """Mean share, over the window, of groups whose rewards are all equal: such groups carry no gradient."""
    window: int = 10

    def without_rollouts(self) -> "LimitsConfig":
        """Only `max_kl`: the others judge rollouts, and DPO draws none while it trains."""
        return LimitsConfig(self.max_kl, min_entropy=None, max_completion_length=None, max_dead_groups=None)


@dataclass(frozen=True)
class TrainConfig:
    """GRPO on the verbalizer's policy. One optimizer step = one generation, `prompts_per_step` x `group_size` rollouts.

    With `iterations` > 1 the same rollouts serve that many consecutive optimizer steps (clipped importance ratios);
    checkpoints and validations then fall on multiples of it, where no generated rollout is pending.
    """

    steps: int = 100
    prompts_per_step: int = 4
    group_size: int = 8
    iterations: int = 1
    learning_rate: float = 2e-4
    warmup_steps: int = 0
    beta: float = 0.0
    """Weight of the KL to the policy the run starts with (the warm-started one, if any)."""
    epsilon: float = 0.2
    temperature: float = 1.0
    entropy_bonus: float = 0.0
    loss_type: str = "dapo"
    scale_rewards: str = "batch"
    """`batch`: one spread for the whole step; `group` blows nearly equal rewards up to full strength."""
    max_grad_norm: float = 1.0
    seed: int = 0
    save_every: int = 10
    eval_every: int = 10
    prompt_budget: int = 1024
    """Tokens of an action prompt: longer ones lose their oldest events before the trainer sees them."""
    prompts_per_forward: int = 1
    """Distinct prompts in one forward and backward pass: 1 keeps memory small on a CPU; raise it on a GPU."""
    shared_prefix: bool = True
    """Rewrites: compute a prompt once for all its rollouts. Actions always do. False is stock TRL."""
    vllm: str | None = later(None)
    """Rewrites sampled by vLLM: `colocate` in the training process, `server` in one that `vllm serve` started. None
    samples here. The loss is the same."""
    vllm_server: str | None = None
    """The server's address, such as http://localhost:8000, for `vllm: server` alone. Prompts, which quote histories,
    are sent there, and the weights with every step."""
    choose: str = later("best")
    """Which policy validation keeps: the `best`, or by `one_standard_error` the earliest that the best does not exceed
    by more than its noise (`selection.py`)."""
    curriculum: CurriculumConfig | None = later(None)
    """None draws every prompt equally often; a section draws those whose rollouts differ in reward more often."""

    credit: str = later("group")
    """Actions: `group` pays a rollout's actions alike, by its reward against those of its group; `slots` pays each for
    itself, by the rewards with this action changed (`slot_credit`): more texts to score, fewer steps."""

    def __post_init__(self) -> None:
        positive = {
            name: getattr(self, name)
            for name in (
                "steps",
                "prompts_per_step",
                "iterations",
                "save_every",
                "eval_every",
                "prompt_budget",
                "prompts_per_forward",
                "temperature",
                "learning_rate",
            )
        }
        for name, value in positive.items():
            if value <= 0:
                raise InputError(f"train.{name} = {value}", "must be above 0", f"set train.{name} to a positive number")
        if self.group_size < 2:
            raise InputError(
                f"train.group_size = {self.group_size}",
                "advantages compare rollouts of one prompt",
                "set train.group_size >= 2",
            )
        for name in ("steps", "save_every", "eval_every"):
            if getattr(self, name) % self.iterations:
                raise InputError(
                    f"train.{name} = {getattr(self, name)}",
                    f"must be a multiple of train.iterations = {self.iterations}, so that a run is only "
                    "saved, judged or ended where no rollout is pending",
                    f"change train.{name}",
                )
        if self.prompts_per_step % self.prompts_per_forward:
            raise InputError(
                f"train.prompts_per_forward = {self.prompts_per_forward}",
                f"must divide train.prompts_per_step = {self.prompts_per_step}",
                "change one of them",
            )
        for name, allowed in (
            ("loss_type", LOSSES),
            ("scale_rewards", SCALINGS),
            ("choose", CHOICES),
            ("credit", CREDITS),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"train.{name} = {getattr(self, name)!r}",
                    f"is not one of {', '.join(allowed)}",
                    "choose one of these",
                )
        if self.credit == "slots" and (self.scale_rewards == "group" or self.beta):
            raise InputError(
                f"train.credit = 'slots' with train.scale_rewards = {self.scale_rewards!r}, train.beta = {self.beta}",
                "compares no rollouts of a group, and weighs actions that were not drawn, of which no KL is estimated",
                "set train.scale_rewards=batch or none, and train.beta=0",
            )
        self._check_vllm()

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that decide what is learned: where a server listens does not."""
        known: dict[str, Any] = plain(self)
        del known["vllm_server"]
        return known

    @property
    def notice(self) -> str | None:
        """The line to print first where training sends texts to another program: what leaves, and where to.

        >>> print(TrainConfig(vllm="server", vllm_server="http://localhost:8000").notice)
        train.vllm: prompts, which quote users' histories, and the policy's weights go to http://localhost:8000
        """
        if self.vllm_server is None:
            return None
        return f"train.vllm: prompts, which quote users' histories, and the policy's weights go to {self.vllm_server}"

    def _check_vllm(self) -> None:
        if self.vllm not in (None, *VLLM_MODES):
            raise InputError(
                f"train.vllm = {self.vllm!r}", f"is none of null, {', '.join(VLLM_MODES)}", "choose one of these"
            )
        if (self.vllm == "server") != (self.vllm_server is not None):
            raise InputError(
                f"train.vllm = {self.vllm} with train.vllm_server = {self.vllm_server}",
                "an address goes with `vllm: server` and with nothing else",
                "set train.vllm_server=http://HOST:PORT, or leave it out" if self.vllm else "set train.vllm=server",
            )
        if self.vllm_server is not None and not self.vllm_server.startswith(("http://", "https://")):
            raise InputError(
                f"train.vllm_server = {self.vllm_server!r}",
                "is no address of a server",
                "write it with its scheme and port, for example http://localhost:8000",
            )


GRPO_ONLY = (
    "iterations",
    "beta",
    "epsilon",
    "entropy_bonus",
    "loss_type",
    "scale_rewards",
    "vllm",
    "curriculum",
    "credit",
)
"""Settings of `TrainConfig` that mean nothing without rollouts; `PreferenceConfig` has a beta of its own."""


@dataclass(frozen=True)
class PreferenceConfig:
    """DPO instead of GRPO: learn from pairs of which one served the recommender better.

    `TrainConfig` still says how many steps, how large, how fast, and when to judge. Actions take their pairs from the
    scored pool and use no rollouts; rewrites sample `train.group_size` texts per prompt once, before training.
    """

    beta: float = 0.1
    """Strength of the tie to the policy the run starts with: small moves far on little evidence."""
    min_gap: float = 0.25
    """Least difference of rewards, in the reward's unit, that counts as a preference: below it lies mostly luck."""
    pairs_per_prompt: int = 4
    """At most so many pairs of one prompt: best against worst, second best against second worst, and so on."""

    def __post_init__(self) -> None:
        for name in ("beta", "min_gap", "pairs_per_prompt"):
            if getattr(self, name) <= 0:
                raise InputError(
                    f"dpo.{name} = {getattr(self, name)}", "must be above 0", f"set dpo.{name} to a positive number"
                )

    def check(self, train: TrainConfig) -> None:
        """Refuse settings of `train` that DPO would ignore. Raises InputError naming the first of them."""
        defaults = TrainConfig()
        for name in GRPO_ONLY:
            if getattr(train, name) != getattr(defaults, name):
                raise InputError(
                    f"train.{name} = {getattr(train, name)} with dpo",
                    "belongs to GRPO and would be ignored",
                    f"leave train.{name} out, or set dpo: null" + (" (or mean dpo.beta)" if name == "beta" else ""),
                )


@dataclass(frozen=True)
class WarmStartConfig:
    """Supervising the policy on the pool's best candidates before any reinforcement learning."""

    epochs: int = 2
    batch_size: int = 8
    learning_rate: float = 2e-4
    soft_temperature: float | None = None
    """None imitates each example's best candidate; a number t imitates softmax(margin / t) over its whole pool."""
    pooled: bool = False
    """Imitate candidates by how likely each is the best, judged over all users and what returns of a user's own
    (`pooling`); `soft_temperature` must be null."""
    effect_temperature: float | None = later(None)
    """A number t imitates no candidate: the policy is paid for each action what that alone does to the reward, all
    other events kept with metadata (`stages.effects`), and t times its entropy. In the reward's unit; it stands in for
    smoothing and bonus. `soft_temperature` must be null and `pooled` false."""
    label_smoothing: float = 0.1
    """Share of the target moved to the uniform distribution, so that no action starts with probability near 0."""
    entropy_bonus: float = 0.02
    max_grad_norm: float = 1.0
    seed: int = 0
    each_seed: bool = later(False)
    """One for every seed of the recipe, from that seed, at as many times the cost: intervals then cover its luck, too.
    False is one for all, from `seed`."""
    save_every: int = 10

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "save_every"):
            if getattr(self, name) <= 0:
                raise InputError(
                    f"warm_start.{name} = {getattr(self, name)}",
                    "must be above 0",
                    f"set warm_start.{name} to a positive number",
                )
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"warm_start.label_smoothing = {self.label_smoothing}", "must lie in [0, 1)", "try 0.1")
        for name in ("soft_temperature", "effect_temperature"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise InputError(f"warm_start.{name} = {value}", "must be above 0", "use null to go without")
        if self.effect_temperature is not None and (self.pooled or self.soft_temperature is not None):
            raise InputError(
                f"warm_start.effect_temperature = {self.effect_temperature} with pooled or soft_temperature",
                "learns from single events and from no candidates",
                "set warm_start.pooled=false and warm_start.soft_temperature=null",
            )
        if self.pooled and self.soft_temperature is not None:
            raise InputError(
                f"warm_start.soft_temperature = {self.soft_temperature} with pooled: true",
                "are two ways to weigh the same candidates",
                "set warm_start.soft_temperature=null",
            )

    @property
    def imitates(self) -> bool:
        """Whether it learns from the pool's candidates, and not from single events."""
        return self.effect_temperature is None
