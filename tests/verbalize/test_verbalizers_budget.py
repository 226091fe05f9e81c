"""The budget keeps the most recent events that fit, equals a slow search, and counts what it drops."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verbalizers_frames import event, frame

from recsys.errors import InputError
from verbalize.verbalizers.budget import fit_to_budget


def characters(inputs: pl.DataFrame) -> list[int]:
    return [10 + sum(len(e["title"]) for e in row) for row in inputs["history"].to_list()]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=5), st.integers(19, 70))
def test_equals_a_slow_search(rows: list[list[int]], budget: int) -> None:
    inputs = frame(*([event("x" * n) for n in row] for row in rows))
    fitted, counts = fit_to_budget(inputs, characters, budget)
    expected = [max(k for k in range(len(row) + 1) if 10 + sum(row[len(row) - k :]) <= budget) for row in rows]
    assert fitted["history"].list.len().to_list() == expected
    assert fitted["example_id"].to_list() == inputs["example_id"].to_list()
    for kept, whole in zip(fitted["history"].to_list(), inputs["history"].to_list(), strict=True):
        assert kept == whole[len(whole) - len(kept) :]
    dropped = [len(row) - k for row, k in zip(rows, expected, strict=True)]
    assert counts == {"histories_cut": sum(n > 0 for n in dropped), "events_dropped": sum(dropped)}


def test_an_event_that_cannot_fit_names_the_example() -> None:
    with pytest.raises(InputError, match=r"60 tokens \(example e1\)"):
        fit_to_budget(frame([event("ok")], [event("a"), event("x" * 50)]), characters, 30)


def test_cap_is_not_counted_and_missing_histories_pass() -> None:
    inputs = frame([event("a")] * 9, [])
    fitted, counts = fit_to_budget(inputs, characters, 100, keep_at_most=4)
    assert fitted["history"].list.len().to_list() == [4, 0] and counts["events_dropped"] == 0


def test_an_instruction_longer_than_the_budget_is_refused() -> None:
    with pytest.raises(InputError, match="instruction"):
        fit_to_budget(frame([]), lambda rows: [99] * len(rows), 10)


def test_calls_grow_with_the_logarithm_of_the_history() -> None:
    calls: list[Any] = []

    def counting(inputs: pl.DataFrame) -> list[int]:
        calls.append(len(inputs))
        return characters(inputs)

    fit_to_budget(frame([event("x" * 5)] * 100), counting, 200)
    assert len(calls) <= 9
