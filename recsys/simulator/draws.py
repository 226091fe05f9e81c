"""Random numbers addressed by name: draw `name` number `step` of user u is a function of these and the seed alone.

So a user's events do not depend on how many users there are, in which chunk they are made, or what else was drawn.
A counter-based generator: SplitMix64's finaliser (Steele, Lea and Flood 2014) over 64-bit keys that start from
`recsys.seeding`; vectorised over users.
"""

import functools

import numpy as np

from recsys.seeding import stable_hash

_ODD = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


def mix(values: np.ndarray) -> np.ndarray:
    """A bijection of uint64 (N,) that spreads every bit."""
    values = values + np.uint64(_ODD)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def keys(seed: int, numbers: np.ndarray) -> np.ndarray:
    """One key per number (a user's, say): (N,) integers -> (N,) uint64."""
    return mix(mix(numbers.astype(np.uint64)) ^ np.uint64(stable_hash("simulator", seed)))


def uniform(keys: np.ndarray, name: str, step: int = 0) -> np.ndarray:
    """(N,) keys -> (N,) float64 in [0, 1), 53 random bits each.

    >>> everyone = keys(7, np.arange(1000))
    >>> bool((uniform(everyone, "hour", 3)[40:50] == uniform(keys(7, np.arange(40, 50)), "hour", 3)).all())
    True
    """
    place = np.uint64((_named(name) + step * _ODD) & _MASK)
    return (mix(keys ^ place) >> np.uint64(11)).astype(np.float64) * 2.0**-53


@functools.cache
def _named(name: str) -> int:
    return stable_hash("draw", name)
