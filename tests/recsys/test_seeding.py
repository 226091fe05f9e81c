"""Draws derived from names: the fast forms equal the plain ones."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.seeding import Generators, _pcg64_seeds, rng, stable_hash, stable_hashes

TEXTS = st.lists(st.text(max_size=8), min_size=1, max_size=5)


@given(TEXTS, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_many_hashes_equal_single_ones(values: list[str], seed: int) -> None:
    found = stable_hashes(seed, "slate", values=values)
    assert found.dtype == np.uint64
    assert found.tolist() == [stable_hash(seed, "slate", value) for value in values]


@given(TEXTS, st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_one_generator_set_anew_draws_what_a_new_one_draws(values: list[str], seed: int) -> None:
    generators = Generators(seed, "slate", values=values)
    for place in (*range(len(values)), 0):
        mine, numpys = generators[place], rng(seed, "slate", values[place])
        assert mine.random(3).tolist() == numpys.random(3).tolist()
        assert mine.permutation(7).tolist() == numpys.permutation(7).tolist()  # buffers half a word


def test_seeds_of_every_size_are_spread_as_numpy_spreads_them() -> None:
    seeds = np.array([0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1], np.uint64)
    expected = [np.random.SeedSequence(int(seed)).generate_state(4, np.uint64).tolist() for seed in seeds]
    assert _pcg64_seeds(seeds).tolist() == expected
