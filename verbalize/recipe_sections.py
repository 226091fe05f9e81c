"""The sections that a recipe adds to those of the library, one frozen dataclass each, and the names of arms."""

from dataclasses import dataclass, field
from typing import Literal

from recsys.later import later
from recsys.models.settings import LoraSettings
from recsys.recommenders.ease import EaseConfig
from recsys.recommenders.item_knn import ItemKNNConfig
from verbalize.verbalizers.actions import ActionConfig
from verbalize.verbalizers.displays import DisplayConfig
from verbalize.verbalizers.rewrite import RewriteConfig
from verbalize.verbalizers.slots import SlotConfig

BASELINES = ("popularity", "item_knn", "ease", "year_distance", "genre_overlap", "logit")
ROLES = ("best_template", "best_template_same_fields", "best_constant")
BEST_SCRIPTED = "best_scripted"
"""The role that a recipe with `scripted` action sequences adds: the best of the rules that a warm start imitates."""
BEST_DISPLAY = "best_display"
"""The role that a recipe with policy.kind display adds."""
LEARNED = "learned"
SHUFFLED = "learned_shuffled"
START = "before_training"
"""The policy that reinforcement learning starts from."""
ORACLE_CLAIMS = ("noise_drop_lift", "noise_drop_recall", "share_of_bayes")


@dataclass(frozen=True)
class SampleConfig:
    """How many examples each step may use; None takes all there are. Chosen by a seeded order, never by content."""

    train: int | None = None
    """Training examples for the pool, the warm start and reinforcement learning."""
    train_per_user: int = 4
    """At most so many of them of one user, where `train` limits their number."""
    selection: int = 100
    """Validation examples that choose templates and checkpoints."""
    report: int = 100
    """Other validation users' examples: what training changed is measured on these, which chose nothing."""
    test: int | None = None

    @property
    def of_training(self) -> dict[str, int | None]:
        """What decides the training examples; more test examples, say, leave a finished pool as it is."""
        return {"train": self.train, "train_per_user": self.train_per_user}

    @property
    def of_validation(self) -> dict[str, int]:
        """What decides the validation examples: their users are shared out between the two purposes."""
        return {"selection": self.selection, "report": self.report}


@dataclass(frozen=True)
class PolicyConfig:
    """The verbalizer that is trained."""

    kind: Literal["actions", "rewrite", "display"] = "actions"
    """`actions` and `rewrite` write what is said of the history, `display` chooses what candidates show."""
    model: str = "smollm2-135m"
    device: str | None = None
    """None is the CPU; `cuda` on a GPU."""
    dtype: Literal["float32", "bfloat16", "float16"] = later("float32")
    """Of the frozen weights; bfloat16 halves a large policy's memory on a GPU. Adapters are trained in float32."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    actions: ActionConfig = field(default_factory=ActionConfig)
    rewrite: RewriteConfig = field(default_factory=RewriteConfig)
    display: DisplayConfig = field(default_factory=DisplayConfig)

    @property
    def slots(self) -> SlotConfig | None:
        """How a slot policy is asked; None for one that writes freely."""
        if self.kind == "rewrite":
            return None
        return self.display if self.kind == "display" else self.actions


@dataclass(frozen=True)
class ClaimConfig:
    """A claim, listed before test is opened.

    recall:         Recall@1 of arm `a` against `b` (verbalizers, baselines or ROLES), absolute or `relative`; these are
                    the primary claims, corrected together (Holm)
    learned_margin: mean margin after minus before reinforcement learning, on validation users who chose nothing
    pool_headroom:  what choosing a candidate per user would gain over the best constant choice, cross-fitted on
                    training users
    seconds:        wall time of all stages

    of simulated logs, whose truth is known (`recsys.simulator`):

    noise_drop_lift:   share of noise among the events that the learned arm drops, over that among all it was shown
    noise_drop_recall: share of the shown noise that it drops
    share_of_bayes:    Recall@1 of arm `a` over the Bayes optimum of the same slates

    `targets` narrows recall and share_of_bayes to discoveries, or to works the user knew already.
    """

    id: str
    statement: str
    kind: Literal[
        "recall",
        "learned_margin",
        "pool_headroom",
        "seconds",
        "noise_drop_lift",
        "noise_drop_recall",
        "share_of_bayes",
    ] = "recall"
    a: str = LEARNED
    b: str = "best_template"
    relative: bool = False
    targets: Literal["all", "discovery", "known"] = "all"
    target: float | None = 0.0
    direction: Literal["higher", "lower"] = "higher"
    criterion: Literal["interval", "value"] = "interval"


@dataclass(frozen=True)
class BaselinesConfig:
    """Settings of the baselines that have any; `evaluation.baselines` says which are ranked."""

    item_knn: ItemKNNConfig = field(default_factory=ItemKNNConfig)
    ease: EaseConfig | None = None
    """None chooses the ridge from a grid on the selection examples."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Which arms meet which examples."""

    split: Literal["validation", "test"] = "validation"
    """`validation` means the report sample; `test` opens the test users under the claims and records the look."""
    templates: tuple[str, ...] = ("concatenation",)
    """Evaluated besides those, and the constants, that win on validation; names of the recipe's `scripted`, too."""
    baselines: tuple[str, ...] = BASELINES
    claims: tuple[ClaimConfig, ...] = ()
    register: str = "runs/looks.json"
    """Where looks at test users are recorded; a recipe whose results are committed keeps it beside them."""
    untrained: tuple[str, ...] = ()
    """Arms that also meet the untrained recommender, where the recipe trains one."""
    shuffled: bool = True
    against: dict[str, str] = field(default_factory=dict)
    """Further arms: a name -> the folder of a finished run whose policies, with their own prompts and experience, write
    texts of the same examples for the same recommender."""
    example_browser: int = 12
    """Examples shown in the report; 0 where the data's licence forbids showing them to others."""
    full_catalogue: bool = False
    """Rank the same targets among every item that was available and untouched, too: texts where the recommender is the
    sentence encoder (`recommender.mode: embedding`), and the baselines."""
