"""Impressions: what was put before a user, clicked or not, under `data_schemas/impressions.yaml`.

They become two things: the clicks are events, and what was shown beside a clicked item is the honest choice of
negatives for it (slate policy `logged`). What was shown and left alone is no event: it is no touch for discovery and no
popularity.
"""

import dataclasses

import polars as pl

from recsys import contracts
from recsys.calendar_range import first_row
from recsys.errors import ContractError
from recsys.logs.tables import Log, RawLog
from recsys.logs.text import clean


def click_events(impressions: pl.DataFrame, event_type: str) -> pl.DataFrame:
    """One event per clicked row, at its click_time: user_id, item_id, event_time, event_type, surface."""
    clicked = impressions.filter("clicked")
    surface = pl.col("surface") if "surface" in clicked.columns else pl.lit(None, pl.String).alias("surface")
    return clicked.select(
        "user_id", "item_id", pl.col("click_time").alias("event_time"), pl.lit(event_type).alias("event_type"), surface
    )


def carried(raw: RawLog, log: Log) -> Log:
    """`log` with what its source counted, and with the source's impressions under their contract.

    Dropped and counted: rows lacking an id, rows of items the catalogue does not hold, repeats of an item within an
    impression (a clicked row stays, else the first position). Raises ContractError when the rows of one impression name
    several users or moments, or break the contract.
    """
    counts = raw.counts | log.counts
    if raw.impressions is None:
        return dataclasses.replace(log, counts=counts)
    shown = contracts.conform(raw.impressions, "impressions")
    ids = ("impression_id", "user_id", "item_id")
    counts["impression_rows_read"] = len(shown)
    shown = _kept(
        shown.with_columns(clean(pl.col(name)) for name in (*ids, "surface")),
        pl.all_horizontal(pl.col(name).is_not_null() for name in ids),
        "impression_rows_without_an_id_dropped",
        counts,
    )
    _check_one_moment(shown)
    known = pl.col("item_id").is_in(log.items["item_id"].implode())
    shown = _kept(shown, known, "impression_rows_of_unknown_items_dropped", counts)
    before = len(shown)
    rest = [name for name in shown.columns if name not in ids]
    shown = shown.sort(*ids, pl.col("clicked").not_(), *(name for name in rest if name != "clicked"), nulls_last=True)
    shown = shown.unique(["impression_id", "item_id"], keep="first")
    counts["impression_rows_repeated_dropped"] = before - len(shown)
    shown = shown.with_columns(pl.when("clicked").then(pl.col("click_time").fill_null(pl.col("shown_at"))))
    shown = shown.sort("user_id", "shown_at", "impression_id", "position", "item_id", nulls_last=True)
    counts["impression_rows_kept"] = len(shown)
    counts["impressions_kept"] = shown["impression_id"].n_unique()
    clicked = shown.group_by("impression_id").agg(pl.col("clicked").any())
    counts["impressions_without_click"] = len(clicked.filter(~pl.col("clicked")))
    return dataclasses.replace(
        log,
        counts=counts,
        impressions=contracts.check(shown.select(contracts.schema("impressions").names()), "impressions"),
    )


def _kept(frame: pl.DataFrame, condition: pl.Expr, name: str, counts: dict[str, int]) -> pl.DataFrame:
    kept = frame.filter(condition)
    counts[name] = len(frame) - len(kept)
    return kept


def _check_one_moment(shown: pl.DataFrame) -> None:
    first = ("user_id", "shown_at")
    several = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).first().over("impression_id")) for name in first)
    broken = shown.filter(several)
    if len(broken):
        row = first_row(broken.select("impression_id", *first, "item_id"))
        raise ContractError(
            f"table 'impressions', column 'impression_id', {len(broken)} of {len(shown)} rows, e.g. {row}",
            "all rows of an impression share user_id and shown_at",
            "make the id unique per slate shown, e.g. from request and time",
        )
