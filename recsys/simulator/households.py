"""Who plays: accounts of one or several members, what each likes, and when a taste moves."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.special import ndtri

from recsys.simulator import draws
from recsys.simulator.catalogue import Catalogue
from recsys.simulator.config import SimulatorConfig
from recsys.simulator.lexicon import GENRES

PHASES = 2
"""Before and after a member's taste has moved."""


@dataclass(frozen=True)
class Households:
    """U accounts with at most M members: `keys` (U,) for their draws, `sizes` (U,), `affinity` (U, M, 2, G) to genres
    by phase, `moves` (U, M), the second of the log at which the second phase begins, `gap` (U,), mean days between
    sessions."""

    keys: np.ndarray
    sizes: np.ndarray
    affinity: np.ndarray
    moves: np.ndarray
    gap: np.ndarray


def make_households(config: SimulatorConfig, numbers: np.ndarray) -> Households:
    """The households of these user numbers (U,).

    An affinity is standard normal, independent over genres; after the move it is √(1 − drift) of itself plus √drift of
    a new one, so its spread stays.
    """
    keys = draws.keys(config.seed, numbers)
    sizes = 1 + np.searchsorted(np.cumsum(config.members)[:-1], draws.uniform(keys, "members"), side="right")
    affinity = np.empty((len(numbers), len(config.members), PHASES, len(GENRES)))
    moves = np.empty((len(numbers), len(config.members)))
    for member in range(len(config.members)):
        for place, genre in enumerate(GENRES):
            old, new = (_normal(keys, f"taste {member} {genre} {phase}") for phase in range(PHASES))
            affinity[:, member, 0, place] = old
            affinity[:, member, 1, place] = np.sqrt(1 - config.drift) * old + np.sqrt(config.drift) * new
        moves[:, member] = (0.25 + 0.5 * draws.uniform(keys, f"moves {member}")) * config.days * 86400
    activity = np.exp(config.activity_spread * _normal(keys, "activity") - config.activity_spread**2 / 2)
    return Households(keys, sizes, affinity, moves, 7.0 / (config.sessions_per_week * activity))


def lane_logits(config: SimulatorConfig, catalogue: Catalogue, affinity: np.ndarray) -> np.ndarray:
    """(..., G) affinities -> (..., L): taste_strength times the mean affinity to a lane's genres."""
    return config.taste_strength * affinity @ catalogue.genres.T


def log_preference(
    config: SimulatorConfig, catalogue: Catalogue, affinity: np.ndarray, items: np.ndarray
) -> np.ndarray:
    """Log of the probability, up to a constant per row, that a new choice falls on each of `items` (K,), codes of the
    catalogue: affinities (B, G) -> (B, K).

        p(item) ∝ exp(taste_strength · affinity(work's genres)) · popularity(work) ** bias · entry(item)

    among the items of works the account never touched; whoever asks leaves the others out.
    """
    works = catalogue.work[items]
    with np.errstate(divide="ignore"):  # episodes nobody begins with: -inf
        alike = np.log(catalogue.attraction[works]) + np.log(catalogue.entry[items])
    return lane_logits(config, catalogue, affinity)[:, catalogue.lane[works]] + alike


def user_ids(numbers: np.ndarray) -> pl.Series:
    """Ids whose text order is the order of the numbers.

    >>> user_ids(np.array([7, 12])).to_list()
    ['u000000007', 'u000000012']
    """
    return pl.Series("user_id", numbers).cast(pl.String).str.zfill(9).str.replace("^", "u")


def user_numbers(ids: pl.Series) -> np.ndarray:
    """The inverse of `user_ids`."""
    return ids.str.slice(1).cast(pl.Int64).to_numpy()


def _normal(keys: np.ndarray, name: str) -> np.ndarray:
    return ndtri(draws.uniform(keys, name) + 2.0**-54)  # never exactly 0, which would be minus infinity
