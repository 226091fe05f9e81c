"""The verbalization task over a recipe's examples: its log, its slates, its recommender; nothing is prepared twice.

The recipe's own stages are carried out up to its recommender, in the store of artefacts that runs share. Who is asked
about what follows the recipe too: training examples are those that teach its verbalizer (of users the recommender did
not learn from), the learning curve is measured on validation users who select, the evaluation on those who only report.
Test users are never read.

The reward is one that is at most 1, as the task wants it: the target's reciprocal rank, or the paper's. Slates (M
redraws) and alpha are the recipe's; weights of length and faithfulness are left out, as the executor's texts are
faithful and nothing must exceed 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl

from recsys.errors import InputError
from verbalize.agents.environment import Task
from verbalize.agents.evaluation import key_of
from verbalize.agents.personal import PersonalTask
from verbalize.agents.pool import LocalEnvironments
from verbalize.agents.slea_study import TaskSets
from verbalize.agents.verbalization_drafts import DraftConfig
from verbalize.agents.verbalization_env import FAMILY, Verbalization
from verbalize.agents.verbalizer_settings import Config
from verbalize.config import plain
from verbalize.optimize.rewards import ConfiguredReward, Ranking, RewardConfig, Scored, TextTraits
from verbalize.optimize.scoring import RewardScorer, ScoreFunction
from verbalize.optimize.traits import text_traits
from verbalize.pipeline import STORE, Progress, run_stages
from verbalize.recipe import Recipe, load_recipe
from verbalize.stages import recommender, samples, stages_of
from verbalize.verbalizers.base import verbalizer_inputs


@dataclass(frozen=True)
class World:
    """Tasks, the environments they are played in, and the scorer that judges texts: example ids and texts -> `Scored`,
    whose components hold `reciprocal_rank`, `rank`, `hit` and `compression`.

    `parts`: example_id, user_id and part (train, development, evaluation) of every task. `key` names all that outcomes
    depend on besides the tasks and the agent. `source` and `licence` go into the cards of adapters.
    """

    sets: TaskSets
    environments: LocalEnvironments
    score: ScoreFunction
    parts: pl.DataFrame
    key: str
    source: str
    licence: str


@dataclass(frozen=True)
class RankedReward:
    """A reward that also notes the mean rank of the target over the slates, as a component."""

    config: RewardConfig

    def __call__(self, traits: Sequence[TextTraits], rankings: Sequence[Sequence[Ranking]]) -> list[Scored]:
        scored = ConfiguredReward(self.config)(traits, rankings)
        return [
            Scored(one.reward, one.components | {"rank": fmean(ranking.rank for ranking in rows)})
            for one, rows in zip(scored, rankings, strict=True)
        ]


def prepare_world(config: Config, runs: Path, progress: Progress, command: str) -> World:
    """Carry out what is missing of the recipe's data and recommender, then draw the tasks.

    Raises InputError when the recipe holds fewer examples of a part than the study asks for.
    """
    recipe = load_recipe(config.recipe, config.overrides)
    stages = stages_of(recipe, command)
    last = "recommender" if any(stage.name == "recommender" for stage in stages) else "examples"
    inputs = run_stages(stages, runs / STORE, progress, until=last)
    parts = sample_parts(config, recipe, inputs["examples"])
    examples = pl.concat(parts.values())
    reward = RewardConfig(kind=config.reward, alpha=recipe.reward.alpha, slates=recipe.reward.slates)
    score = RewardScorer(
        recommender.open_recommender(recipe, inputs),
        samples.load_slates(inputs["examples"], examples),
        RankedReward(reward),
        text_traits(examples, recommender.length_tokenizer(recipe)),
    )
    drafts = DraftConfig(config.session_gap_minutes, config.max_sessions, recipe.policy.actions)
    world = Verbalization(verbalizer_inputs(examples), lambda: score, drafts)
    told = [pl.DataFrame({"part": [name] * len(frame)}) for name, frame in parts.items()]
    return World(
        TaskSets(*(personal_tasks(frame, config.max_steps) for frame in parts.values())),
        LocalEnvironments(world, config.environments),
        score,
        pl.concat([examples.select("example_id", "user_id"), pl.concat(told)], how="horizontal"),
        key_of(*_identity(recipe, inputs, reward), plain(drafts)),
        f"{recipe.source.kind} {Path(recipe.source.path).name} by the recipe {recipe.name}",
        recipe.licence,
    )


def personal_tasks(examples: pl.DataFrame, max_steps: int) -> list[Task]:
    """One task per row of example_id, user_id, cutoff_time; see `verbalization_env.verbalization_tasks`."""
    return [
        PersonalTask(str(example_id), FAMILY, 0, max_steps=max_steps, user=str(user), cutoff=cutoff)
        for example_id, user, cutoff in examples.select("example_id", "user_id", "cutoff_time").iter_rows()
    ]


def sample_parts(config: Config, recipe: Recipe, folder: Path) -> dict[str, pl.DataFrame]:
    """The examples of each part, in hash order: a larger count only adds to a smaller one."""
    wanted = replace(recipe, sample=replace(recipe.sample, train=config.examples.train))
    selection, report = samples.validation_samples(recipe, folder)
    parts = {
        "train": (samples.training_sample(wanted, folder), "its training users hold no more"),
        "development": (selection, "its sample.selection is no larger"),
        "evaluation": (report, "its sample.report is no larger"),
    }
    chosen = {}
    for name, (frame, why) in parts.items():
        count = getattr(config.examples, name)
        if len(frame) < count:
            raise InputError(
                f"examples.{name} = {count}",
                f"the recipe {recipe.name} gives {len(frame)}: {why}",
                "ask for fewer, or widen the recipe by `overrides`",
            )
        chosen[name] = frame.head(count)
    return chosen


def _identity(recipe: Recipe, inputs: Any, reward: RewardConfig) -> list[Any]:
    """What decides a text's reward: the examples, the recommender as trained and as asked, the reward."""
    keys = [inputs[name].name for name in ("examples", "recommender") if name in inputs]
    return [keys, recommender.identity(recipe.recommender), plain(recipe.candidates), plain(reward)]
