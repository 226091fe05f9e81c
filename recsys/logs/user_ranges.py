"""Ranges of users that hold about equally many events: where a log too large to sort is cut.

Cutting by the order of ids, and not by a hash of them, leaves each bucket's users behind those of the bucket before:
tables made bucket by bucket are in order when they are put one behind another, and nothing is ever sorted whole. The
cuts come from a sample of users (TeraSort's idea, after O'Malley 2008), each weighed by its own events, so heavy users
get narrower ranges. A user is never divided, so one with more events than a bucket makes a larger one.
"""

from collections.abc import Iterable

import numpy as np
import polars as pl

from recsys.logs.codes import distinct
from recsys.logs.text import clean
from recsys.seeding import stable_hashes

SAMPLE = 100_000
"""Users whose events are counted to find the cuts; with no more than these the counts are exact."""


def cut_users(ids: Iterable[pl.Series], bucket_events: int, sample: int = SAMPLE) -> tuple[pl.Series, int]:
    """(the first user of every range but the first, ascending; how many rows there were) of raw user ids in batches.

    The sample is of the users whose hashes are smallest: whoever is in it at the end was in it from the first row on,
    so it does not depend on the order of rows.
    """
    held = pl.DataFrame(schema={"user": pl.String, "hash": pl.UInt64, "events": pl.UInt32})
    rows = 0
    for batch in ids:
        rows += len(batch)
        codes, table = distinct(batch)
        counts = np.bincount(codes.drop_nulls().to_numpy(), minlength=len(table))
        found = pl.DataFrame({"user": named(table), "events": pl.Series(counts, dtype=pl.UInt32)})
        found = found.with_columns(hash=pl.Series(stable_hashes("range", values=found["user"])))
        found = pl.concat([held, found.select(held.columns)]).group_by("user", "hash").agg(pl.col("events").sum())
        held = found.bottom_k(sample, by="hash")
    buckets = -(-rows // bucket_events)
    held = held.sort("user")
    before = held["events"].cast(pl.Float64).cum_sum() - held["events"]
    place = (before * buckets / max(float(held["events"].sum()), 1.0)).floor()
    return held["user"].filter((place != place.shift()) & (place > 0)), rows


def range_of(users: pl.Series, cuts: pl.Series) -> pl.Series:
    """The number of each user's range, UInt16."""
    if cuts.is_empty():
        return pl.repeat(0, len(users), dtype=pl.UInt16, eager=True)
    return cuts.search_sorted(users, side="right").cast(pl.UInt16)  # type: ignore[union-attr]


def named(table: pl.DataFrame) -> pl.Series:
    """The cleaned id of each local code of a batch; "" for what names nobody, to be dropped and counted later."""
    return table.select(clean(pl.col("text")).fill_null("")).to_series()
