"""Contracts: what they parse to, and that every rule refuses with column, rule, number of rows and an example."""

import datetime as dt

import polars as pl
import pytest

from recsys import contracts
from recsys.errors import ContractError, InputError

TABLES = ["events", "items", "impressions", "examples", "verbalizations", "decisions"]


def event(**changes: object) -> dict[str, object]:
    return {
        "user_id": "u",
        "item_id": "i",
        "event_time": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        "event_type": "rating",
        "duration_s": None,
        "completion": None,
        "rating": 4.0,
        "surface": None,
        **changes,
    }


def frame(*rows: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=contracts.schema("events"))


@pytest.mark.parametrize("table", TABLES)
def test_an_empty_table_keeps_its_contract(table: str) -> None:
    empty = contracts.check(contracts.empty(table), table)
    assert empty.schema == contracts.schema(table)
    assert contracts.conform(empty, table).equals(empty)


def test_nested_dtypes_survive_a_round_trip(tmp_path) -> None:
    contracts.empty("examples").write_parquet(tmp_path / "examples.parquet")
    assert contracts.check(pl.read_parquet(tmp_path / "examples.parquet"), "examples").is_empty()


@pytest.mark.parametrize("text", ["Str", "List[]", "List[String", "Struct[a]", "Datetime[us]", "Int32[]"])
def test_unknown_dtypes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="dtype"):
        contracts.parse_dtype(text)


def test_a_good_row_passes_and_bounds_are_inclusive() -> None:
    good = frame(
        event(), event(item_id="j", completion=1.0, rating=0.0), event(item_id="k", completion=0.0, rating=100.0)
    )
    assert contracts.check(good, "events") is good


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [event(), event(item_id=None)],
            r"column 'item_id', 1 of 2 rows, e\.g\. \{'user_id': 'u', 'item_id': None.*is required",
        ),
        (
            [event(completion=1.5), event(item_id="j", completion=2.0)],
            r"'completion', 2 of 2 rows.*'completion': 1\.5.*at most 1",
        ),
        ([event(rating=-1.0)], "'rating'.*at least 0"),
        ([event(rating=float("nan"))], "'rating'.*NaN"),
        ([event(event_time=dt.datetime(1970, 1, 1, 1, tzinfo=dt.UTC))], "'event_time'.*at least 1970-01-02"),
        ([event(event_time=dt.datetime(2300, 1, 1, tzinfo=dt.UTC))], "'event_time'.*at most 2100"),
        ([event(), event(rating=1.0)], r"'user_id, item_id, event_time, event_type', 2 of 2 rows.*identify one row"),
    ],
)
def test_broken_rules_are_named(rows: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        contracts.check(frame(*rows), "events")


def test_allowed_values() -> None:
    row = {
        "example_id": "e",
        "user_id": "u",
        "cutoff_time": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        "history": [],
        "target_item_id": "i",
        "is_discovery": True,
        "slate": ["i", "j"],
        "split": "dev",
    }
    with pytest.raises(ContractError, match=r"'split', 1 of 1 rows.*one of \['train', 'validation', 'test'\]"):
        contracts.check(pl.DataFrame([row], schema=contracts.schema("examples")), "examples")


def test_columns_are_compared_by_name_and_dtype() -> None:
    good = frame(event())
    with pytest.raises(ContractError, match=r"'ratings'.*not in the contract.*did you mean 'rating'"):
        contracts.check(good.rename({"rating": "ratings"}), "events")
    with pytest.raises(ContractError, match=r"'rating'.*missing; present"):
        contracts.check(good.drop("rating"), "events")
    with pytest.raises(ContractError, match=r"'event_time' of dtype Datetime.*'ms'.*must be Datetime.*'us'"):
        contracts.check(good.with_columns(pl.col("event_time").dt.cast_time_unit("ms")), "events")
    with pytest.raises(InputError, match=r"'event'.*no contract"):
        contracts.schema("event")


def test_conform_adds_optional_columns_only() -> None:
    bare = (
        frame(event())
        .select("event_time", "user_id", "item_id", "event_type")
        .with_columns(pl.lit(None).alias("rating"))
    )
    assert contracts.check(contracts.conform(bare, "events"), "events").columns == contracts.schema("events").names()
    with pytest.raises(ContractError, match=r"'item_id'.*missing"):
        contracts.check(contracts.conform(bare.drop("item_id"), "events"), "events")
