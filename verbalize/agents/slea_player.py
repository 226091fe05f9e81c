"""One agent in its games: plays batches for the trainer, lets the library evolve, plays development games.

All that a run accumulates beside its weights is here: the count of environment steps and the library. `state` names
both for a checkpoint, `restore` puts them back.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np

from recsys.errors import InputError
from recsys.models.loading import LanguageModel
from recsys.models.tokenisation import encode_text
from recsys.seeding import stable_hash
from verbalize.agents.agent_trainer_batch import TurnBatch, episode_metrics, turn_advantages
from verbalize.agents.agent_trainer_turns import ActingSettings, TurnPolicy
from verbalize.agents.chats import SYSTEM, ChatFormat
from verbalize.agents.environment import Task, Trajectory
from verbalize.agents.pool import Environments
from verbalize.agents.rollouts import Policy, RolloutConfig, roll_out
from verbalize.agents.slea_acting import judged_policy
from verbalize.agents.slea_briefing import Briefing
from verbalize.agents.slea_lessons import both, by_model
from verbalize.agents.slea_memory import StepMemory, keys_of, lessons_by_extractor
from verbalize.agents.slea_settings import AgentTraining, ArmConfig
from verbalize.experience.embedding import Embedder
from verbalize.experience.evolution import Episode, Extract
from verbalize.experience.library import ExperienceLibrary
from verbalize.experience.settings import ExperienceConfig
from verbalize.optimize.policy import evaluating


def acting_settings(training: AgentTraining, temperature: float | None = None) -> ActingSettings:
    """How the trained policy takes turns, by default at the temperature of training."""
    return ActingSettings(
        acting=training.acting,
        temperature=training.temperature if temperature is None else temperature,
        per_token=training.per_token,
        max_new_tokens=training.max_new_tokens,
        prompt_budget=training.prompt_budget,
        token_budget=training.token_budget,
    )


def rollout_config(training: AgentTraining, attempts: int = 1, system: str = SYSTEM) -> RolloutConfig:
    """How episodes are played, in training as in evaluation."""
    return RolloutConfig(attempts, training.invalid_penalty, ChatFormat(system, training.list_actions))


class AgentPlayer:
    """`policy` acts with its present weights. `library` is open for writing in training, read-only in evaluation, None
    where the arm needs none."""

    def __init__(
        self,
        policy: LanguageModel,
        environments: Environments,
        arm: ArmConfig,
        training: AgentTraining,
        seed: int,
        library: ExperienceLibrary | None = None,
        briefing: Briefing | None = None,
    ) -> None:
        if arm.needs_library and library is None:
            raise InputError(
                f"an arm with credit {arm.credit} and retrieval {arm.retrieval}", "needs a library", "open one for it"
            )
        self.policy, self.environments, self.arm, self.training = policy, environments, arm, training
        self.seed, self.library, self.briefing = seed, library, briefing or Briefing()
        self.environment_steps = 0

    def play(self, tasks: Sequence[Task], step: int) -> TurnBatch:
        """`group_size` episodes of every game with the sampling policy; the library evolves by them."""
        acting = TurnPolicy(
            self.policy.model,
            self.policy.tokenizer,
            acting_settings(self.training),
            stable_hash(self.seed, "training", step) % 2**63,
        )
        memory = self._memory(self.library)
        played = self._roll_out(acting, tasks, self.training.group_size, memory)
        self.environment_steps += sum(len(episode.turns) for episode in played)
        episodes = [episode for episode in played if not episode.crashed and episode.turns]
        clusters = memory.clusters(episodes) if memory else None
        advantages = turn_advantages(episodes, clusters, self.arm, self.training)
        metrics = episode_metrics(episodes) | {
            "component.environment_steps": float(self.environment_steps),
            "component.crashed": float(sum(episode.crashed for episode in played)),
        }
        if acting.entropies:
            metrics["component.policy_entropy"] = fmean(acting.entropies)
        if self.library is not None and memory is not None:
            metrics |= memory.metrics() | self._evolve(self.library, episodes, memory)
        choices = [acting.taken[key] for episode in episodes for key in keys_of(episode)]
        return TurnBatch(choices, np.concatenate([np.zeros(0), *advantages]), metrics)

    def evaluate(self, tasks: Sequence[Task], library: ExperienceLibrary | None) -> list[Trajectory]:
        """One episode of every game, always the best action; `library` is a reader, which nothing is added to."""
        acting, memory = self.evaluated(library)
        return self._roll_out(acting, tasks, 1, memory)

    def evaluated(self, library: ExperienceLibrary | None) -> tuple[Policy, StepMemory | None]:
        """The agent as it is judged, with the weights of this moment: policy and memory."""
        policy = judged_policy(self.policy.model, self.policy.tokenizer, acting_settings(self.training, 0.0))
        return policy, self._memory(library) if self.arm.retrieval else None

    def state(self) -> dict[str, int]:
        """What a checkpoint must name: environment steps so far, the library's version (0 without one)."""
        return {
            "environment_steps": self.environment_steps,
            "library_version": self.library.version if self.library is not None else 0,
        }

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from `state`: what the library learned after it is undone, by one more version."""
        self.environment_steps = state["environment_steps"]
        if self.library is not None and self.library.version != state["library_version"]:
            self.library.rollback(state["library_version"])

    def _roll_out(
        self, acting: Policy, tasks: Sequence[Task], attempts: int, memory: StepMemory | None
    ) -> list[Trajectory]:
        with evaluating(self.policy.model):
            config = rollout_config(self.training, attempts, self.briefing.system)
            return roll_out(self.environments, acting, tasks, config, memory)

    def _memory(self, library: ExperienceLibrary | None) -> StepMemory | None:
        if library is None:
            return None
        tokenizer = self.policy.tokenizer
        return StepMemory(
            library, self.training.memory_budget, lambda text: len(encode_text(tokenizer, text)), self.arm.retrieval
        )

    def _evolve(
        self, library: ExperienceLibrary, episodes: Sequence[Trajectory], memory: StepMemory
    ) -> dict[str, float]:
        """One version of the library a batch: with new lessons, or (credit only) with new clusters alone."""
        if not self.arm.retrieval:
            library.commit()
            return {"component.clusters": float(library.clusters)}
        finished = [
            Episode(episode.source, score, episode.task.id, memory.used(episode), episode)
            for episode, score in zip(episodes, self.briefing.scores(episodes), strict=True)
        ]
        with evaluating(self.policy.model):
            report = library.evolve(finished, self._extract())
        counts = lessons_by_extractor(library)
        return {
            "component.clusters": float(library.clusters),
            "component.lessons": float(report.lessons),
            "component.lessons_extracted": float(report.extracted),
            "component.lessons_admitted": float(report.admitted),
            "component.lessons_by_model": float(counts.get("model", 0)),
            "component.lessons_by_rules": float(sum(n for name, n in counts.items() if name.startswith("rules"))),
        }

    def _extract(self) -> Extract:
        if self.arm.extraction == "rules":
            return self.briefing.rules
        model = by_model(self.policy.model, self.policy.tokenizer)
        return model if self.arm.extraction == "model" else both(self.briefing.rules, model)


def open_library(
    folder: Path, config: ExperienceConfig, training: AgentTraining, embedder: Embedder | None, read_only: bool = False
) -> ExperienceLibrary:
    """The library of a run. Kept versions reach back beyond the last checkpoint, and beyond what a few interrupted
    attempts to go on from it add."""
    enough = max(config.keep_versions, 4 * (training.save_every + 2))
    return ExperienceLibrary.open(folder, replace(config, keep_versions=enough), embedder, read_only=read_only)


def most_batches(training: AgentTraining) -> int:
    """An upper bound of the batches that `environment_steps` last: every episode takes at least one."""
    return math.ceil(training.environment_steps / (training.games_per_batch * training.group_size))
