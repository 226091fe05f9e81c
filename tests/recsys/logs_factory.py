"""Small logs for tests: random ones, and rewrites of what happens at or after a moment."""

import datetime as dt

import numpy as np
import polars as pl

from recsys.logs.engaged import EngagedConfig
from recsys.logs.events import canonicalise
from recsys.logs.examples import ExamplesConfig
from recsys.logs.slates import SlateConfig
from recsys.logs.splits import SplitConfig
from recsys.logs.tables import Log, RawLog

START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
USERS, ITEMS, HOURS = 4, 60, 72  # few users and hours: ties, repeats and same-day events are common


def hour(count: float) -> dt.datetime:
    return START + dt.timedelta(hours=float(count))


def catalogue(n_items: int = ITEMS, parents: bool = True) -> pl.DataFrame:
    """Items over four release-year bands; every fifth item belongs to the series of the one before it."""
    ids = [f"i{place:02d}" for place in range(n_items)]
    return pl.DataFrame(
        {
            "item_id": ids,
            "title": [f"Title {place}" for place in range(n_items)],
            "year": pl.Series(
                [1990 + 4 * (place % 5) if place % 7 else None for place in range(n_items)], dtype=pl.Int32
            ),
            "genres": [["Drama"] if place % 2 else ["Comedy", "War"] for place in range(n_items)],
            "parent_id": [f"s{place // 2}" if parents and place % 4 == 0 else None for place in range(n_items)],
        },
        schema_overrides={"parent_id": pl.String},
    )


def events_frame(rows: list[tuple[int, int, int, int]]) -> pl.DataFrame:
    """Rows of (user, item, hour, rating) as raw events."""
    return pl.DataFrame(
        {
            "user_id": [f"u{row[0]}" for row in rows],
            "item_id": [f"i{row[1]:02d}" for row in rows],
            "event_time": [hour(row[2]) for row in rows],
            "event_type": ["rating"] * len(rows),
            "rating": [float(row[3]) for row in rows],
        },
        schema={
            "user_id": pl.String,
            "item_id": pl.String,
            "event_time": pl.Datetime("us", "UTC"),
            "event_type": pl.String,
            "rating": pl.Float64,
        },
    )


def random_rows(generator: np.random.Generator, count: int = 120) -> list[tuple[int, int, int, int]]:
    """Distinct (user, item, hour) rows, so that no row conflicts with another."""
    rows = {}
    for _ in range(count):
        user, item, moment = (
            int(generator.integers(USERS)),
            int(generator.integers(ITEMS)),
            int(generator.integers(HOURS)),
        )
        rows[user, item, moment] = int(generator.integers(1, 6))
    return [(*key, rating) for key, rating in rows.items()]


def make_log(rows: list[tuple[int, int, int, int]], items: pl.DataFrame | None = None, derived: bool = False) -> Log:
    events = events_frame(rows)
    if derived:
        events = events.join(catalogue(), on="item_id")
        return canonicalise(RawLog(events.lazy(), None, {}, EngagedConfig(rating_at_least=4)))
    return canonicalise(
        RawLog(events.lazy(), catalogue() if items is None else items, {}, EngagedConfig(rating_at_least=4))
    )


def small_config(policy: str = "uniform", **changes: object) -> ExamplesConfig:
    split = SplitConfig(
        train=0.5, validation=0.2, test=0.3, train_until=hour(40).isoformat(), validate_until=hour(50).isoformat()
    )
    settings: dict[str, object] = {
        "history_min": 1,
        "history_max": 4,
        "split": split,
        "targets_per_user": 0,
        "discovery_only": False,
        "slate": SlateConfig(policy=policy, size=4),
        **changes,
    }
    return ExamplesConfig(**settings)  # type: ignore[arg-type]


def rewrite_future(
    rows: list[tuple[int, int, int, int]],
    cutoff: int,
    target: tuple[int, int],
    generator: np.random.Generator,
) -> list[tuple[int, int, int, int]]:
    """Delete, re-rate, re-assign, postpone and add events at or after `cutoff`; the target's own (user, item) there
    stays as it is."""
    kept, taken = [], set()
    for row in rows:
        user, item, moment, rating = row
        if moment >= cutoff and not (moment == cutoff and (user, item) == target):
            action = generator.integers(5)
            if action == 0:
                continue
            if action == 1:
                rating = 6 - rating
            if action == 2:
                item = int(generator.integers(ITEMS))
            if action == 3:
                moment += int(generator.integers(1, 30))
            if (user, item, moment) == (*target, cutoff) or (user, item, moment) in taken:
                continue
            row = (user, item, moment, rating)
        taken.add(row[:3])
        kept.append(row)
    for _ in range(int(generator.integers(0, 40))):
        row = (
            int(generator.integers(USERS)),
            int(generator.integers(ITEMS)),
            cutoff + int(generator.integers(0, 20)),
            int(generator.integers(1, 6)),
        )
        if row[:3] not in taken and row[:3] != (*target, cutoff):
            taken.add(row[:3])
            kept.append(row)
    return kept
