"""A log in numbers, before anyone trains on it: size, span, rhythm, repetition, what was dropped and why.

Everything is counted on the canonical log, so it is what examples are made of; `counts` holds what happened on the way.
"""

import datetime as dt
from typing import Any

import polars as pl

from recsys.logs.discovery import discoveries, series_of
from recsys.logs.engaged import engaged
from recsys.logs.tables import Log

QUANTILES = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
_TREATED = frozenset({"dropped", "cleaned", "merged", "left", "ignored", "rolled", "placed", "inferred"})
"""Words in the name of a count that say that something was changed or left out."""
_POSITIONS = 10


def describe(log: Log, session_gap_minutes: float = 30) -> dict[str, Any]:
    """The profile of a log as plain values (JSON-ready).

    Sections: `counts` (users, items, events, series); `span` (first and last event, days); `event_types` (events of
    each); `density` (`interactions` distinct user-item pairs, `sparsity` the share of pairs without one,
    `top_1_percent_of_items` their share of the events); `events_per_user` and `items_per_user` (quantiles, and how many
    users have at least 6 events: one target with the default least history); `time` (`tied_events` share at the same
    time as another of their user, `on_whole_days` share at midnight UTC, `active_days_per_user` quantiles); `sessions`
    (number; quantiles of events in each; a gap of more than `session_gap_minutes` between a user's events ends one);
    `discovery` (share of events, and of engaged ones, whose series the user had not touched before); `engaged` (the
    source's rule and what it takes); `values` (share of events with a duration, completion, rating; quantiles);
    `impressions` where logged (slate sizes, click rate by position); `treated` (what was dropped, merged or inferred);
    `read` (all other counts of the source).
    """
    events, items = log.events, log.items
    users, touched = events["user_id"].n_unique(), events["item_id"].n_unique()
    pairs = events.select("user_id", "item_id").n_unique()
    by_item = events.group_by("item_id").len()["len"].sort(descending=True)
    by_user = events.group_by("user_id").agg(
        pl.len(), pl.col("item_id").n_unique(), pl.col("event_time").dt.date().n_unique().alias("days")
    )
    first, last = events["event_time"].min(), events["event_time"].max()
    assert isinstance(first, dt.datetime) and isinstance(last, dt.datetime)
    top = max(1, round(touched / 100))
    return {
        "counts": {
            "events": len(events),
            "users": users,
            "items": len(items),
            "items_touched": touched,
            "series": items["parent_id"].drop_nulls().n_unique(),
        },
        "span": {
            "first": first.isoformat(),
            "last": last.isoformat(),
            "days": round((last - first) / dt.timedelta(1), 2),
        },
        "event_types": dict(
            events.group_by("event_type").len().sort("len", "event_type", descending=[True, False]).iter_rows()
        ),
        "density": {
            "interactions": pairs,
            "sparsity": round(1 - pairs / (users * len(items)), 6),
            "top_1_percent_of_items": round(int(by_item.head(top).sum()) / len(events), 4),
        },
        "events_per_user": quantiles(by_user["len"]) | {"users_with_6_or_more": int((by_user["len"] >= 6).sum())},
        "items_per_user": quantiles(by_user["item_id"]),
        "time": _time(log) | {"active_days_per_user": quantiles(by_user["days"])},
        "sessions": _sessions(log, session_gap_minutes),
        "discovery": _discovery(log),
        "engaged": _engaged(log),
        "values": _values(events),
        "impressions": _impressions(log.impressions),
        "treated": {name: count for name, count in log.counts.items() if count and _TREATED & set(name.split("_"))},
        "read": {name: count for name, count in log.counts.items() if not _TREATED & set(name.split("_"))},
    }


def quantiles(values: pl.Series) -> dict[str, float]:
    """`QUANTILES` and the mean of a numeric column, nulls left out; empty where there is no value.

    >>> quantiles(pl.Series([1, 2, 3, 10]))["median"], quantiles(pl.Series([1, 2, 3, 10]))["mean"]
    (2.0, 4.0)
    """
    held = values.drop_nulls().cast(pl.Float64)
    if held.is_empty():
        return {}
    found = {name: float(held.quantile(share, "lower") or 0.0) for name, share in QUANTILES.items()}
    return {name: round(value, 3) for name, value in (found | {"mean": float(held.mean() or 0.0)}).items()}  # type: ignore[arg-type]


def _time(log: Log) -> dict[str, Any]:
    same = pl.col("user_id") == pl.col("user_id").shift()
    tied = (same & (pl.col("event_time") == pl.col("event_time").shift())).fill_null(False)
    midnight = pl.col("event_time").dt.truncate("1d") == pl.col("event_time")
    found = log.events.select(
        (tied | tied.shift(-1).fill_null(False)).mean().round(4).alias("tied_events"),
        midnight.mean().round(4).alias("on_whole_days"),
    )
    return found.row(0, named=True)


def _sessions(log: Log, gap_minutes: float) -> dict[str, Any]:
    gap = pl.col("event_time") - pl.col("event_time").shift() > pl.duration(seconds=round(gap_minutes * 60))
    opens = (pl.col("user_id") != pl.col("user_id").shift()) | gap
    sizes = log.events.select(opens.fill_null(True).cum_sum().alias("session")).group_by("session").len()["len"]
    return {"gap_minutes": gap_minutes, "sessions": len(sizes), "events_per_session": quantiles(sizes)}


def _discovery(log: Log) -> dict[str, Any]:
    rows = pl.int_range(len(log.events), eager=True).to_numpy()
    found = pl.Series(discoveries(log.codes, series_of(log.items), rows))
    share = {"share_of_events": round(float(found.mean() or 0.0), 4)}  # type: ignore[arg-type]
    if log.engaged is None:
        return share
    targets = log.events.select(engaged(log.engaged)).to_series()
    mean = found.filter(targets).mean()
    return share | {"share_of_engaged": None if mean is None else round(float(mean), 4)}  # type: ignore[arg-type]


def _engaged(log: Log) -> dict[str, Any]:
    if log.engaged is None:
        return {}
    rule = {name: value for name, value in vars(log.engaged).items() if value not in (None, ())}
    count = log.events.select(engaged(log.engaged).sum()).item()
    return {"rule": rule, "events": count, "share": round(count / len(log.events), 4)}


def _values(events: pl.DataFrame) -> dict[str, Any]:
    held = [name for name in ("duration_s", "completion", "rating") if events[name].null_count() < len(events)]
    return {
        name: {"share_of_events": round(1 - events[name].null_count() / len(events), 4)} | quantiles(events[name])
        for name in held
    }


def _impressions(shown: pl.DataFrame | None) -> dict[str, Any]:
    if shown is None:
        return {}
    slates = shown.group_by("impression_id").agg(pl.len(), pl.col("clicked").sum())
    placed = shown.filter(pl.col("position") <= _POSITIONS).group_by("position").agg(pl.col("clicked").mean())
    return {
        "impressions": len(slates),
        "items_shown": quantiles(slates["len"]),
        "clicks": quantiles(slates["clicked"]),
        "click_rate_by_position": {str(place): round(rate, 4) for place, rate in placed.sort("position").iter_rows()},
    }
