"""A recipe: the whole configuration of a run, one frozen dataclass per section, strictly loaded from YAML."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from recsys.later import later
from recsys.logs.examples import ExamplesConfig
from recsys.logs.sources import SourceConfig
from recsys.recommenders.candidates import CandidateDisplay
from recsys.recommenders.language import LanguageRecommenderConfig
from verbalize.config import build, load_yaml, override
from verbalize.experience.settings import MemoryConfig
from verbalize.optimize.prompt_settings import PromptEvolutionConfig
from verbalize.optimize.recommender_settings import RecommenderTrainingConfig
from verbalize.optimize.rewards import RewardConfig
from verbalize.optimize.settings import LimitsConfig, PreferenceConfig, TrainConfig, WarmStartConfig
from verbalize.recipe_checks import check_recipe
from verbalize.recipe_sections import (
    BEST_SCRIPTED,
    ROLES,
    BaselinesConfig,
    EvaluationConfig,
    PolicyConfig,
    SampleConfig,
)
from verbalize.tracking import TrackingConfig
from verbalize.verbalizers.actions import CONSTANT_POLICIES
from verbalize.verbalizers.templates import TEMPLATES

TRANSFERRED = (
    "candidates",
    "templates",
    "constants",
    "scripted",
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


@dataclass(frozen=True)
class Recipe:
    """One run, from a log to a report."""

    name: str
    source: SourceConfig
    examples: ExamplesConfig
    title: str = ""
    licence: str = "see the data set's own terms"
    candidates: CandidateDisplay = field(default_factory=CandidateDisplay)
    sample: SampleConfig = field(default_factory=SampleConfig)
    templates: tuple[str, ...] = tuple(TEMPLATES)
    constants: tuple[str, ...] = tuple(CONSTANT_POLICIES)
    scripted: tuple[str, ...] = later(())
    """Candidates of the pool, such as `liked_metadata`, that are judged beside templates and constants. A warm start
    imitates them: a policy that beats the constants and not the best of these has learned a rule that was given."""
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
        check_recipe(self)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that validation gives to a template or an action sequence."""
        return (*ROLES, BEST_SCRIPTED) if self.scripted else ROLES


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
