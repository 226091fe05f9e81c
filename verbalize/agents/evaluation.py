"""Cells of a study: one agent, one memory, one set of games; outcomes per game, written when the cell is whole.

Every arm plays the same games. Outcomes of a game are averaged over training seeds first and then compared game by
game; intervals resample games (`recsys.significance`), which is what a claim generalises over.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import CorruptFileError, InputError
from recsys.seeding import stable_hash
from recsys.significance import bootstrap_means, interval
from recsys.storage import read_json, write_json
from verbalize.agents.environment import Task, Trajectory
from verbalize.agents.pool import Environments
from verbalize.agents.rollouts import Memory, Policy, RolloutConfig, roll_out

VALUES = {
    "example_id": pl.String,
    "user_id": pl.String,
    "arm": pl.String,
    "seed": pl.Int64,
    "value": pl.Float64,
}


@dataclass(frozen=True)
class GameOutcome:
    """How one game ended: `outcome` is the environment's reward, `crashed` an environment that could not be brought
    back (counted as lost)."""

    game: str
    family: str
    difficulty: int
    success: bool
    outcome: float
    steps: int
    invalid: int
    crashed: bool


@dataclass(frozen=True)
class Cell:
    """What an agent made of the games."""

    games: tuple[GameOutcome, ...]
    seconds: float

    @property
    def success(self) -> float:
        return sum(game.success for game in self.games) / len(self.games)


@dataclass(frozen=True)
class Rate:
    """Share of games won with its interval; `n` games, outcomes averaged over `seeds` first."""

    value: float
    low: float
    high: float
    n: int
    seeds: int


def key_of(*parts: Any) -> str:
    """A name for what follows from `parts` (plain values and times): the same parts, the same name."""
    return f"{stable_hash(json.dumps(parts, sort_keys=True, default=datetime.isoformat)):016x}"


def play_cell(
    path: Path,
    tasks: Sequence[Task],
    environments: Environments,
    player: Callable[[], tuple[Policy, Memory | None]],
    config: RolloutConfig | None = None,
) -> Cell:
    """The cell in `path`, played now if it is not there. `player` (policy and memory) is only made when needed.

    Raises CorruptFileError when the file holds something else.
    """
    if not path.exists():
        policy, memory = player()
        begun = time.monotonic()
        episodes = roll_out(environments, policy, tasks, config, memory)
        games = tuple(map(outcome_of, episodes))
        write_json(asdict(Cell(games, round(time.monotonic() - begun, 3))), path)
    return read_cell(path, tasks)


def read_cell(path: Path, tasks: Sequence[Task]) -> Cell:
    """A cell that holds exactly these tasks."""
    saved = read_json(path)
    remedy = "delete the file; its games are played again"
    try:
        cell = Cell(**saved | {"games": tuple(GameOutcome(**game) for game in saved["games"])})
    except (TypeError, KeyError) as error:
        raise CorruptFileError(str(path), f"holds no cell ({error})", remedy) from error
    if [game.game for game in cell.games] != [task.id for task in tasks]:
        raise CorruptFileError(str(path), "holds other games than its cell", remedy)
    return cell


def outcome_of(episode: Trajectory) -> GameOutcome:
    """What a cell keeps of an episode."""
    return GameOutcome(
        episode.task.id,
        episode.task.family,
        episode.task.difficulty,
        episode.success and not episode.crashed,
        episode.outcome,
        len(episode.turns),
        episode.invalid_actions,
        episode.crashed,
    )


def values_of(cells: Mapping[tuple[str, int], Cell]) -> pl.DataFrame:
    """Successes by (arm, seed) as rows of VALUES, one per game, which is the unit that intervals resample."""
    rows = [
        (game.game, game.game, arm, seed, float(game.success))
        for (arm, seed), cell in cells.items()
        for game in cell.games
    ]
    return pl.DataFrame(rows, schema=VALUES, orient="row")


def success_rates(values: pl.DataFrame) -> dict[str, Rate]:
    """Arm -> its rate, in the order of appearance."""
    found = {}
    for arm in values["arm"].unique(maintain_order=True):
        rows = values.filter(pl.col("arm") == arm)
        games = _by_game(rows, arm)
        found[arm] = _rate(games[arm].to_numpy(), games["example_id"].to_numpy(), rows["seed"].n_unique())
    return found


def difference(values: pl.DataFrame, a: str, b: str) -> Rate:
    """Success of arm `a` minus that of arm `b`, paired by game. Raises InputError when they played other games."""
    sides = [_by_game(values.filter(pl.col("arm") == arm), arm) for arm in (a, b)]
    if not len(sides[0]) or not sides[0]["example_id"].equals(sides[1]["example_id"]):
        raise InputError(
            f"arms {a} and {b} with {len(sides[0])} and {len(sides[1])} games",
            "a paired comparison needs the same games in both",
            "play both arms on the same games",
        )
    seeds = values.filter(pl.col("arm").is_in([a, b]))["seed"].n_unique()
    gain = (sides[0][a] - sides[1][b]).to_numpy()
    return _rate(gain, sides[0]["example_id"].to_numpy(), seeds)


def by_family(cells: Sequence[Cell]) -> dict[str, float]:
    """ "family-difficulty" -> share of games won over all these cells."""
    won: dict[str, list[bool]] = {}
    for cell in cells:
        for game in cell.games:
            won.setdefault(f"{game.family}-{game.difficulty}", []).append(game.success)
    return {label: sum(games) / len(games) for label, games in won.items()}


def rate_facts(rates: Mapping[str, Rate]) -> dict[str, dict[str, float]]:
    """Rates as plain values, rounded to 6 decimals."""
    return {name: {key: round(value, 6) for key, value in asdict(rate).items()} for name, rate in rates.items()}


def _by_game(rows: pl.DataFrame, arm: str) -> pl.DataFrame:
    """example_id and the mean over seeds, sorted by game."""
    return rows.group_by("example_id").agg(pl.col("value").mean().alias(arm)).sort("example_id")


def _rate(values: Any, games: Any, seeds: int) -> Rate:
    means = bootstrap_means(values, games)
    low, high = interval(means.draws[:, 0], means.n_users)
    return Rate(float(means.estimate[0]), low, high, len(values), seeds)
