"""Advantages against a slow reference and TRL's own normalisation; groups of one say nothing."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.seeding import rng
from verbalize.agents.advantages import (
    EPSILON,
    combined_advantages,
    discounted_returns,
    episode_advantages,
    normalise_in_groups,
    step_advantages,
)

# A machine may be busy: neither one slow example nor slow generation is a failure.
UNHURRIED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def some_episodes(seed: int) -> list[tuple[int, list[tuple[float, int]]]]:
    """Up to 8 episodes of up to 6 steps: (task, [(reward, cluster)])."""
    draw = rng("advantages", seed)
    return [
        (
            int(draw.integers(0, 3)),
            [(float(draw.choice([0.0, -0.1, 1.0])), int(draw.integers(-1, 4))) for _ in range(draw.integers(0, 7))],
        )
        for _ in range(draw.integers(1, 9))
    ]


def slow_steps(episodes: list, gamma: float, within: bool, scale: bool) -> list[list[float]]:
    rows = []
    for i, (task, steps) in enumerate(episodes):
        for t, (_, cluster) in enumerate(steps):
            value = sum(gamma ** (s - t) * steps[s][0] for s in range(t, len(steps)))
            rows.append((i, (task, cluster) if within else cluster, cluster, value))
    result: list[list[float]] = [[] for _ in episodes]
    for i, group, cluster, value in rows:
        peers = [r[3] for r in rows if r[1] == group]
        spread = np.std(peers, ddof=1) + EPSILON if scale and len(peers) > 1 else 1.0
        result[i].append(0.0 if cluster == -1 or len(peers) == 1 else (value - np.mean(peers)) / spread)
    return result


@UNHURRIED
@given(st.integers(0, 10**6), st.floats(0, 1), st.booleans(), st.booleans())
def test_step_advantages_equal_a_slow_reference(seed: int, gamma: float, within: bool, scale: bool) -> None:
    episodes = some_episodes(seed)
    rewards = [[r for r, _ in steps] for _, steps in episodes]
    clusters = [[c for _, c in steps] for _, steps in episodes]
    found = step_advantages(rewards, clusters, gamma, [t for t, _ in episodes] if within else None, scale)
    for ours, expected in zip(found, slow_steps(episodes, gamma, within, scale), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)


@UNHURRIED
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(-1, 3)), min_size=1, max_size=30), st.booleans())
def test_groups_sum_to_nothing_and_shifts_do_not_matter(rows: list[tuple[float, int]], scale: bool) -> None:
    values, groups = np.array([v for v, _ in rows]), np.array([g for _, g in rows])
    normal = normalise_in_groups(values, groups, scale)
    for group in set(groups.tolist()):
        inside = groups == group
        assert abs(normal[inside].sum()) < 1e-6
        if inside.sum() == 1 or group == -1:
            assert (normal[inside] == 0).all()
    np.testing.assert_allclose(normal, normalise_in_groups(values + 3.0, groups, scale), atol=1e-6)


def test_without_step_credit_this_is_trls_group_advantage() -> None:
    returns = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.5, 0.0, 0.25])
    grouped = returns.view(-1, 4)
    expected = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)
    found = episode_advantages(returns.tolist(), [0] * 4 + [1] * 4)
    np.testing.assert_allclose(found, expected.reshape(-1).numpy(), atol=1e-5)
    rewards = [[0.0, r] for r in returns.tolist()]
    for clusters, weight in ((None, 1.0), ([[0, 1]] * 8, 0.0)):
        combined = combined_advantages(rewards, [0] * 4 + [1] * 4, clusters, weight)
        assert [c.tolist() for c in combined] == [[a, a] for a in found.tolist()]


def test_step_credit_tells_good_from_bad_moves_of_one_episode() -> None:
    """Two rollouts of a task: one fails, one succeeds after a detour through the same room. The detour costs a step."""
    rewards = [[0.0, 0.0, 1.0], [0.0, 0.0]]
    clusters = [[0, 0, 1], [0, 2]]
    first, second = step_advantages(rewards, clusters, gamma=0.5, scale=False)
    # returns at cluster 0: 0.25, 0.5 and 0; clusters 1 and 2 are seen once
    np.testing.assert_allclose(first, [0.0, 0.25, 0.0])
    np.testing.assert_allclose(second, [-0.25, 0.0])
    whole = combined_advantages(rewards, [0, 0], clusters, weight=2.0, gamma=0.5, scale=False)
    np.testing.assert_allclose(whole[0], [0.5, 1.0, 0.5])
    np.testing.assert_allclose(whole[1], [-1.0, -0.5])


def test_tasks_are_kept_apart_only_where_asked() -> None:
    rewards, clusters = [[1.0], [0.0], [0.0]], [[4], [4], [4]]
    within = step_advantages(rewards, clusters, tasks=[0, 0, 1], scale=False)
    assert [a.tolist() for a in within] == [[0.5], [-0.5], [0.0]]
    across = step_advantages(rewards, clusters, scale=False)
    np.testing.assert_allclose(np.concatenate(across), [2 / 3, -1 / 3, -1 / 3])


@UNHURRIED
@given(st.lists(st.floats(-2, 2), max_size=12), st.floats(0, 1))
def test_discounting_ends_at_the_reward_and_starts_at_the_sum(rewards: list[float], gamma: float) -> None:
    returns = discounted_returns(rewards, gamma)
    expected = sum(gamma**t * r for t, r in enumerate(rewards))
    assert not rewards or (returns[-1] == rewards[-1] and returns[0] == pytest.approx(expected, abs=1e-9))


def test_ragged_input_is_refused() -> None:
    with pytest.raises(InputError, match="cluster labels"):
        step_advantages([[1.0, 0.0]], [[1]])
