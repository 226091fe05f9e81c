"""From a batch of episodes to what the trainer needs: an advantage per turn, and the numbers that are logged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from verbalize.agents.advantages import combined_advantages
from verbalize.agents.agent_trainer_turns import Choice
from verbalize.agents.environment import Trajectory
from verbalize.agents.slea_settings import AgentTraining, ArmConfig


@dataclass(frozen=True)
class TurnBatch:
    """N turns as samples, (N,) advantages, and metrics by name."""

    choices: Sequence[Choice]
    advantages: np.ndarray
    metrics: Mapping[str, float] = field(default_factory=dict)


def turn_advantages(
    episodes: Sequence[Trajectory],
    clusters: Sequence[Sequence[int]] | None,
    arm: ArmConfig,
    training: AgentTraining,
) -> list[np.ndarray]:
    """Per episode (T_i,) advantages of its actions. `clusters` are the library's labels of the observations, needed for
    `credit: cluster` only."""
    tasks = task_numbers(episodes)
    groups = {"episode": None, "anchor": anchors(episodes), "cluster": clusters}[arm.credit]
    return combined_advantages(
        [episode.rewards for episode in episodes],
        tasks,
        groups,
        weight=training.weight,
        gamma=training.gamma,
        within_tasks=arm.credit == "anchor",
        scale=training.scale,
    )


def task_numbers(episodes: Sequence[Trajectory]) -> list[int]:
    """(E,) the same number for episodes of one task."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(episode.task.id, len(numbers)) for episode in episodes]


def anchors(episodes: Sequence[Trajectory]) -> list[list[int]]:
    """Labels of the observation before each action: equal texts, equal numbers (GiGPO's anchor states)."""
    numbers: dict[str, int] = {}
    return [[numbers.setdefault(turn.observation, len(numbers)) for turn in episode.turns] for episode in episodes]


def episode_metrics(episodes: Sequence[Trajectory]) -> dict[str, float]:
    """Means over episodes and, of invalid actions and shown experience, over turns; `groups.dead_groups` is the share
    of games whose episodes all earned the same return. Empty without episodes."""
    if not episodes:
        return {}
    returns: dict[str, set[float]] = {}
    for episode in episodes:
        returns.setdefault(episode.task.id, set()).add(round(episode.reward, 9))
    turns = [turn for episode in episodes for turn in episode.turns]
    return {
        "reward": fmean(episode.reward for episode in episodes),
        "component.success": fmean(episode.success for episode in episodes),
        "component.outcome": fmean(episode.outcome for episode in episodes),
        "component.length": fmean(len(episode.turns) for episode in episodes),
        "component.invalid": fmean(not turn.valid for turn in turns) if turns else 0.0,
        "component.shown": fmean(bool(turn.memory) for turn in turns) if turns else 0.0,
        "groups.dead_groups": fmean(len(values) == 1 for values in returns.values()),
    }
