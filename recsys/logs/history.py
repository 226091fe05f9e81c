"""Histories: of a target's user, the most recent H events strictly before the target's time.

The events are ordered by user and time, so a history is a range of rows; nothing is grouped or joined to find it, and
rows are gathered only for the targets that were chosen.
"""

import numpy as np
import polars as pl

from recsys import contracts
from recsys.logs.coded import codes_of

_BATCH_ROWS = 5_000_000  # history rows gathered at once: bounds the memory of intermediate results


def histories(
    starts: pl.Series, lengths: pl.Series, events: pl.DataFrame, items: pl.DataFrame, places: np.ndarray | None = None
) -> pl.Series:
    """List[Struct] histories, oldest first: for each target, `lengths` (>= 1) rows of `events` from row `starts`.

    `places` (N,) names the row of `items` for each event, where the caller knows it (`Codes.items`).
    """
    dtype = contracts.schema("examples")["history"]
    assert isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct)
    fields = [field.name for field in dtype.inner.fields]
    shown = events.select(name for name in fields if name in events.columns)
    described = items.select(name for name in fields if name in items.columns and name not in events.columns)
    place = pl.Series(codes_of(events, items).items if places is None else places)

    def rows_shown(rows: pl.Series) -> pl.Series:
        flat = shown[rows].hstack(described[place.gather(rows)])
        return flat.select(pl.struct(fields)).to_series()

    ends = lengths.cast(pl.Int64).cum_sum()
    parts, done = [], 0
    while done < len(starts):
        before = ends[done - 1] if done else 0
        size = max(1, int((ends <= before + _BATCH_ROWS).sum()) - done)
        ranges = pl.DataFrame({"first": starts.slice(done, size), "length": lengths.slice(done, size)}).select(
            pl.int_ranges("first", pl.col("first") + pl.col("length")).alias("history")
        )
        # The rows of all lists are replaced at once and the lists keep their bounds: nothing is grouped.
        gathered = pl.element().map_batches(rows_shown, return_dtype=dtype.inner, is_elementwise=True)
        parts.append(ranges.select(pl.col("history").list.eval(gathered)).to_series())
        done += size
    return pl.concat(parts).cast(dtype) if parts else pl.Series("history", [], dtype)
