"""Cold starts: targets with few earlier events, the same ones and the same examples as without the limit."""

import logs_factory as factory
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.logs.examples import build_examples


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(0, 6))
@settings(max_examples=25, deadline=None)
def test_a_limit_on_the_past_leaves_out_exactly_the_targets_beyond_it(seed: int, least: int, more: int) -> None:
    log = factory.make_log(factory.random_rows(np.random.default_rng(seed)))
    wide = factory.small_config(history_min=least, history_max=99)
    whole, counts = build_examples(log, wide)
    short = pl.col("history").list.len() <= least + more
    dropped = len(whole) - len(whole.filter(short))
    if dropped == len(whole):
        with pytest.raises(InputError, match="past_max"):
            build_examples(log, factory.small_config(history_min=least, history_max=99, past_max=least + more))
        return
    cold, cold_counts = build_examples(
        log, factory.small_config(history_min=least, history_max=99, past_max=least + more)
    )
    assert cold.equals(whole.filter(short))
    assert cold_counts["targets_with_too_much_history_dropped"] == dropped
    assert "targets_with_too_much_history_dropped" not in counts


def test_a_limit_below_the_least_history_is_refused() -> None:
    log = factory.make_log(factory.random_rows(np.random.default_rng(0)))
    with pytest.raises(InputError, match="past_max 2, history_min 3"):
        build_examples(log, factory.small_config(history_min=3, past_max=2))
