"""Cells and their comparison: seeds averaged first, games paired, files that resume and are not trusted blindly."""

from pathlib import Path

import numpy as np
import pytest
from agents_worlds import Ladder, ladder

from recsys.errors import CorruptFileError, InputError
from recsys.seeding import rng
from recsys.storage import read_json, write_json
from verbalize.agents.evaluation import (
    Cell,
    GameOutcome,
    by_family,
    difference,
    play_cell,
    read_cell,
    success_rates,
    values_of,
)
from verbalize.agents.policies import RandomPolicy
from verbalize.agents.pool import LocalEnvironments
from verbalize.agents.rollouts import Memory, Policy
from verbalize.report.artefacts import values_table
from verbalize.report.estimators import estimate


def cell(won: np.ndarray) -> Cell:
    games = [GameOutcome(f"g{i}", "f", 1 + i % 2, bool(w), float(w), 3, 0, False) for i, w in enumerate(won)]
    return Cell(tuple(games), 1.0)


def test_seeds_are_averaged_before_games_are_compared() -> None:
    draws = rng("cells").random((5, 60))
    a, b = draws[:3] < 0.7, draws[3:] < 0.4
    cells = {("a", seed): cell(won) for seed, won in enumerate(a)} | {
        ("b", seed): cell(won) for seed, won in enumerate(b)
    }
    values = values_of(cells)
    found = difference(values, "a", "b")
    gains = a.mean(0) - b.mean(0)
    assert found.value == pytest.approx(gains.mean()) and (found.n, found.seeds) == (60, 3)
    # A paired interval over 60 games, about Student's.
    reach = 2.0 * gains.std(ddof=1) / np.sqrt(60)
    assert found.low == pytest.approx(gains.mean() - reach, abs=0.05)
    assert found.high == pytest.approx(gains.mean() + reach, abs=0.05)
    rates = success_rates(values)
    assert rates["a"].value == pytest.approx(a.mean()) and rates["b"].seeds == 2
    assert by_family([cell(a[0])]) == {"f-1": a[0][::2].mean(), "f-2": a[0][1::2].mean()}
    # What is recorded is the same number: opaque ids change nothing.
    recorded = estimate("mean_difference", values_table(values, "salt"), {"a": "a", "b": "b"})
    assert (recorded.value, recorded.n) == (pytest.approx(found.value), 60)
    assert recorded.low == pytest.approx(found.low, abs=0.02)


def test_arms_with_other_games_are_not_compared() -> None:
    values = values_of({("a", 0): cell(np.ones(4)), ("b", 0): cell(np.ones(5))})
    with pytest.raises(InputError, match="the same games in both"):
        difference(values, "a", "b")
    with pytest.raises(InputError, match="the same games in both"):
        difference(values, "absent", "absent")


def test_a_cell_is_played_once_and_checked_when_read(tmp_path: Path) -> None:
    tasks, made = [ladder(n, 2, 8) for n in range(3)], []

    def player() -> tuple[Policy, Memory | None]:
        made.append(1)
        return RandomPolicy(0), None

    path = tmp_path / "cells" / "c.json"
    first = play_cell(path, tasks, LocalEnvironments(Ladder(), 2), player)
    assert play_cell(path, tasks, LocalEnvironments(Ladder(), 2), player) == first and made == [1]
    assert [game.game for game in first.games] == [task.id for task in tasks]
    assert 0 <= first.success <= 1 and all(game.steps <= 8 for game in first.games)
    with pytest.raises(CorruptFileError, match="other games"):
        read_cell(path, tasks[:2])
    saved = read_json(path)
    write_json({"games": [{"game": "x"}], "seconds": 1}, path)
    with pytest.raises(CorruptFileError, match="holds no cell"):
        read_cell(path, tasks)
    write_json(saved, path)
    assert read_cell(path, tasks) == first
