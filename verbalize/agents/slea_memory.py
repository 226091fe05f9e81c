"""Experience at every step (SLEA-RL, arXiv 2603.18079): the lessons of the observation's cluster, for the system role.

One lookup per move serves all parallel episodes. What was found for each turn is kept: the cluster labels are the
groups of step advantages, the lessons shown are what usage is credited to.

Lessons drawn from a game are never shown in that game, in training as in evaluation: the agent is deployed in games of
which the library knows nothing, and would otherwise learn to copy. The paper does not say whether it does this. Of a
person's task (`personal`) no lesson of the same user is shown either, and none known only at or after its cutoff.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from verbalize.agents.agent_trainer_turns import Key
from verbalize.agents.environment import Task, Trajectory
from verbalize.agents.personal import cutoff_of, hidden_from, permitted, users_of
from verbalize.agents.rollouts import Situation
from verbalize.experience.admission import gate_open
from verbalize.experience.library import ExperienceLibrary
from verbalize.experience.memory import CountTokens, lesson_block
from verbalize.experience.steps import StepExperience

BY = "by:"
"""Marks, among a lesson's sources, the one that names who extracted it."""


@dataclass
class StepMemory:
    """The memory of one round of rollouts. `show` False only labels observations; so does a gate that is closed.

    The gate (`ClusterConfig.warmup`, `minimum`) counts steps of evolution, one a batch, as epochs.
    """

    library: ExperienceLibrary
    budget: int
    count_tokens: CountTokens
    show: bool = True
    found: dict[Key, StepExperience] = field(default_factory=dict)
    shown: dict[Key, frozenset[str]] = field(default_factory=dict)
    extractors: dict[Key, frozenset[str]] = field(default_factory=dict)

    def __call__(self, situations: Sequence[Situation]) -> list[str]:
        """One block for the system message each; "" shows nothing."""
        steps = self.library.retrieve_steps(
            [situation.observation for situation in situations],
            before=[cutoff_of(situation.task) for situation in situations],
            exclude=[hidden_from(situation.task) for situation in situations],
        )
        visible = self._open_for([situation.task for situation in situations])
        blocks = []
        for situation, step in zip(situations, steps, strict=True):
            key = (situation.task.id, situation.attempt, situation.turn)
            shown = situation.task in visible
            block = lesson_block(step.strategies, step.warnings, self.budget, self.count_tokens) if shown else ""
            self.found[key] = step
            self.shown[key] = step.ids if block else frozenset()
            hits = (*step.strategies, *step.warnings) if block else ()
            self.extractors[key] = frozenset(extractor_of(hit.entry.sources) for hit in hits)
            blocks.append(block)
        return blocks

    def _open_for(self, tasks: Sequence[Task]) -> set[Task]:
        """The tasks that may be shown lessons. The gate of a person's task counts only what that task may see, so that
        not even its opening depends on later or own lessons."""
        if not self.show:
            return set()
        epoch, lessons = self.library.epoch, self.library.entries("lesson")
        counts = {task: permitted(lessons, task) if users_of(task) else len(lessons) for task in set(tasks)}
        return {task for task, count in counts.items() if gate_open(epoch, count, self.library.config.clusters)}

    def clusters(self, episodes: Sequence[Trajectory]) -> list[list[int]]:
        """Labels of the observations before each action."""
        return [[self.found[key].cluster for key in keys_of(episode)] for episode in episodes]

    def used(self, episode: Trajectory) -> frozenset[str]:
        """Ids of the lessons that were in the episode's prompts."""
        return frozenset().union(*(self.shown[key] for key in keys_of(episode)))

    def metrics(self) -> dict[str, float]:
        """Share of steps that were shown lessons of each extractor."""
        names = ("model", "rules")
        if not self.extractors:
            return {}
        return {
            f"component.shown_by_{name}": fmean(
                any(one.partition(".")[0] == name for one in by) for by in self.extractors.values()
            )
            for name in names
        }


def keys_of(episode: Trajectory) -> list[Key]:
    """The keys of an episode's turns."""
    return [(episode.task.id, episode.attempt, turn) for turn in range(len(episode.turns))]


def extractor_of(sources: Sequence[str]) -> str:
    """Who extracted a lesson: `model`, or `rules.<name>`; "" when its sources do not say.

    >>> extractor_of(["coin-1-7", "by:rules.progress"])
    'rules.progress'
    """
    return next((source.removeprefix(BY) for source in sources if source.startswith(BY)), "")


def lessons_by_extractor(library: ExperienceLibrary) -> Mapping[str, int]:
    """How many lessons of the library each extractor wrote."""
    counts: dict[str, int] = {}
    for entry in library.entries("lesson"):
        name = extractor_of(entry.sources)
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
