"""A recipe: the whole configuration of a run, one frozen dataclass per section, strictly loaded from YAML."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from recsys.errors import InputError
from recsys.logs.examples import ExamplesConfig
from recsys.logs.sources import SourceConfig, read_whole
from recsys.models.settings import LoraSettings
from recsys.recommenders.candidates import CandidateDisplay
from recsys.recommenders.ease import EaseConfig
from recsys.recommenders.item_knn import ItemKNNConfig
from recsys.recommenders.language import MODES, LanguageRecommenderConfig
from verbalize.config import build, load_yaml, override
from verbalize.experience.settings import MemoryConfig
from verbalize.optimize.prompt_settings import PromptEvolutionConfig
from verbalize.optimize.recommender_settings import RecommenderTrainingConfig
from verbalize.optimize.rewards import CATALOGUE, RewardConfig
from verbalize.optimize.settings import LimitsConfig, PreferenceConfig, TrainConfig, WarmStartConfig
from verbalize.pipeline import STORE
from verbalize.report.claims import check_claim_id
from verbalize.tracking import TrackingConfig
from verbalize.verbalizers.actions import CONSTANT_POLICIES, ActionConfig
from verbalize.verbalizers.displays import DISPLAYS, DisplayConfig
from verbalize.verbalizers.rewrite import RewriteConfig
from verbalize.verbalizers.slots import SlotConfig
from verbalize.verbalizers.templates import TEMPLATES

BASELINES = ("popularity", "item_knn", "ease", "year_distance", "genre_overlap", "logit")
ROLES = ("best_template", "best_template_same_fields", "best_constant")
BEST_DISPLAY = "best_display"
"""The role that a recipe with policy.kind display adds."""
LEARNED = "learned"
SHUFFLED = "learned_shuffled"
START = "before_training"
"""The policy that reinforcement learning starts from."""
TRANSFERRED = (
    "candidates",
    "templates",
    "constants",
    "recommender",
    "recommender_training",
    "policy",
    "reward",
    "warm_start",
    "train",
    "dpo",
    "gepa",
    "experience",
    "seeds",
)
"""Sections of a finished run that go with what it trained."""
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


@dataclass(frozen=True)
class PolicyConfig:
    """The verbalizer that is trained."""

    kind: Literal["actions", "rewrite", "display"] = "actions"
    """`actions` and `rewrite` write what is said of the history, `display` chooses what candidates show."""
    model: str = "smollm2-135m"
    device: str | None = None
    """None is the CPU; `cuda` on a GPU."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
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
    """Evaluated besides the templates and constants that win on validation."""
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


