"""The arms of the SLEA-RL study: trained, then judged on the test games; each run and cell under a key of what it
depends on, so that the same study resumes and a changed option repeats only what follows from it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from recsys.models.loading import LanguageModel, load_language_model, resolve_model, weights_digest
from recsys.models.settings import AdapterCard
from recsys.storage import read_json
from verbalize.agents.evaluation import Cell, key_of, play_cell
from verbalize.agents.policies import RandomPolicy
from verbalize.agents.pool import Environments
from verbalize.agents.rollouts import Memory, Policy
from verbalize.agents.slea_briefing import Briefing
from verbalize.agents.slea_player import AgentPlayer, open_library, rollout_config
from verbalize.agents.slea_settings import RANDOM, START, ArmConfig, StudySettings
from verbalize.agents.slea_study import TaskSets
from verbalize.agents.slea_training import ADAPTER, LIBRARY, RESULT, learning_curve, mean_of, train_agent
from verbalize.config import plain
from verbalize.experience.embedding import Embedder
from verbalize.experience.library import ExperienceLibrary
from verbalize.optimize.curves import Curves
from verbalize.pipeline import Progress
from verbalize.report.provenance import revision


class Arms:
    """What all arms share: the starting policy, the games, the environments, the folder."""

    def __init__(
        self,
        config: StudySettings,
        sets: TaskSets,
        environments: Environments,
        embedder: Embedder | None,
        folder: Path,
        progress: Progress,
        command: str,
        briefing: Briefing | None = None,
    ) -> None:
        self.briefing = briefing or Briefing()
        self.config, self.sets, self.environments, self.embedder = config, sets, environments, embedder
        self.folder, self.progress, self.command = folder, progress, command
        self.base = [weights_digest(resolve_model(config.model)), config.dtype]
        self.adapter = None if config.adapter is None else Path(config.adapter)
        self.begin = None if self.adapter is None else weights_digest(self.adapter)

    def train(self, arm: str, seed: int) -> Path:
        """The folder of a trained arm."""
        config, method = self.config, self.config.arms[arm]
        depends = [self.base, self.begin, plain(method), plain(config.training), plain(config.lora), seed]
        depends += [plain(config.experience) if method.needs_library else None]
        depends += [[plain(task) for task in part] for part in (self.sets.train, self.sets.development)]
        folder = self.folder / "runs" / f"{arm}-seed{seed}-{key_of(*depends)}"
        if (folder / RESULT).exists():
            return folder
        name, budget = f"{arm}, seed {seed}", config.training.environment_steps
        self.progress.stage(name, "trains", f"for {budget} environment steps")

        def on_step(record: Mapping[str, Any]) -> None:
            spent = record.get("environment_steps", record.get("component.environment_steps", 0))
            detail = f"{record['kind']} success {record['component.success']:.2f}"
            self.progress.step(name, min(int(spent), budget), budget, detail)

        train_agent(
            self._load(self.adapter),
            self.environments,
            self.sets.train,
            self.sets.development,
            method,
            config.training,
            folder,
            card=self._card(arm),
            seed=seed,
            lora=config.lora,
            experience=config.experience,
            embedder=self.embedder,
            on_step=on_step,
            briefing=self.briefing,
        )
        return folder

    def final_cell(self, arm: str, seed: int, trained: Path) -> Cell:
        """The trained agent in the test games, its library open for reading only."""
        config, method = self.config, self.config.arms[arm]

        def agent() -> tuple[Policy, Memory | None]:
            if not method.retrieval:  # clusters gave credit in training; without lessons they show nothing
                return self._agent(ArmConfig(), trained / ADAPTER)
            library = open_library(trained / LIBRARY, config.experience, config.training, self.embedder, read_only=True)
            return self._player(method, trained / ADAPTER, library).evaluated(library)

        return self._play(arm, seed, agent, trained.name)

    def start_cell(self) -> Cell:
        """The policy that every arm starts from."""
        depends = self.base, self.begin, plain(self.config.training)
        return self._play(START, self.config.seeds[0], lambda: self._agent(ArmConfig(), self.adapter), *depends)

    def random_cell(self) -> Cell:
        """Chance, the floor."""
        return self._play(RANDOM, self.config.seeds[0], lambda: (RandomPolicy(self.config.seeds[0]), None))

    def _play(self, arm: str, seed: int, agent: Callable[[], tuple[Policy, Memory | None]], *depends: Any) -> Cell:
        tasks = self.sets.test
        key = key_of(arm, seed, *depends, [plain(task) for task in tasks])
        path = self.folder / "cells" / f"{arm}-seed{seed}-{key}.json"
        config = rollout_config(self.config.training, system=self.briefing.system)
        cell = play_cell(path, tasks, self.environments, agent, config)
        self.progress.stage(f"{arm}, seed {seed}", "won", f"{cell.success:.3f} of {len(tasks)} test games")
        return cell

    def _agent(self, method: ArmConfig, adapter: Path | None) -> tuple[Policy, Memory | None]:
        return self._player(method, adapter, None).evaluated(None)

    def _player(self, method: ArmConfig, adapter: Path | None, library: ExperienceLibrary | None) -> AgentPlayer:
        policy, training = self._load(adapter), self.config.training
        return AgentPlayer(policy, self.environments, method, training, 0, library, self.briefing)

    def _load(self, adapter: Path | None) -> LanguageModel:
        """The model; an adapter's dropout is switched off, as acting and learning must see one policy."""
        device = "cuda" if torch.cuda.is_available() else None
        lm = load_language_model(self.config.model, self.config.dtype, adapter, device)
        for settings in getattr(lm.model, "peft_config", {}).values():
            settings.lora_dropout = 0.0
        for module in lm.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return lm

    def _card(self, arm: str) -> AdapterCard:
        families = sorted({f"{task.family}-{task.difficulty}" for task in self.sets.train})
        return AdapterCard(
            base_name=self.config.model,
            base_hash=self.base[0],
            data=f"TextWorld games: {', '.join(families)}",
            split="training games",
            licence="Apache-2.0",
            command=self.command,
            revision=revision(),
            note=f"An agent of text games, trained by the arm {arm} of the study {self.config.name}.",
        )


def facts_of(trained: Path) -> dict[str, Any]:
    """What a run says of itself: steps, the learning curve, who wrote the lessons and how often they were shown."""
    last: dict[str, Any] = next(iter(reversed(Curves(trained / "curves.jsonl").of_kind("train"))), {})
    counts = ("lessons", "lessons_by_model", "lessons_by_rules", "clusters")
    shares = ("shown", "shown_by_model", "shown_by_rules", "policy_entropy")
    result = read_json(trained / RESULT)
    return {
        "batches": result["batches"],
        "environment_steps": result["environment_steps"],
        "development": [list(point) for point in learning_curve(trained)],
        "dead_groups": round(mean_of(trained, "groups.dead_groups"), 6),
        **{name: int(last.get(f"component.{name}", 0)) for name in counts},
        **{name: round(mean_of(trained, f"component.{name}"), 6) for name in shares},
    }
