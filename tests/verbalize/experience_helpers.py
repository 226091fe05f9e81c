"""Vectors given by name and records made in bulk, shared by the tests of the experience library."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings

from recsys.seeding import rng
from verbalize.experience.entries import Experience, lesson, trajectory
from verbalize.experience.evolution import Episode
from verbalize.experience.library import ExperienceLibrary
from verbalize.experience.settings import ExperienceConfig

# A machine may be busy: neither one slow example nor slow generation is a failure.
UNHURRIED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
WIDTH = 16
START = datetime(2024, 1, 1, tzinfo=UTC)


def named_vectors(texts: Sequence[str]) -> np.ndarray:
    """A random direction per text. "x ~ y" lies near "x": similarity 0.9 or above in these tests."""
    rows = []
    for text in texts:
        near, _, twist = text.partition(" ~ ")
        vector = _direction(near) + (0.3 * _direction(twist) if twist else 0)
        rows.append(vector / np.linalg.norm(vector))
    return np.array(rows, dtype=np.float32).reshape(len(texts), WIDTH)


def _direction(name: str) -> np.ndarray:
    vector = rng("experience-tests", name).normal(size=WIDTH)
    return np.asarray(vector / np.linalg.norm(vector))


def open_library(folder: Path, config: ExperienceConfig | None = None, **options: object) -> ExperienceLibrary:
    return ExperienceLibrary.open(folder, config, named_vectors, **options)  # type: ignore[arg-type]


def some_trajectories(n: int, tasks: int = 7, users: int = 3) -> list[Experience]:
    """Trajectory i: task i mod `tasks`, user i mod `users`, known i hours after START; every third has no time."""
    return [
        trajectory(
            f"task {i % tasks}",
            [{"role": "user", "content": f"room {i}"}, {"role": "assistant", "content": f"go {i % 4}"}],
            float(i % 2),
            bool(i % 2),
            source=f"s{i}",
            user=f"u{i % users}",
            family=f"f{i % 2}",
            time=None if i % 3 == 2 else START + timedelta(hours=i),
        )
        for i in range(n)
    ]


def a_lesson(
    name: str, zone: str = "strategy", score: float = 1.0, observation: str = "a room", **more: object
) -> Experience:
    return lesson(observation, name, "pattern", zone, score, sources=[f"source of {name}"], **more)  # type: ignore[arg-type]


def binary_batch(used: frozenset[str] = frozenset()) -> list[Episode]:
    return [Episode(f"e{i}", float(i % 2), "family", used if i % 2 else frozenset()) for i in range(8)]


def shown(library: ExperienceLibrary, query: str = "task 1", k: int = 50, **filters: object) -> list[str]:
    options = {"before": None, "exclude": None} | filters
    return [hit.entry.id for hit in library.retrieve([query], k, **options)[0]]  # type: ignore[arg-type]