@dataclass(frozen=True)
class Recipe:
    """One run. `untrained_recommender` arms are evaluated beside the trained one when `recommender_training` is set."""

    name: str
    source: SourceConfig
    examples: ExamplesConfig
    title: str = ""
    licence: str = "see the data set's own terms"
    candidates: CandidateDisplay = field(default_factory=CandidateDisplay)
    sample: SampleConfig = field(default_factory=SampleConfig)
    templates: tuple[str, ...] = tuple(TEMPLATES)
    constants: tuple[str, ...] = tuple(CONSTANT_POLICIES)
    recommender: LanguageRecommenderConfig = field(default_factory=LanguageRecommenderConfig)
    recommender_training: RecommenderTrainingConfig | None = None
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    warm_start: WarmStartConfig | None = field(default_factory=WarmStartConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    dpo: PreferenceConfig | None = None
    """None trains the policy by GRPO; a section trains it by DPO, with `train` for what both have in common."""
    experience: MemoryConfig | None = None
    """None shows a policy nothing but the history; a section retrieves what served similar histories."""
    transfer_from: str | None = None
    """The folder of a finished run: nothing is trained, its recommender, policies, experience and choices of templates
    are evaluated on this recipe's logs. The sections that say what they are (`TRANSFERRED`) are then that run's."""
    gepa: PromptEvolutionConfig | None = None
    """A section evolves the instruction of a rewriter by GEPA; its weights stay as they are."""
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    seeds: tuple[int, ...] = (0,)
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    engine: Literal["local", "bucketed", "ray"] = "local"
    """How the log is made canonical and examples are built: whole, in memory; one bucket of users after the other, for
    logs larger than memory; or several buckets at once, by Ray. Same tables, so no stage's key."""

    def __post_init__(self) -> None:
        _check_name(self.name)
        _among("templates", self.templates, TEMPLATES)
        _among("evaluation.templates", self.evaluation.templates, TEMPLATES)
        _among("constants", self.constants, CONSTANT_POLICIES)
        _among("evaluation.baselines", self.evaluation.baselines, BASELINES)
        if not self.templates or not self.constants:
            raise InputError(
                "templates or constants []", "learned arms are compared with both", "list at least one of each"
            )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"seeds {list(self.seeds)}", "must be distinct and not empty", "for example [0, 1, 2]")
        if self.evaluation.split == "test" and not self.evaluation.claims:
            raise InputError(
                "evaluation.split test",
                "test users are opened under a claim only",
                "list evaluation.claims, or evaluate on validation",
            )
        if self.warm_start and self.policy.kind == "rewrite":
            raise InputError(
                "warm_start with policy.kind rewrite", "the pool holds actions, not rewrites", "set warm_start: null"
            )
        if self.train.vllm and self.policy.kind != "rewrite":
            raise InputError(
                f"train.vllm = {self.train.vllm} with policy.kind {self.policy.kind}",
                "samples texts, and actions are read off one forward pass",
                "set train.vllm: null, or policy.kind: rewrite",
            )
        if self.train.vllm and not str(self.policy.device).startswith("cuda"):
            raise InputError(
                f"train.vllm = {self.train.vllm} with policy.device {self.policy.device or 'null, the CPU'}",
                "takes the policy's weights over from a GPU",
                "set policy.device: cuda, or train.vllm: null",
            )
        if self.engine == "bucketed":
            self._check_bucketed()
        if self.dpo:
            self.dpo.check(self.train)
        if self.experience:
            _among("experience.sketch", [self.experience.sketch], TEMPLATES)
        if self.gepa:
            if self.dpo or self.policy.kind != "rewrite":
                raise InputError(
                    f"gepa with policy.kind {self.policy.kind}" + (" and dpo" if self.dpo else ""),
                    "evolves the instruction of a rewriter and trains nothing",
                    "set policy.kind: rewrite and dpo: null",
                )
            self.gepa.check(self.policy.rewrite)
        if self.recommender_training and self.recommender.mode not in MODES:
            raise InputError(
                f"recommender_training with recommender.mode {self.recommender.mode}",
                "trains a local language model only",
                "set recommender_training: null",
            )
        if self.policy.kind == "display":
            from verbalize.recipe_display import check_display

            check_display(self)
        self._check_catalogue()
        self._check_arms()

    def _check_bucketed(self) -> None:
        """Refuse what a recipe alone tells; what its mapping tells, the logs stage refuses before it reads an event."""
        kind, policy = self.source.kind, self.examples.slate.policy
        if kind in ("store", "mind"):
            raise InputError(
                f"engine bucketed with source.kind {kind}",
                read_whole(self.source),
                "set engine: local, or name files of events (source.kind: table)",
            )
        if policy == "logged":
            raise InputError(
                f"engine bucketed with examples.slate.policy {policy}",
                "needs impressions, and a log that has them is read whole",
                "set engine: local, or another slate.policy",
            )

    def _check_catalogue(self) -> None:
        """What needs every item scored is refused where a language model would have to read each of them."""
        if self.recommender.mode == "embedding":
            return
        if self.reward.kind == CATALOGUE:
            raise InputError(
                f"reward.kind = {CATALOGUE} with recommender.mode {self.recommender.mode}",
                "scores every item of the catalogue for every text, which only the sentence encoder affords",
                "set recommender.mode: embedding, or reward.kind: log_softmax",
            )
        if self.evaluation.full_catalogue and not self.evaluation.baselines:
            raise InputError(
                f"evaluation.full_catalogue with recommender.mode {self.recommender.mode} and no baselines",
                "leaves no arm that can rank a whole catalogue",
                "set recommender.mode: embedding, or list evaluation.baselines such as ease",
            )

    def _check_arms(self) -> None:
        """Refuse now what would otherwise end the run at its report, with the look at test users spent."""
        evaluation = self.evaluation
        shuffled = (SHUFFLED,) if evaluation.shuffled else ()
        texts = (LEARNED, *shuffled, *ROLES, *evaluation.templates, *evaluation.against)
        displays = (START, BEST_DISPLAY, *DISPLAYS) if self.policy.kind == "display" else ()
        taken = {LEARNED, SHUFFLED, *ROLES, *TEMPLATES, *CONSTANT_POLICIES, *BASELINES, *displays}
        for name in evaluation.against:
            if name in taken or not re.fullmatch(r"[a-z0-9_]+", name):
                raise InputError(
                    f"evaluation.against: arm {name!r}",
                    "needs a name of its own, of lower-case letters, digits and '_'",
                    "rename it",
                )
        _among("evaluation.untrained", evaluation.untrained, texts, "or add it to evaluation.templates")
        for claim in evaluation.claims:
            check_claim_id(claim.id)
            if claim.kind in ORACLE_CLAIMS and self.source.kind != "simulator":
                raise InputError(
                    f"claim {claim.id} of kind {claim.kind}",
                    f"needs a truth that source.kind {self.source.kind} does not have",
                    "set source.kind: simulator, or leave the claim out",
                )
            if claim.kind in ("noise_drop_lift", "noise_drop_recall") and self.policy.kind != "actions":
                raise InputError(
                    f"claim {claim.id} of kind {claim.kind}",
                    f"speaks of dropped events, and policy.kind {self.policy.kind} drops none",
                    "set policy.kind: actions",
                )
            if claim.kind in ("recall", "share_of_bayes"):
                arms = (*texts, *displays, *evaluation.baselines)
                _among(f"claim {claim.id}: arm", (claim.a, claim.b), arms, "or add it to evaluation.templates")
        ids = [claim.id for claim in evaluation.claims]
        for name in ids:
            if ids.count(name) > 1:
                raise InputError(f"evaluation.claims: id {name}", "is given twice", "give every claim its own id")


