"""Intervals are tested by simulation (do they hold the truth as often as they say?), the rest against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, multivariate_normal, ttest_1samp

from recsys.errors import InputError
from recsys.significance import (
    BootstrapMeans,
    bootstrap_means,
    effective_n,
    holm,
    interval,
    intraclass_correlation,
    minimum_detectable_effect,
    p_value,
    relative_draws,
    simultaneous_differences,
)


def clustered(generator, n_users, arms=1, spread=0.35, accuracy=0.3):
    """Hits of users who differ: user-level logits shift each user's accuracy; 3 to 10 outcomes a user."""
    sizes = generator.integers(3, 11, size=n_users)
    users = np.repeat(np.arange(n_users), sizes)
    level = np.clip(accuracy + spread * generator.normal(size=n_users), 0, 1)[users]
    return (generator.random((len(users), arms)) < level[:, None]).astype(float), users


def coverage(n_users, runs=300):
    """Share of runs whose interval holds the truth: with users resampled, and with rankings resampled as if
    independent.
    """
    generator = np.random.default_rng(n_users)
    # Clipping moves the mean off `accuracy`: take the truth from one large sample.
    truth = clustered(generator, 200_000)[0].mean()
    held = np.zeros(2)
    for run in range(runs):
        values, users = clustered(generator, n_users)
        for place, labels in enumerate((users, np.arange(len(users)))):
            means = bootstrap_means(values, labels, resamples=400, seed=run)
            low, high = interval(means.draws[:, 0], means.n_users)
            held[place] += low <= truth <= high
    return held / runs


@pytest.mark.parametrize("n_users", [12, 60])
def test_cluster_bootstrap_covers_and_naive_does_not(n_users):
    by_user, naive = coverage(n_users)
    assert 0.91 <= by_user <= 0.985
    assert naive < 0.85


def test_agrees_with_scipy_on_independent_outcomes():
    values = np.random.default_rng(1).exponential(size=80)
    means = bootstrap_means(values, np.arange(80), resamples=20_000)
    reference = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=0)
    assert means.draws[:, 0].std() == pytest.approx(reference.standard_error, rel=0.03)
    low, high = interval(means.draws[:, 0], means.n_users)
    student = ttest_1samp(values, 0).confidence_interval(0.95)
    assert high - low == pytest.approx(student.high - student.low, rel=0.05)


def test_users_keep_all_their_outcomes_and_arms_their_pairing():
    generator = np.random.default_rng(0)
    values, users = clustered(generator, 40)
    twins = np.column_stack([values, values, 1 - values])
    means = bootstrap_means(twins, users, resamples=500)
    assert np.array_equal(means.draws[:, 0], means.draws[:, 1])
    assert np.allclose(means.draws[:, 0] + means.draws[:, 2], 1.0)
    assert p_value(means.draws[:, 0] - means.draws[:, 1], means.n_users) == 1.0
    order = generator.permutation(len(users))
    assert np.allclose(bootstrap_means(twins[order], users[order], resamples=500).draws, means.draws)


def test_draws_weigh_users_as_a_slow_resampling_does():
    values, users = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 1.0]), np.array(["a", "a", "b", "b", "c", "c"])
    draws = bootstrap_means(values, users, resamples=27_000).draws[:, 0]
    sums = {"a": 1.0, "b": 1.0, "c": 2.0}
    exact = [sum(sums[u] for u in trio) / 6 for trio in np.stack(np.meshgrid(*[list("abc")] * 3), -1).reshape(-1, 3)]
    for value in set(exact):
        assert np.isclose(draws, value).mean() == pytest.approx(np.isclose(exact, value).mean(), abs=0.015)


def test_p_values_are_calibrated_and_consistent_with_intervals():
    generator = np.random.default_rng(5)
    small = 0
    for run in range(400):
        values, users = clustered(generator, 40, arms=2)
        means = bootstrap_means(values, users, resamples=400, seed=run)
        difference = means.draws[:, 0] - means.draws[:, 1]
        p = p_value(difference, means.n_users)
        low, high = interval(difference, means.n_users, 0.95)
        if abs(p - 0.05) > 0.02:
            assert (p < 0.05) == (low > 0 or high < 0)
        small += p < 0.05
    assert 0.015 <= small / 400 <= 0.085


def test_p_does_not_depend_on_the_last_bits_of_draws_that_tie():
    """Sums of several threads differ in their last bits: a draw of exactly 0 came out on either side."""
    draws = np.concatenate([np.zeros(30), np.linspace(-0.01, -0.001, 20), np.linspace(0.001, 0.03, 950)])
    noise = np.random.default_rng(1).choice([-1e-16, 0.0, 1e-16], size=len(draws))
    assert p_value(draws + noise, 100) == p_value(draws, 100)
    assert p_value(draws, 100) > p_value(draws[30:], 100)  # ties speak for no difference


def test_one_user_has_no_interval_and_no_evidence():
    means = bootstrap_means(np.ones(5), np.zeros(5), resamples=10)
    assert all(map(math.isnan, interval(means.draws[:, 0], means.n_users)))
    assert p_value(means.draws[:, 0], means.n_users) == 1.0
    with pytest.raises(InputError, match="0 outcomes"):
        bootstrap_means(np.zeros(0), np.zeros(0))
    with pytest.raises(InputError, match="1 of them not finite"):
        bootstrap_means(np.array([0.0, np.nan]), np.arange(2))


