"""Text as codes and rows in order, against plain sorting."""

import dataclasses

import logs_factory as factory
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.logs.coded import codes_of
from recsys.logs.codes import cleaned, distinct, in_order, recoded, stable_order

ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2**40), st.integers(0, 2**20)), min_size=1, max_size=30)


@given(ROWS, st.sampled_from([1, 1_000, 1_000_000]))
@settings(max_examples=60, deadline=None)
def test_order_equals_stable_sorting(rows: list[tuple[int, int, int]], unit: int) -> None:
    """Whole seconds fit one 64-bit key; spread-out microseconds do not and take the other path."""
    columns = {
        "a": np.array([row[0] for row in rows], np.uint32),
        "t": np.array([row[1] % 10**15 // unit * unit for row in rows], np.int64),
        "b": np.array([row[2] for row in rows], np.uint32),
    }
    order, ordered = in_order(columns)
    frame = pl.DataFrame(columns).with_row_index("row")
    expected = frame.sort("a", "t", "b", maintain_order=True)
    assert order.tolist() == expected["row"].to_list()
    assert pl.DataFrame(ordered).equals(expected.drop("row"))


@given(st.lists(st.integers(0, 4)), st.sampled_from([0, 40, 62]))
@settings(max_examples=60, deadline=None)
def test_stable_order_with_small_and_large_keys(values: list[int], shift: int) -> None:
    key = np.array([value % (4 if shift == 62 else 5) << shift for value in values], np.uint64)
    assert stable_order(key).tolist() == np.argsort(key, kind="stable").tolist()


def test_codes_of_a_log_read_back_equal_those_canonicalise_left() -> None:
    log = factory.make_log(factory.random_rows(np.random.default_rng(4)))
    left, made = log.codes, codes_of(log.events, log.items)
    assert log.known is not None and log.codes is log.known[2]
    assert left.users.equals(made.users) and left.users.to_list() == ["u0", "u1", "u2", "u3"]
    for name in ("starts", "items", "times"):
        assert np.array_equal(getattr(left, name), getattr(made, name)), name
    ids = np.array(log.items["item_id"])
    assert ids[made.items].tolist() == log.events["item_id"].to_list()


def test_codes_do_not_outlive_their_tables() -> None:
    log = factory.make_log(factory.random_rows(np.random.default_rng(4)))
    fewer = dataclasses.replace(log, events=log.events.filter(pl.col("user_id") != "u0"))
    assert fewer.codes.users.to_list() == ["u1", "u2", "u3"]
    assert dataclasses.replace(log, counts={}).codes is log.codes
    with pytest.raises(InputError, match="ordered by user"):
        _ = dataclasses.replace(log, events=log.events.reverse()).codes
    with pytest.raises(InputError, match="items that the catalogue lacks"):
        _ = dataclasses.replace(log, items=log.items.head(2)).codes


@given(st.lists(st.one_of(st.none(), st.sampled_from(["a", "b ", " b", "\x00", "c\n"])), max_size=20))
@settings(max_examples=40, deadline=None)
def test_codes_name_their_text(values: list[str | None]) -> None:
    text = pl.Series("text", values, pl.String)
    codes, table = distinct(text)
    assert recoded(codes, table, "text").to_list() == values
    assert sorted(table["text"]) == sorted({value for value in values if value is not None})
    expected = [None if value is None or value == "\x00" else value.strip() for value in values]
    assert cleaned(text).to_list() == expected