def load_recipe(path: Path | str, overrides: Iterable[str] = ()) -> Recipe:
    """Read, override, check. Raises InputError naming the key, the rule and the remedy.

    With `transfer_from`, sections of `TRANSFERRED` that the file leaves out are those of the run that it names.
    """
    values = override(load_yaml(path), overrides)
    if values.get("transfer_from"):
        from verbalize.stages.transfer import finished_run

        trained = finished_run(str(values["transfer_from"])).values
        values = _merged({name: trained[name] for name in TRANSFERRED if name in trained}, values)
    return build(Recipe, values)


def _merged(known: Any, given: Any) -> Any:
    """`known` with what is given in its place, section by section."""
    if isinstance(known, Mapping) and isinstance(given, Mapping):
        return {**known, **{name: _merged(known.get(name), value) for name, value in given.items()}}
    return given


def _among(where: str, names: Iterable[str], known: Iterable[str], otherwise: str = "") -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        choices = f"choose from {', '.join(dict.fromkeys(known))}"
        raise InputError(f"{where} {unknown}", "is not known", f"{choices}, {otherwise}" if otherwise else choices)


def _check_name(name: str) -> None:
    """A run's folder and its evidence are named after the recipe, beside the store of artefacts."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name == STORE:
        raise InputError(
            f"name {name!r}",
            f"names a folder and files: letters, digits, '.', '_' and '-', and not {STORE!r}",
            "rename the recipe",
        )
