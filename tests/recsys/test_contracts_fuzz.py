"""Any table that breaks its contract is refused with column, rule, number of rows and one of them."""

import datetime as dt
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys import contracts
from recsys.errors import ContractError

TABLES = ("events", "items", "impressions", "examples", "verbalizations", "decisions")
NOW = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def good_value(column: contracts.Column, row: int) -> Any:
    """A value that keeps every rule of its column and differs from row to row where it can."""
    kind = column.dtype
    if column.values:
        return column.values[row % len(column.values)]
    if isinstance(kind, pl.Datetime):
        return NOW + dt.timedelta(hours=row)
    if isinstance(kind, pl.List):
        return [f"x{row}"] if kind.inner == pl.String else [0.5] if kind.inner == pl.Float64 else []
    if kind == pl.Boolean:
        return bool(row % 2)
    if kind == pl.String:
        return f"{column.name}{row}"
    low = 0 if column.low is None else column.low
    return low + (row if column.high is None or low + row <= column.high else 0)


def good_frame(table: str, rows: int) -> pl.DataFrame:
    rules = contracts.contract(table)
    columns = {name: [good_value(column, row) for row in range(rows)] for name, column in rules.columns.items()}
    return pl.DataFrame(columns, schema=contracts.schema(table))


def breaks(column: contracts.Column) -> list[tuple[Any, str]]:
    """Every (value, words of the rule) that this column must refuse."""
    found: list[tuple[Any, str]] = []
    if column.required:
        found.append((None, "is required"))
    if column.dtype.is_float():
        found += [(float("nan"), "NaN"), (float("inf"), "infinite"), (float("-inf"), "infinite")]
    step = dt.timedelta(hours=1) if isinstance(column.dtype, pl.Datetime) else 1
    if column.low is not None:
        found.append((column.low - step, f"at least {column.low}"))
    if column.high is not None:
        found.append((column.high + step, f"at most {column.high}"))
    if column.values:
        found.append(("something else", "must be one of"))
    if column.filled:
        found.append((["x", None], "may hold no null"))
    return found


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_a_broken_value_is_refused_with_everything_needed_to_find_it(data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(TABLES))
    rules = contracts.contract(table)
    rows = data.draw(st.integers(1, 6))
    frame = good_frame(table, rows)
    assert contracts.check(frame, table) is frame
    name, (value, words) = data.draw(
        st.sampled_from([(column.name, pair) for column in rules.columns.values() for pair in breaks(column)])
    )
    bad = sorted(data.draw(st.sets(st.integers(0, rows - 1), min_size=1)))
    broken = pl.Series(
        name, [value if row in bad else kept for row, kept in enumerate(frame[name])], frame.schema[name]
    )
    with pytest.raises(ContractError) as refusal:
        contracts.check(frame.with_columns(broken), table)
    text = str(refusal.value)
    assert f"table {table!r}, column {name!r}, {len(bad)} of {rows} rows, e.g. {{" in text and words in text
    # The row shown is the first bad one: its key is in the message, unless the key itself is what is broken.
    for key in rules.key:
        if key != name:
            assert repr(frame[key][bad[0]]) in text


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.sampled_from(TABLES), st.integers(2, 5), st.data())
def test_repeated_keys_and_wrong_columns_are_refused(table: str, rows: int, data: st.DataObject) -> None:
    frame, rules = good_frame(table, rows), contracts.contract(table)
    repeated = pl.concat([frame, frame.head(1)])
    with pytest.raises(ContractError, match=rf"{', '.join(rules.key)}', 2 of {rows + 1} rows.*identify one row"):
        contracts.check(repeated, table)
    name = data.draw(st.sampled_from(list(rules.columns)))
    with pytest.raises(ContractError, match=rf"column '{name}'.*is missing"):
        contracts.check(frame.drop(name), table)
    with pytest.raises(ContractError, match=rf"column '{name}_'.*not in the contract.*did you mean '{name}'"):
        contracts.check(frame.rename({name: f"{name}_"}), table)
    other = pl.Int8 if frame.schema[name] != pl.Int8 else pl.Int16
    with pytest.raises(ContractError, match=rf"column '{name}' of dtype Int\d+.*must be .*{rows} rows"):
        contracts.check(frame.with_columns(pl.lit(1, other).alias(name)), table)


@pytest.mark.parametrize(("table", "name"), [("events", "event_time"), ("items", "available_from")])
def test_a_time_that_python_cannot_hold_is_refused_like_any_other(table: str, name: str) -> None:
    far = pl.Series(name, [None, 2**62], pl.Int64).cast(pl.Datetime("us", "UTC"))
    frame = good_frame(table, 2).with_columns(pl.coalesce(far, name))
    words = rf"column '{name}', 1 of 2 rows, e\.g\. .*'{name}': {2**62}.*must be at most"
    with pytest.raises(ContractError, match=words):
        contracts.check(frame, table)
    dated = frame.with_columns(pl.Series(name, [2**31 - 1, 0], pl.Int32).cast(pl.Date))
    with pytest.raises(ContractError, match=rf"of dtype Date.*2 rows, e\.g\. .*{2**31 - 1}"):
        contracts.check(dated, table)
