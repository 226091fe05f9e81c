"""Which policy of a training is kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import InputError
from verbalize.optimize.selection import choose_step
from verbalize.optimize.settings import TrainConfig

numbers = st.floats(-3, 3, width=16)
tables = st.integers(1, 12).flatmap(
    lambda n: st.dictionaries(st.integers(0, 50), st.lists(numbers, min_size=n, max_size=n), min_size=1, max_size=5)
)


def test_a_clear_gain_is_kept_and_a_noisy_one_is_not() -> None:
    noise = np.tile([0.5, -0.5], 30)
    start = np.zeros(60)
    assert choose_step({0: start, 4: start + 0.05 + noise, 8: start + 0.04}, "best") == 4
    assert choose_step({0: start, 4: start + 0.05 + noise}, "one_standard_error") == 0
    assert choose_step({0: start, 4: start + 0.05}, "one_standard_error") == 4
    assert choose_step({0: start, 4: start + 0.3 + noise, 8: start + 0.31 - noise}, "one_standard_error") == 4


@given(tables)
def test_the_careful_rule_never_goes_further_than_the_best(rewards: dict[int, list[float]]) -> None:
    best, careful = (choose_step(rewards, rule) for rule in ("best", "one_standard_error"))
    assert careful <= best and careful in rewards
    assert np.mean(rewards[best]) >= max(np.mean(values) for values in rewards.values()) - 1e-12
    assert all(np.mean(values) < np.mean(rewards[best]) for step, values in rewards.items() if step < best)


def test_one_example_is_no_evidence_of_a_gain() -> None:
    assert choose_step({0: [0.0], 4: [9.0]}, "one_standard_error") == 0


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(InputError, match=r"train\.choose = 'last': is not one of best, one_standard_error"):
        TrainConfig(choose="last")
