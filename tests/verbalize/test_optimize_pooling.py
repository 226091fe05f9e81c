"""What is known of candidates over all users, and what is left to the single user."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys.errors import InputError
from recsys.seeding import rng
from verbalize.optimize.pooling import best_shares, own_share
from verbalize.optimize.settings import WarmStartConfig
from verbalize.optimize.warm_start import pooled_targets

USERS = np.repeat(np.arange(60), 2)


def planted(taste: float, luck: float, better: float) -> np.ndarray:
    """Rewards of 4 candidates for two targets of 60 users; candidate 2 is `better` for all."""
    draw = rng(0, "planted")
    own = draw.normal(scale=taste, size=(60, 4))[USERS] if taste else np.zeros((120, 4))
    return own + draw.normal(scale=luck, size=(120, 4)) + better * (np.arange(4) == 2)


def test_reliability_is_the_planted_share_of_what_returns():
    assert own_share(planted(1.0, 1.0, 0.0), USERS) == pytest.approx(0.5, abs=0.12)
    assert own_share(planted(0.0, 1.0, 3.0), USERS) < 0.12  # what holds for all users is not anyone's own
    assert own_share(planted(1.0, 0.0, 0.0), USERS) == pytest.approx(1.0, abs=1e-9)
    assert own_share(planted(1.0, 1.0, 0.0), np.arange(120)) == 0.0  # nobody comes twice


def test_luck_is_pooled_away_and_taste_is_not():
    lucky = planted(0.0, 3.0, 1.5)
    assert (lucky.argmax(axis=1) == 2).mean() < 0.5 < 0.9 < best_shares(lucky, USERS)[:, 2].mean()
    own = planted(3.0, 0.1, 0.0)
    assert (best_shares(own, USERS).argmax(axis=1) == own.argmax(axis=1)).mean() > 0.95


@given(arrays(float, (6, 3), elements=st.floats(-50, 50)), arrays(float, (6, 1), elements=st.floats(-50, 50)))
def test_shares_sum_to_one_and_forget_the_level_of_an_example(rewards, levels):
    users = np.array(["a", "a", "b", "c", "c", "c"])
    shares = best_shares(rewards, users, draws=20)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    flat = np.zeros((6, 3))
    np.testing.assert_allclose(best_shares(flat + levels, users, draws=5), 1 / 3)


def test_targets_follow_the_better_candidate_of_all_users():
    rewards = planted(0.0, 1.0, 1.0)
    names = ["p", "q", "r", "s"]
    pool = pl.DataFrame(
        {
            "example_id": np.repeat([f"e{row:03d}" for row in range(120)], 4),
            "candidate": names * 120,
            "reward": rewards.ravel(),
        }
    )
    actions = {name: [[symbol, 0]] * 120 for symbol, name in enumerate(names)}
    targets = pooled_targets(pool, [f"u{code}" for code in USERS], actions)
    assert all(target.shape == (2, 4) and target[0].argmax() == 2 and target[1, 0] == 1 for target in targets)


def test_two_ways_to_weigh_are_refused():
    with pytest.raises(InputError, match=r"soft_temperature=null"):
        WarmStartConfig(pooled=True, soft_temperature=1.0)