def test_relative_draws_divide_means_and_survive_zero_baselines():
    drawn = relative_draws(np.array([0.3, 0.1, 0.0]), np.array([0.2, 0.0, 0.0]))
    assert drawn.tolist() == [pytest.approx(0.5), math.inf, 0.0]


def test_intraclass_correlation_recovers_the_truth():
    generator = np.random.default_rng(2)
    sizes = generator.integers(2, 12, size=4000)
    users = np.repeat(np.arange(4000), sizes)
    values = 0.5 * generator.normal(size=4000)[users] + generator.normal(size=len(users))
    assert intraclass_correlation(values, users) == pytest.approx(0.25 / 1.25, abs=0.02)


def test_effective_n_predicts_the_spread_of_the_mean():
    generator = np.random.default_rng(4)
    drawn = [clustered(generator, 80) for _ in range(600)]
    spread = np.var([values.mean() for values, _ in drawn])
    predicted = np.mean([values.var() / effective_n(values[:, 0], users) for values, users in drawn])
    assert predicted == pytest.approx(spread, rel=0.2)


def test_intraclass_edge_cases():
    users = np.array([0, 0, 1, 1, 2, 2])
    assert effective_n(np.array([1.0, 1, 0, 0, 1, 1]), users) == pytest.approx(
        3
    )  # users agree with themselves entirely
    assert effective_n(np.array([1.0, 0, 1, 0, 1, 0]), users) == 6  # negative estimate, clipped
    assert effective_n(np.ones(6), users) == 6
    assert effective_n(np.array([1.0, 0, 1]), np.arange(3)) == 3
    assert effective_n(np.array([1.0, 0, 1]), np.zeros(3)) == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), min_size=1, max_size=40))
def test_effective_n_stays_between_one_and_n(rows):
    users, values = np.array([user for user, _ in rows]), np.array([value for _, value in rows])
    assert 1 - 1e-9 <= effective_n(values, users) <= len(rows) + 1e-9


def test_detectable_effect_matches_the_published_numbers_and_its_own_power():
    relative = {n: minimum_detectable_effect(n, 0.2, 0.22).relative for n in (100, 200, 500, 1000, 2000, 5000)}
    assert [round(value, 2) for value in relative.values()] == [0.66, 0.46, 0.29, 0.21, 0.15, 0.09]
    effect = minimum_detectable_effect(1000, 0.2, 0.22).absolute
    generator = np.random.default_rng(0)
    shares = [(0.22 - effect) / 2, 0.78, (0.22 + effect) / 2]
    differences = generator.choice([-1.0, 0.0, 1.0], p=shares, size=(1500, 1000))
    power = (np.abs(differences.mean(1)) / (differences.std(1) / math.sqrt(1000)) > 1.96).mean()
    assert 0.78 <= power <= 0.85
    assert minimum_detectable_effect(10, 0.2, 0.22).absolute == math.inf
    with pytest.raises(InputError, match="n_effective 0"):
        minimum_detectable_effect(0, 0.2, 0.2)


def test_holm_by_hand_and_monotone():
    assert holm({"x": 0.04, "y": 0.01, "z": 0.03, "w": 0.005}) == pytest.approx(
        {"x": 0.06, "y": 0.03, "z": 0.06, "w": 0.02}
    )
    assert holm({"x": 0.9, "y": 0.8}) == {"x": 1.0, "y": 1.0}
    assert holm({}) == {}


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_exactly_the_step_down_set(values):
    adjusted = holm({str(place): value for place, value in enumerate(values)})
    rejected = set()
    for step, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        if values[place] * (len(values) - step) > 0.05:
            break
        rejected.add(str(place))
    assert {name for name, value in adjusted.items() if value <= 0.05} == rejected


def test_simultaneous_critical_value_matches_the_normal_theory():
    # Independent arms around a fixed best: differences correlate by 1/2, and max-|t| is known by integration.
    generator = np.random.default_rng(0)
    arms, n = 4, 4000
    values = generator.normal(size=(n, arms))
    means = bootstrap_means(values, np.arange(n), resamples=20_000)
    widths = [
        (high - low) / 2 / np.std(means.draws[:, 0] - means.draws[:, place])
        for place, (_, low, high) in enumerate(simultaneous_differences(means, 0))
        if place
    ]
    correlation = np.full((3, 3), 0.5) + 0.5 * np.eye(3)
    normal = multivariate_normal(np.zeros(3), correlation)
    reach = float(np.mean(widths))
    assert normal.cdf(np.full(3, reach), lower_limit=np.full(3, -reach)) == pytest.approx(0.95, abs=0.006)


def test_simultaneous_intervals_hold_together():
    generator = np.random.default_rng(11)
    held = 0
    for run in range(300):
        values, users = clustered(generator, 40, arms=5)
        found = simultaneous_differences(bootstrap_means(values, users, resamples=400, seed=run), 2)
        assert found[2] == (0.0, 0.0, 0.0)
        held += all(low <= 0 <= high for _, low, high in found)
    assert 0.915 <= held / 300 <= 0.99


def test_simultaneous_of_one_user_is_undefined():
    means = BootstrapMeans(np.array([0.5, 0.25]), np.zeros((3, 2)), 1)
    (same, *_), (difference, low, high) = simultaneous_differences(means, 0)
    assert (same, difference) == (0.0, 0.25)
    assert math.isnan(low) and math.isnan(high)
