"""The looks at SLEA-RL put together: a pair is two trainings of one look and seed, with the rates the look recorded."""

import json
from itertools import product
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from benchmark_scripts import load_script

from verbalize.report.artefacts import VALUE_COLUMNS, write_artefact
from verbalize.report.estimators import mean_difference

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_script("slea_looks", monkeypatch)


def look(path: Path, wins: dict[str, list[int]], games: int = 40) -> None:
    """`wins` of the games by arm and seed; the start has one seed, as in a study."""
    won = {(arm, seed): count for arm, counts in wins.items() for seed, count in enumerate(counts)} | {("start", 0): 3}
    rows = [
        (f"g{game:02d}", f"g{game:02d}", arm, seed, float(game < count))
        for (arm, seed), count in won.items()
        for game in range(games)
    ]
    write_artefact(pl.DataFrame(rows, schema=VALUE_COLUMNS, orient="row"), path)


def test_units_are_pairs_of_trainings(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "LOOKS", ("early", "late"))
    look(tmp_path / "early.successes.csv.gz", {"grpo": [10, 10, 10], "gigpo": [10, 10, 10], "slea": [14, 14, 14]})
    look(tmp_path / "late.successes.csv.gz", {"grpo": [10, 10, 10], "gigpo": [10, 10, 10], "slea": [34, 10, 0]})
    table = script.pooled(tmp_path)
    assert set(table["arm"]) == {"grpo", "gigpo", "slea"} and table["user"].n_unique() == 6
    assert table["example"].n_unique() == 6 * 40  # the same game of two looks, or seeds, is played twice
    gains = script.by_pair(table, "slea", "grpo")
    assert gains == {
        **{f"early/{seed}": pytest.approx(0.1) for seed in range(3)},
        "late/0": pytest.approx(0.6),
        "late/1": 0.0,
        "late/2": pytest.approx(-0.25),
    }
    found = mean_difference(table, "slea", "grpo")
    assert found.value == pytest.approx(sum(gains.values()) / 6) and found.seeds == (0, 1, 2)
    alone = table.filter(pl.col("user").str.starts_with("early"))
    assert mean_difference(alone, "slea", "grpo").low == pytest.approx(0.1)  # trainings agree, and games are not drawn
    assert found.low < 0 < found.value < found.high  # they do not: a gain of 0.6 once is no evidence


def test_recorded_looks_give_the_rates_that_each_recorded(script: ModuleType) -> None:
    table = script.pooled(EXPERIMENTS / "results" / "artefacts")
    recorded = json.loads((EXPERIMENTS / "results" / "slea_looks.json").read_text())
    for a, b in script.PAIRS:
        assert script.by_pair(table, a, b) == recorded[f"{a} - {b}"]
    for name, seed in product(("slea_second", "slea_third", "slea"), range(3)):
        rates = json.loads((EXPERIMENTS / "results" / f"{name}.json").read_text())["facts"]["by_seed"]
        gain = rates[f"slea/{seed}"] - rates[f"grpo/{seed}"]
        assert recorded["slea - grpo"][f"{name}/{seed}"] == pytest.approx(gain, abs=2e-6)
