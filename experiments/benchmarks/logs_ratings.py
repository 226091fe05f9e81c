"""The synthetic rating log of `log_pipeline`.

A rating log of any size, written in parts so that memory stays bounded: 100 events a user on average (heavy tail),
Zipf-like items (1% of them unknown to the catalogue), minutes as times (ties), 0.5% repeats, in no order.
"""

from pathlib import Path

import numpy as np
import polars as pl

from recsys.seeding import rng

PART = 5_000_000
GENRES = ("Drama", "Comedy", "Action", "Crime", "War", "Musical")
START = 1_672_531_200  # 2023-01-01


def generate(n_events: int, folder: Path) -> None:
    """FOLDER/events/*.parquet and FOLDER/items.parquet; nothing where they are there already."""
    if (folder / "complete").exists():
        return
    (folder / "events").mkdir(parents=True, exist_ok=True)
    n_users, n_items = max(n_events // 100, 10), min(20_000, max(n_events // 100, 200))
    activity = rng("log benchmark users", n_events).pareto(1.5, n_users) + 0.3
    n_unknown = n_items // 100
    weights = 1 / (10 + np.arange(n_items)) ** 0.9
    weights = np.append(weights, np.full(n_unknown, weights[-1]))
    for part, first in enumerate(range(0, n_events, PART)):
        size = min(PART, n_events - first)
        events = _events(rng("log benchmark", n_events, part), size, activity, weights)
        events.write_parquet(folder / "events" / f"{part:04d}.parquet")
    number = np.arange(n_items)
    pl.DataFrame(
        {
            "item_id": [f"item-{n}" for n in number],
            "title": [f"The Title of Number {n}" for n in number],
            "year": pl.Series(1930 + number % 90, dtype=pl.Int32),
            "genres": [[GENRES[n % 6], GENRES[(n // 6 + 1) % 6]] if n % 6 != (n // 6 + 1) % 6 else [] for n in number],
            "parent_id": [f"series-{n // 3}" if n % 10 < 3 else None for n in number],
        }
    ).write_parquet(folder / "items.parquet")
    (folder / "complete").touch()


def _events(generator: np.random.Generator, size: int, activity: np.ndarray, weights: np.ndarray) -> pl.DataFrame:
    events = pl.DataFrame(
        {
            "user": generator.choice(len(activity), size, p=activity / activity.sum()),
            "item": generator.choice(len(weights), size, p=weights / weights.sum()),
            "seconds": START + 60 * generator.integers(0, 365 * 24 * 60, size),
            "rating": generator.integers(1, 11, size) / 2,
        }
    )
    repeats = events[generator.choice(size, size // 200, replace=False)]
    events = pl.concat([events, repeats])[generator.permutation(size + len(repeats))]
    time = pl.from_epoch("seconds", time_unit="s").dt.cast_time_unit("us").dt.replace_time_zone("UTC")
    return events.select(
        ("user-" + pl.col("user").cast(pl.String)).alias("user_id"),
        ("item-" + pl.col("item").cast(pl.String)).alias("item_id"),
        time.alias("event_time"),
        pl.lit("rating").alias("event_type"),
        "rating",
    )
