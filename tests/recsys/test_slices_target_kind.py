"""Targets told apart by what their user knew of them before."""

import datetime as dt

import polars as pl

from recsys.slices import by_target_kind

DAY = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)


def test_discoveries_known_series_and_repeats_are_told_apart_by_earlier_events_only() -> None:
    after, before = DAY + dt.timedelta(days=1), DAY - dt.timedelta(days=1)
    events = pl.DataFrame(
        {
            "user_id": ["a", "a", "a", "b"],
            "item_id": ["seen", "s1e1", "later", "new"],
            "event_time": [before, before, after, before],
        }
    )
    examples = pl.DataFrame(
        {
            "example_id": ["1", "2", "3", "4", "5"],
            "user_id": ["a"] * 5,
            "cutoff_time": [DAY] * 4 + [after],
            "target_item_id": ["new", "s1e2", "seen", "later", "later"],
            "is_discovery": [True, False, False, True, True],
        }
    )
    levels = dict(by_target_kind(examples, events).select("example_id", "level").iter_rows())
    assert levels == {
        "1": "1 discovery",  # another user's event is none of this one's
        "2": "2 known series",
        "3": "3 again",
        "4": "1 discovery",
        "5": "1 discovery",  # its own event is not earlier
    }
