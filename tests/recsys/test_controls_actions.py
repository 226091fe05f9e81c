"""What actions say of a policy: a constant one scores 0 however different its histories, a varied one does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.controls import share_of_distinct, share_of_distinct_patterns, symbol_shares

LENGTHS = st.lists(st.integers(0, 15), min_size=1, max_size=40)


@given(LENGTHS, st.integers(0, 3))
def test_a_constant_policy_scores_0_at_any_mix_of_lengths(lengths: list[int], symbol: int) -> None:
    patterns = [[symbol] * length for length in lengths]
    assert share_of_distinct_patterns(patterns) in (0.0, None)
    assert set(symbol_shares(patterns)) <= {symbol}


@given(st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=40))
def test_shares_stay_shares_and_ignore_order(patterns: list[list[int]]) -> None:
    share = share_of_distinct_patterns(patterns)
    assert share is None or 0 <= share <= 1
    assert share == share_of_distinct_patterns(patterns[::-1])
    symbols = symbol_shares(patterns)
    assert sum(symbols.values()) == pytest.approx(1.0 if any(patterns) else 0.0)


def test_a_varied_policy_scores_1_and_copies_lower_it() -> None:
    varied = [[number // 4**place % 4 for place in range(4)] for number in range(100)]
    assert share_of_distinct_patterns(varied) == 1.0
    # Half of the histories get one and the same answer: 50 + 1 patterns, of which one is due to the length.
    assert share_of_distinct_patterns(varied[1:51] + [[0] * 4] * 50) == pytest.approx(50 / 99)


def test_what_follows_from_the_length_alone_is_not_distinct() -> None:
    recent = [[0] * (length - 5) + [3] * 5 for length in range(5, 15) for _ in range(4)]
    assert share_of_distinct(list(map(tuple, recent))) > 0.2 and share_of_distinct_patterns(recent) == 0.0
    assert share_of_distinct_patterns([[3], [3, 3], []]) is None


def test_symbols_are_counted_over_slots() -> None:
    assert symbol_shares([[3, 3, 2], [0, 3], []]) == {3: 0.6, 2: 0.2, 0: 0.2}
    assert symbol_shares([[], []]) == {}
