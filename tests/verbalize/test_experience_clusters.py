"""Observation clusters against a slow reference, and the order of a pool."""

import numpy as np
from experience_helpers import UNHURRIED
from hypothesis import given
from hypothesis import strategies as st

from recsys.seeding import rng
from verbalize.experience import clusters
from verbalize.experience.clusters import assign_clusters, nearest_clusters, top_of_pool


def circle(angles: list[float]) -> np.ndarray:
    radians = np.radians(np.array(angles, dtype=float))
    return np.stack([np.cos(radians), np.sin(radians)], 1).reshape(-1, 2).astype(np.float32)


def slow_assignment(prototypes: np.ndarray, observations: np.ndarray, delta: float) -> tuple[list[int], list[int]]:
    known = [np.asarray(p, np.float64) for p in prototypes]
    labels, founders = [], []
    for row, vector in enumerate(observations):
        similar = [round(float(p @ vector.astype(np.float64)), 6) for p in known]
        best = max(similar, default=-2.0)
        if best >= delta:
            labels.append(similar.index(best))
        else:
            labels.append(len(known))
            founders.append(row)
            known.append(vector.astype(np.float64))
    return labels, founders


@UNHURRIED
@given(
    st.lists(st.integers(0, 359), max_size=5),
    st.lists(st.integers(0, 359), max_size=30),
    st.sampled_from([0.5, 0.85, 0.99]),
    st.integers(1, 7),
)
def test_assignment_equals_one_by_one(known: list[int], seen: list[int], delta: float, chunk: int) -> None:
    prototypes, observations = circle(list(map(float, known))), circle(list(map(float, seen)))
    before, clusters._CHUNK = clusters._CHUNK, chunk
    try:
        labels, founders = assign_clusters(prototypes, observations, delta)
    finally:
        clusters._CHUNK = before
    assert (labels.tolist(), founders) == slow_assignment(prototypes, observations, delta)
    everything = np.concatenate([prototypes, observations[founders]])
    again, new = assign_clusters(everything, observations[founders], delta)
    assert new == [] and again.tolist() == [len(prototypes) + i for i in range(len(founders))]


def test_nearest_clusters_founds_nothing() -> None:
    assert nearest_clusters(circle([0, 90]), circle([10, 80, 45]), 0.85).tolist() == [0, 1, -1]
    assert nearest_clusters(circle([]), circle([10]), 0.85).tolist() == [-1]


def test_the_older_of_two_equally_near_prototypes_wins() -> None:
    assert assign_clusters(circle([20, -20]), circle([0]), 0.8)[0].tolist() == [0]


@UNHURRIED
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.8, 0.9]), st.integers(0, 99)), max_size=12))
def test_pools_are_ordered_by_score_then_similarity_or_the_reverse_and_never_by_place(
    rows: list[tuple[float, float, int]],
) -> None:
    rows = list({tie: (score, similar, tie) for score, similar, tie in rows}.values())
    order = rng("pool", len(rows)).permutation(len(rows))
    for rank_by, key in (("score", lambda r: (-r[0], -r[1], r[2])), ("similarity", lambda r: (-r[1], -r[0], r[2]))):
        shuffled = [rows[i] for i in order]
        columns = [[r[i] for r in shuffled] for i in range(3)]
        top = top_of_pool(*columns, 4, rank_by)  # type: ignore[arg-type]
        assert [shuffled[i] for i in top] == sorted(rows, key=key)[:4]
