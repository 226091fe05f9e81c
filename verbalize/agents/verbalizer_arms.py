"""The arms of the multi-step verbalizer: trained as in TextWorld, then asked for texts of the evaluation examples.

A cell is a table with a row per example: the final text, its reward, the target's rank. Its columns name example and
user, so forgetting finds its rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl

from recsys.errors import CorruptFileError
from recsys.models.settings import AdapterCard
from recsys.storage import read_parquet, write_parquet
from verbalize.agents.environment import Task, Trajectory
from verbalize.agents.evaluation import Cell, GameOutcome, key_of
from verbalize.agents.personal import users_of
from verbalize.agents.policies import ExpertPolicy
from verbalize.agents.rollouts import Memory, Policy, roll_out
from verbalize.agents.slea_arms import Arms
from verbalize.agents.slea_player import rollout_config
from verbalize.agents.slea_settings import StudySettings
from verbalize.agents.verbalization_drafts import STOP
from verbalize.agents.verbalization_env import WRITTEN
from verbalize.agents.verbalization_lessons import BRIEFING
from verbalize.agents.verbalizer_settings import KEPT
from verbalize.agents.verbalizer_world import World
from verbalize.config import plain
from verbalize.experience.embedding import Embedder
from verbalize.optimize.scoring import ScoreFunction
from verbalize.pipeline import Progress

MEASURED = ("reward", "reciprocal_rank", "rank", "hit", "compression")
"""Numbers of a text, means over its slates; `rank` of the target counts from 1."""


class VerbalizerArms(Arms):
    """Arms over a world of examples. `judged` collects the tables of the cells that were played or read."""

    def __init__(
        self,
        config: StudySettings,
        world: World,
        embedder: Embedder | None,
        folder: Path,
        progress: Progress,
        command: str,
    ) -> None:
        super().__init__(config, world.sets, world.environments, embedder, folder, progress, command, BRIEFING)
        self.world = world
        self.judged: dict[tuple[str, int], pl.DataFrame] = {}

    def kept_cell(self) -> Cell:
        """Every event with its title: what an agent that stops at once writes."""
        return self._play(KEPT, self.config.seeds[0], lambda: (ExpertPolicy(lambda task: [STOP]), None))

    def _play(self, arm: str, seed: int, agent: Callable[[], tuple[Policy, Memory | None]], *depends: Any) -> Cell:
        tasks = self.sets.test
        key = key_of(arm, seed, *depends, [plain(task) for task in tasks])
        path = self.folder / "cells" / f"{arm}-seed{seed}-{key}.parquet"
        if not path.exists():
            policy, memory = agent()
            config = rollout_config(self.config.training, system=BRIEFING.system)
            episodes = roll_out(self.environments, policy, tasks, config, memory)
            write_parquet(judge(episodes, self.world.score), path)
        table = read_cell(path, tasks)
        self.judged[arm, seed] = table
        detail = f"{fmean(table['reward']):.3f} over {len(tasks)} examples"
        self.progress.stage(f"{arm}, seed {seed}", "earned", detail)
        return _as_cell(table)

    def _card(self, arm: str) -> AdapterCard:
        note = f"A verbalizer of several steps, trained by the arm {arm} of the study {self.config.name}."
        told = {"data": self.world.source, "split": "train", "licence": self.world.licence, "note": note}
        return replace(super()._card(arm), **told)


def judge(episodes: Sequence[Trajectory], score: ScoreFunction) -> pl.DataFrame:
    """One row per episode: example_id, user_id, MEASURED, steps, shown (turns with lessons), text. The scorer has
    judged these texts in play already and answers from memory."""
    texts = [written(episode.last_observation) for episode in episodes]
    scored = score([episode.task.id for episode in episodes], texts)
    return pl.DataFrame(
        [
            {"example_id": episode.task.id, "user_id": users_of(episode.task)[0]}
            | {"reward": one.reward}
            | {name: one.components[name] for name in MEASURED[1:]}
            | {"steps": len(episode.turns), "shown": sum(bool(turn.memory) for turn in episode.turns), "text": text}
            for episode, text, one in zip(episodes, texts, scored, strict=True)
        ]
    )


def written(last_observation: str) -> str:
    """The text that an episode ended with.

    >>> written("Written: Heat; Alien")
    'Heat; Alien'
    """
    return last_observation.removeprefix(WRITTEN)


def read_cell(path: Path, tasks: Sequence[Task]) -> pl.DataFrame:
    """A cell of exactly these tasks. Raises CorruptFileError for another one."""
    table = read_parquet(path)
    if table["example_id"].to_list() != [task.id for task in tasks]:
        remedy = "delete the file; its examples are verbalized again"
        raise CorruptFileError(str(path), "holds other examples than its cell", remedy)
    return table


def _as_cell(table: pl.DataFrame) -> Cell:
    rows = table.select("example_id", "reward", "steps").iter_rows()
    games = (GameOutcome(name, "", 1, reward >= 1.0, reward, steps, 0, False) for name, reward, steps in rows)
    return Cell(tuple(games), 0.0)
