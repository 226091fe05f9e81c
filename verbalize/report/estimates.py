"""What an estimator returns, and how it reads an artefact's arms."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from recsys.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """What an estimator finds: `n` decisions or repeats, `n_effective` independent ones, `seeds` present in the
    artefact.
    """

    value: float
    low: float
    high: float
    n: int
    n_effective: float
    seeds: tuple[int, ...] = ()


def of_arms(table: pl.DataFrame, arms: Sequence[str]) -> pl.DataFrame:
    """The rows of these arms. Raises InputError, naming those present, where one is absent."""
    present = set(table["arm"].unique())
    absent = [arm for arm in arms if arm not in present]
    if absent:
        raise InputError(
            f"arm {absent[0]!r}", f"not in the artefact, which holds {sorted(present)}", "correct the arm's name"
        )
    return table.filter(pl.col("arm").is_in(list(arms)))


def seeds_of(rows: pl.DataFrame) -> tuple[int, ...]:
    """The seeds present, ascending."""
    return tuple(sorted(rows["seed"].unique().to_list()))
