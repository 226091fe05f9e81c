"""Any table that breaks its contract is refused with column, rule, number of rows and one of them; any file, whatever
it holds, becomes a log under its contracts or a refusal."""

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys import contracts
from recsys.errors import ContractError, InputError
from recsys.logs.sources import SourceConfig, read_log

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
    step = dt.timedelta(days=1) if isinstance(column.dtype, pl.Datetime) else 1
    if column.low is not None:
        found.append((column.low - step, f"at least {column.low}"))
    if column.high is not None:
        found.append((column.high + step, f"at most {column.high}"))
    if column.values:
        found.append(("something else", "must be one of"))
    if column.filled:
        found.append((["x", None], "may hold no null"))
    return found


@settings(max_examples=80, deadline=None)
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


@settings(max_examples=30, deadline=None)
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


CELLS = st.one_of(
    st.sampled_from(
        ["", "a", "b", "1", "0", "-1", "1577836800", "1e400", "nan", "2020-01-01", "\x00", " ", "é", "'", ";"]
    ),
    st.text(st.characters(exclude_characters='",\r\n', codec="utf-8"), max_size=6),
)
ROWS = st.lists(st.tuples(*[CELLS] * 6), max_size=6)
TYPICAL = ("u1", "i1", "1577836800", "Title", "3", "play")


def mapping(section: str) -> dict[str, Any]:
    time = {"from": "at", "unit": "s"}
    who = {"user_id": "who", "item_id": "what"}
    catalogue = {"file": "log.csv", "columns": {"item_id": "what", "title": "name"}}
    if section == "events":
        columns = who | {"event_time": time, "title": "name", "rating": "n", "event_type": "kind"}
        return {"events": {"columns": columns}}
    if section == "plays":
        columns = who | {"event_time": time, "title": "name", "signal": {"from": "kind", "values": {"play": "start"}}}
        return {"plays": {"gap_s": 60, "columns": columns}}
    columns = who | {"impression_id": "name", "shown_at": time, "position": "n", "clicked": {"from": "kind"}}
    columns["clicked"] = {"from": "kind", "values": {"play": True, "b": False}}
    shown = {"file": "log.csv", "event_type": "click", "columns": columns}
    return {"impressions": shown, "items": catalogue}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["events", "plays", "impressions"]), ROWS, st.booleans())
def test_any_file_becomes_a_log_or_a_refusal(
    tmp_path: Path, section: str, rows: list[tuple[str, ...]], typical: bool
) -> None:
    lines = [",".join(row) for row in ([TYPICAL, *rows] if typical else rows)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["who,what,at,name,n,kind", *lines]) + "\n", encoding="utf-8", newline="")
    config = SourceConfig("table", str(tmp_path if section == "impressions" else path), inline=mapping(section))
    try:
        log = read_log(config)
    except InputError as refusal:
        assert refusal.value and refusal.rule and refusal.remedy
    else:
        contracts.check(log.events, "events")
        contracts.check(log.items, "items")
        assert (log.impressions is None) == (section != "impressions")
        if log.impressions is not None:
            contracts.check(log.impressions, "impressions")
    assert list(tmp_path.iterdir()) == [path]
