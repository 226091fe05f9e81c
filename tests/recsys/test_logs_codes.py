"""Text as codes and rows in order, against plain sorting."""

import datetime as dt

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.logs.codes import cleaned, distinct, order, recoded

START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2**40), st.integers(0, 2**20)), min_size=1, max_size=30)


@given(ROWS, st.sampled_from([1, 1_000, 1_000_000]))
@settings(max_examples=60, deadline=None)
def test_order_equals_sorting(rows: list[tuple[int, int, int]], unit: int) -> None:
    """Whole seconds fit one 64-bit key; spread-out microseconds do not and take the other path."""
    times = [START + dt.timedelta(microseconds=row[1] % 10**15 // unit * unit) for row in rows]
    frame = pl.DataFrame(
        {"a": [row[0] for row in rows], "t": times, "b": [row[2] for row in rows]},
        schema_overrides={"a": pl.UInt32, "t": pl.Datetime("us", "UTC"), "b": pl.UInt32},
    )
    assert frame[order(frame, ["a", "t", "b"])].equals(frame.sort("a", "t", "b"))


@given(st.lists(st.one_of(st.none(), st.sampled_from(["a", "b ", " b", "\x00", "c\n"])), max_size=20))
@settings(max_examples=40, deadline=None)
def test_codes_name_their_text(values: list[str | None]) -> None:
    text = pl.Series("text", values, pl.String)
    codes, table = distinct(text)
    assert recoded(codes, table, "text").to_list() == values
    assert sorted(table["text"]) == sorted({value for value in values if value is not None})
    expected = [None if value is None or value == "\x00" else value.strip() for value in values]
    assert cleaned(text).to_list() == expected
