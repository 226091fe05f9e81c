"""Ratios of means and lifts of a choice: known values, intervals, refusals."""

import numpy as np
import polars as pl
import pytest

from recsys.errors import InputError
from recsys.seeding import rng
from verbalize.report.estimators import estimate


def table(columns: dict[str, list[float]], users: list[str], seeds: int = 1) -> pl.DataFrame:
    rows = [
        (f"e{place}", users[place], arm, seed, float(value))
        for arm, values in columns.items()
        for seed in range(seeds)
        for place, value in enumerate(values)
    ]
    return pl.DataFrame(rows, schema=["example", "user", "arm", "seed", "value"], orient="row")


def test_values_are_those_of_plain_arithmetic() -> None:
    columns = {"shown": [8, 4, 8], "noise": [3, 1, 1], "dropped": [3, 1, 1], "noise_dropped": [3, 0, 1]}
    counted = table(columns, ["a", "b", "c"], seeds=2)
    found = estimate(
        "lift", counted, {"hits": "noise_dropped", "chosen": "dropped", "positives": "noise", "all": "shown"}
    )
    assert found.value == pytest.approx((4 / 5) / (5 / 20)) and found.n == 3 and found.seeds == (0, 1)
    recall = estimate("ratio_of_means", counted, {"a": "noise_dropped", "b": "noise"})
    assert recall.value == pytest.approx(4 / 5) and recall.low <= recall.value <= recall.high


def test_a_blind_choice_has_lift_1_and_intervals_hold_the_truth() -> None:
    """Events dropped without looking: the interval holds 1 in about 95 of 100 worlds."""
    held = 0
    for world in range(40):
        generator = rng("blind", world)
        shown = np.full(120, 8)
        noise = generator.binomial(8, 0.3, 120)
        noise_dropped, clean_dropped = generator.binomial(noise, 0.4), generator.binomial(8 - noise, 0.4)
        columns = {
            "shown": shown.tolist(),
            "noise": noise.tolist(),
            "dropped": (noise_dropped + clean_dropped).tolist(),
            "noise_dropped": noise_dropped.tolist(),
        }
        parameters = {"hits": "noise_dropped", "chosen": "dropped", "positives": "noise", "all": "shown"}
        one = estimate("lift", table(columns, [f"u{i // 2}" for i in range(120)]), parameters | {"resamples": 400})
        held += one.low <= 1 <= one.high
    assert held >= 34


def test_ratios_without_a_meaning_are_refused() -> None:
    counted = table({"a": [1, 2], "b": [0, 0]}, ["u", "v"])
    with pytest.raises(InputError, match="finite number"):
        estimate("ratio_of_means", counted, {"a": "a", "b": "b"})
    with pytest.raises(InputError, match="not in the artefact"):
        estimate("ratio_of_means", counted, {"a": "a", "b": "c"})
    uneven = counted.filter(~((pl.col("arm") == "b") & (pl.col("example") == "e1")))
    with pytest.raises(InputError, match="every arm's value of every example"):
        estimate("ratio_of_means", uneven, {"a": "a", "b": "b"})
