"""A bench of ladders, vectors given by words, and a tiny model with our chat template: an ExpRAG study in miniature."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from agents_worlds import Ladder

from recsys.seeding import rng
from verbalize.agents.environment import Task
from verbalize.agents.expert import GameSet


@dataclass(frozen=True)
class LadderBench:
    """Family ladder; seeds change the number of the world that observations name."""

    @property
    def make(self) -> Ladder:
        return Ladder()

    def task(self, games: GameSet, seed: int) -> Task:
        return Task(f"{games.label}-{seed}", "ladder", seed, games.difficulty, games.max_steps)

    def prepare(self, tasks: Sequence[Task]) -> None:
        pass

    def walkthrough(self, task: Task) -> list[str]:
        return ["up"] * task.difficulty


def word_vectors(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors: the sum of a random direction per word, so texts that share words are alike."""
    rows = [sum(rng("word", word).normal(size=24) for word in [*text.lower().split(), "."]) for text in texts]
    matrix = np.asarray(rows, dtype=np.float32).reshape(len(texts), 24)
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True), dtype=np.float32)
