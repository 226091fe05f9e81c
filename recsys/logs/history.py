"""Histories: of a target's user, the most recent H events strictly before the target's time.

The events are ordered by user and time, so a history is a range of rows; nothing is grouped or joined to find it, and
rows are gathered only for the targets that were chosen.
"""

import polars as pl

from recsys import contracts

_BATCH_ROWS = 5_000_000  # history rows gathered at once: bounds the memory of intermediate results


def with_past(events: pl.DataFrame) -> pl.DataFrame:
    """Add `past`, how many events of the same user are strictly earlier (ties are not), and `past_end`, the row just
    after them.

    `events` must be ordered by user_id, event_time: the earlier events are then the rows [past_end - past, past_end).
    """
    new_user = (pl.col("user_id") != pl.col("user_id").shift()).fill_null(True)
    new_time = new_user | (pl.col("event_time") != pl.col("event_time").shift())
    row = pl.int_range(pl.len(), dtype=pl.Int64)
    starts = events.select(
        pl.when(new).then(row).forward_fill().alias(name) for name, new in (("user", new_user), ("time", new_time))
    )
    return events.with_columns(starts["time"].alias("past_end"), (starts["time"] - starts["user"]).alias("past"))


def histories(starts: pl.Series, lengths: pl.Series, events: pl.DataFrame, items: pl.DataFrame) -> pl.Series:
    """List[Struct] histories, oldest first: for each target, `lengths` (>= 1) rows of `events` from row `starts`."""
    dtype = contracts.schema("examples")["history"]
    fields = dtype.inner.to_schema()  # type: ignore[attr-defined]
    described = items.select("item_id", *(name for name in fields if name in ("title", "year", "genres")))
    parts = []
    ends = lengths.cast(pl.Int64).cum_sum()
    done = 0
    while done < len(starts):
        before = ends[done - 1] if done else 0
        size = max(1, int((ends <= before + _BATCH_ROWS).sum()) - done)
        first, length = starts.slice(done, size).cast(pl.Int64), lengths.slice(done, size).cast(pl.Int64)
        ranges = (
            pl.DataFrame({"first": first, "last": first + length})
            .with_row_index("target")
            .select("target", pl.int_ranges("first", "last").alias("row"))
        )
        flat = ranges.explode("row", empty_as_null=False)
        shown = events.select(name for name in fields if name in events.columns)[flat["row"]]
        shown = shown.join(described, on="item_id", how="left", maintain_order="left").select(
            pl.struct(list(fields)).alias("history")
        )
        grouped = shown.with_columns(flat["target"].set_sorted()).group_by("target", maintain_order=True).agg("history")
        parts.append(grouped["history"])
        done += size
    return pl.concat(parts).cast(dtype) if parts else pl.Series("history", [], dtype)
