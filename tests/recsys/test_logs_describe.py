"""The profile of a log equals counting by hand, in pandas and in plain Python."""

import json

import numpy as np
import polars as pl
from impressions_factory import Page, log_of
from logs_factory import make_log, random_rows

from recsys.logs.describe import describe, quantiles


def test_equals_counting_by_hand() -> None:
    rows = random_rows(np.random.default_rng(3), 150)
    log = make_log(rows)
    profile = describe(log, session_gap_minutes=90)
    frame = log.events.to_pandas()
    by_user = frame.groupby("user_id")
    assert profile["counts"]["events"] == len(frame) and profile["counts"]["users"] == frame.user_id.nunique()
    assert profile["counts"]["series"] == log.items["parent_id"].drop_nulls().n_unique()
    pairs = len(frame[["user_id", "item_id"]].drop_duplicates())
    assert profile["density"]["interactions"] == pairs
    assert profile["density"]["sparsity"] == round(1 - pairs / (frame.user_id.nunique() * len(log.items)), 6)
    sizes = by_user.size()
    assert profile["events_per_user"]["max"] == sizes.max()
    assert profile["events_per_user"]["users_with_6_or_more"] == (sizes >= 6).sum()
    assert profile["items_per_user"]["mean"] == round(by_user.item_id.nunique().mean(), 3)
    tied = frame.duplicated(["user_id", "event_time"], keep=False).mean()
    assert profile["time"]["tied_events"] == round(tied, 4) and tied > 0
    assert (
        profile["time"]["active_days_per_user"]["max"] == by_user.event_time.apply(lambda t: t.dt.date.nunique()).max()
    )
    gaps = by_user.event_time.diff().dt.total_seconds() > 90 * 60
    assert profile["sessions"]["sessions"] == len(sizes) + gaps.sum()
    parents = dict(log.items.select("item_id", pl.coalesce("parent_id", "item_id")).iter_rows())
    fresh = []
    for event in log.events.iter_rows(named=True):
        earlier = log.events.filter(
            (pl.col("user_id") == event["user_id"]) & (pl.col("event_time") < event["event_time"])
        )["item_id"]
        fresh.append(parents[event["item_id"]] not in {parents[item] for item in earlier})
    assert profile["discovery"]["share_of_events"] == round(np.mean(fresh), 4)
    liked = log.events["rating"].to_numpy() >= 4
    assert profile["discovery"]["share_of_engaged"] == round(np.mean(np.array(fresh)[liked]), 4)
    assert profile["engaged"]["rule"] == {"rating_at_least": 4} and profile["engaged"]["events"] == liked.sum()
    assert profile["values"]["rating"]["share_of_events"] == 1 and "duration_s" not in profile["values"]
    assert profile["event_types"] == {"rating": len(frame)} and profile["impressions"] == {}


def test_says_what_was_dropped_and_is_json() -> None:
    rows = [(0, 1, 2, 3), (0, 1, 2, 3), (1, 2, 5, 4)]
    profile = describe(make_log(rows))
    assert profile["treated"] == {"events_exact_duplicates_dropped": 1}
    assert profile["read"]["events_read"] == 3
    assert json.loads(json.dumps(profile)) == profile


def test_impressions_by_position() -> None:
    pages: list[Page] = [
        ("u", 0, ["i00", "i01", "i02"], {0}),
        ("v", 1, ["i03", "i04"], {0, 1}),
        ("v", 2, ["i05"], set()),
    ]
    found = describe(log_of(pages))["impressions"]
    assert found["impressions"] == 3 and found["items_shown"]["max"] == 3 and found["clicks"]["mean"] == 1
    assert found["click_rate_by_position"] == {"1": 0.6667, "2": 0.5, "3": 0.0}


def test_quantiles_of_nothing() -> None:
    assert quantiles(pl.Series([], dtype=pl.Float64)) == {} == quantiles(pl.Series([None], dtype=pl.Float64))
