"""Rolling up: the series is the item in events, impressions and catalogue; nothing else changes."""

import datetime as dt

import polars as pl
import pytest

from recsys.errors import InputError
from recsys.logs.events import canonicalise
from recsys.logs.impressions import carried
from recsys.logs.series import rolled_up
from recsys.logs.tables import RawLog

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def raw(items: pl.DataFrame | None, shown: pl.DataFrame | None = None) -> RawLog:
    events = pl.DataFrame(
        {
            "user_id": ["u", "u", "u"],
            "item_id": ["e1", "film", "e2 "],
            "event_time": [START + dt.timedelta(hours=n) for n in range(3)],
            "event_type": ["play"] * 3,
        },
        schema_overrides={"event_time": pl.Datetime("us", "UTC")},
    )
    return RawLog(events.lazy(), items, impressions=shown)


ITEMS = pl.DataFrame(
    {
        "item_id": ["e1", "e2", "film"],
        "title": ["Dark: Secrets", "Dark: Lies", "Heat"],
        "parent_id": ["s", "s", None],
        "series": [None, "Dark", None],
        "year": pl.Series([2018, 2017, 1995], dtype=pl.Int32),
        "genres": [["Mystery"], ["Drama", "Mystery"], ["Crime"]],
        "runtime_s": [1.0, 2.0, 3.0],
    }
)


def test_the_series_takes_the_place_of_its_episodes() -> None:
    log = canonicalise(rolled_up(raw(ITEMS)))
    assert log.events["item_id"].to_list() == ["s", "film", "s"]
    columns = ("item_id", "title", "kind", "year", "genres", "runtime_s", "parent_id")
    assert log.items.select(columns).rows() == [
        ("film", "Heat", None, 1995, ["Crime"], 3.0, None),
        ("s", "Dark", "series", 2017, ["Mystery", "Drama"], None, None),
    ]


def test_a_series_in_the_catalogue_keeps_its_own_row() -> None:
    own = pl.DataFrame({"item_id": ["s"], "title": ["Dark (2017)"]})
    log = canonicalise(rolled_up(raw(pl.concat([ITEMS, own], how="diagonal"))))
    assert log.items.filter(pl.col("item_id") == "s")["title"].to_list() == ["Dark (2017)"]


def test_impressions_follow() -> None:
    shown = pl.DataFrame(
        {
            "impression_id": ["p"] * 3,
            "user_id": ["u"] * 3,
            "item_id": ["e1", "e2", "film"],
            "clicked": [False, True, False],
        }
    ).with_columns(pl.lit(START).alias("shown_at"), pl.lit(None, pl.Datetime("us", "UTC")).alias("click_time"))
    source = rolled_up(raw(ITEMS, shown))
    log = carried(source, canonicalise(source))
    assert log.impressions is not None
    assert log.impressions.select("item_id", "clicked").rows() == [("film", False), ("s", True)]
    assert log.counts["impression_rows_repeated_dropped"] == 1


def test_a_log_without_series_is_refused() -> None:
    with pytest.raises(InputError, match=r"3 items without parent_id.*no series to roll up to"):
        rolled_up(raw(ITEMS.drop("parent_id")))
