"""The events of a mapping, left in their files and read in batches: for logs larger than memory.

Every batch is converted and checked as a whole table would be (`columns.typed`), by the one who reads it; a reader that
wants some columns costs those. CSV and JSON lines are parsed anew by every pass. A text file in another encoding than
UTF-8 is held whole, as text.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from recsys.logs.sources.columns import opened, sources_of, typed
from recsys.logs.sources.files import BATCH_ROWS, COMPLAINTS, unreadable
from recsys.logs.sources.mapping import TableMapping


class PassingEvents:
    """The events of a table under a mapping; `read` as in `PassingLog`.

    Raises InputError for a column that is absent; reading raises it for values that do not fit, and CorruptFileError
    naming the file for rows that cannot be read.
    """

    def __init__(self, table: TableMapping, root: Path) -> None:
        self.table, self.root, self.lazy = table, root, opened(table, root, "events")
        nothing = self.lazy.select(sources_of(table.columns)).head(0).collect()
        self.schema = self._with_type(typed(nothing, table.columns, "events")).schema

    def read(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """These columns of all events."""
        for batch in self._batches(columns):
            yield self._with_type(batch).select(columns)

    def left_out(self) -> dict[str, int]:
        """How many rows have no event type, by the mapping, and are no events. Costs a pass over that column."""
        if self.table.event_type:
            return {}
        untyped = sum(batch["event_type"].null_count() for batch in self._batches(["event_type"]))
        return {"rows_without_event_type_left_out": untyped}

    def _with_type(self, rows: pl.DataFrame) -> pl.DataFrame:
        if self.table.event_type:
            return rows.with_columns(pl.lit(self.table.event_type).alias("event_type"))
        return rows.filter(pl.col("event_type").is_not_null())

    def _batches(self, names: Sequence[str]) -> Iterator[pl.DataFrame]:
        """All rows with at least the mapped ones of these columns, and the event type."""
        wanted = {*names, "event_type", *(("title",) if "year" in names else ())}  # a title may hold the year
        mapped = self.table.columns
        columns = {name: column for name, column in mapped.items() if name in wanted}
        columns = columns or {"user_id": mapped["user_id"]}  # a constant alone: as often as there are rows
        try:
            lazy = self.lazy.select(sources_of(columns))
            for batch in lazy.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
                yield typed(batch, columns, "events")
        except COMPLAINTS as error:
            what = self.table.file.file or self.root.name
            raise unreadable(what, error, (self.table.file, self.root)) from error
