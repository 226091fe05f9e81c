"""Arms of two records, whose users cannot be paired: known values, coverage, intervals wider than paired ones."""

import numpy as np
import polars as pl
import pytest

from recsys.errors import InputError
from recsys.seeding import rng
from verbalize.report.estimators import estimate

PARAMETERS = {"a": "a", "b": "b", "resamples": 400}


def table(arms: dict[str, np.ndarray], salt: str = "", per_user: int = 4) -> pl.DataFrame:
    """Outcomes of `arms`: hits (N,), or (seeds, N). With a salt, no id of one arm is another's."""
    rows = [
        (f"{salt and name}e{place}", f"{salt and name}u{place // per_user}", name, seed, 0, 10, 1 if hit else 2)
        for name, hits in arms.items()
        for seed, one in enumerate(np.atleast_2d(hits))
        for place, hit in enumerate(one)
    ]
    return pl.DataFrame(rows, schema=["example", "user", "arm", "seed", "slate", "size", "rank"], orient="row")


def hits(generator: np.random.Generator, rate: float, n: int) -> np.ndarray:
    return generator.random(n) < rate


def test_values_are_those_of_plain_arithmetic() -> None:
    a = np.array([[1, 1, 0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 1, 0, 0, 0]], dtype=bool)
    b = np.array([1, 0, 0, 0], dtype=bool)
    found = estimate("relative_difference_apart", table({"a": a, "b": np.tile(b, 2)}, "salt"), PARAMETERS)
    assert found.value == pytest.approx((6 / 16) / (2 / 8) - 1) and found.n == 8 and found.seeds == (0, 1)
    fewer = estimate("relative_difference_apart", table({"a": a, "b": np.tile(b, 3)}, "salt"), PARAMETERS)
    assert fewer.n == 8 and fewer.value == pytest.approx(found.value)


def test_intervals_hold_the_truth() -> None:
    held = 0
    for world in range(40):
        generator = rng("apart", world)
        arms = {"a": hits(generator, 0.4, 240), "b": hits(generator, 0.2, 160)}
        found = estimate("relative_difference_apart", table(arms, "salt"), PARAMETERS)
        held += found.low <= 1.0 <= found.high
    assert held >= 34


def test_same_outcomes_are_wider_apart_than_paired_and_draws_do_not_follow_each_other() -> None:
    """As many users in both arms: were they drawn by the same numbers, the interval would be [0, 0]."""
    same = hits(rng("same"), 0.3, 240)
    arms = {"a": same, "b": same}
    paired = estimate("relative_difference", table(arms), PARAMETERS)
    apart = estimate("relative_difference_apart", table(arms, "salt"), PARAMETERS)
    assert paired.value == apart.value == 0 and paired.low == paired.high == 0
    assert apart.low < -0.1 and apart.high > 0.1


def test_a_baseline_that_never_hits_is_refused() -> None:
    never = table({"a": np.array([True] * 8), "b": np.array([False] * 8)}, "salt")
    with pytest.raises(InputError, match="finite number"):
        estimate("relative_difference_apart", never, PARAMETERS)
