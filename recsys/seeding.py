"""Randomness that derives from names, never from call order: the same parts give the same draw on any machine."""

import hashlib

import numpy as np


def stable_hash(*parts: object) -> int:
    """64-bit hash of the parts' text, equal across processes, platforms and versions.

    >>> stable_hash("user", 1) == stable_hash("user", "1")
    True
    """
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def unit_hash(*parts: object) -> float:
    """`stable_hash` mapped to [0, 1)."""
    return stable_hash(*parts) / 2**64


def rng(*parts: object) -> np.random.Generator:
    """A generator seeded by the parts: `rng(seed, "slate", example_id)`."""
    return np.random.default_rng(stable_hash(*parts))
