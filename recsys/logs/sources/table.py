"""Any CSV, Parquet or JSON-lines log through a mapping (see `mapping`). Values that do not fit what the mapping
declares are refused (see `columns`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recsys.logs.impressions import click_events
from recsys.logs.sources.columns import opened, sources_of, typed
from recsys.logs.sources.files import collect
from recsys.logs.sources.mapping import LogMapping, TableMapping, load_mapping
from recsys.logs.sources.passing import PassingEvents
from recsys.logs.sources.plays import fold
from recsys.logs.tables import PassingLog, RawLog


def read(path: Path | str, mapping: Path | str | Mapping[str, Any]) -> RawLog:
    """Read the log under `path` (folder, or the file itself) as `mapping` describes it.

    Raises InputError for missing columns, values that are not what the mapping declares, and times outside 1990 ..
    tomorrow.
    """
    rules = load_mapping(mapping)
    root = Path(path)
    items = _whole(rules.items, root, "items") if rules.items else None
    parts: list[pl.DataFrame] = []
    counts: dict[str, int] = {}
    impressions = None
    if rules.events:
        parts.append(_typed(_whole(rules.events, root, "events"), rules.events, counts))
    if rules.plays and rules.fold:
        signals = _whole(rules.plays, root, "plays")
        known = items.select("item_id", "runtime_s") if items is not None and "runtime_s" in items.columns else None
        views, found = fold(_left_out(signals, "signal", counts).lazy(), rules.fold, known)
        parts.append(views)
        counts |= found
    if rules.impressions:
        impressions = _shown(_whole(rules.impressions, root, "impressions"))
        if rules.impressions.event_type:
            parts.append(click_events(impressions, rules.impressions.event_type))
    events = parts[0] if len(parts) == 1 else pl.concat(parts, how="diagonal_relaxed")
    return RawLog(events.lazy(), items, _provenance(rules, root), rules.engaged, impressions, counts)


def read_passing(path: Path | str, mapping: Path | str | Mapping[str, Any]) -> PassingLog:
    """`read` of a mapping of `events`, and maybe items, that leaves the events in their files. Values are refused when
    they pass by."""
    rules = load_mapping(mapping)
    root = Path(path)
    assert rules.events is not None
    items = _whole(rules.items, root, "items") if rules.items else None
    events = PassingEvents(rules.events, root)
    return PassingLog(events.read, events.schema, items, _provenance(rules, root), rules.engaged, events.left_out())


def _provenance(rules: LogMapping, root: Path) -> dict[str, str]:
    tables = {"events": rules.events, "plays": rules.plays, "impressions": rules.impressions, "items": rules.items}
    provenance = {name: table.file.file or root.name for name, table in tables.items() if table}
    provenance.setdefault("items", "derived from events")
    return provenance


def _typed(events: pl.DataFrame, table: TableMapping, counts: dict[str, int]) -> pl.DataFrame:
    if table.event_type:
        return events.with_columns(pl.lit(table.event_type).alias("event_type"))
    return _left_out(events, "event_type", counts)


def _left_out(rows: pl.DataFrame, name: str, counts: dict[str, int]) -> pl.DataFrame:
    """Rows whose `name` the mapping did not turn into null."""
    kept = rows.filter(pl.col(name).is_not_null())
    counts[f"rows_without_{name}_left_out"] = len(rows) - len(kept)
    return kept


def _shown(rows: pl.DataFrame) -> pl.DataFrame:
    """Impressions; a click without a time of its own happened when the item was shown."""
    time = pl.col("click_time").fill_null(pl.col("shown_at")) if "click_time" in rows.columns else pl.col("shown_at")
    return rows.with_columns(pl.when("clicked").then(time).alias("click_time"))


def _whole(table: TableMapping, root: Path, where: str) -> pl.DataFrame:
    held = opened(table, root, where).select(sources_of(table.columns))
    raw = collect(held, table.file.file or root.name, (table.file, root))
    return typed(raw, table.columns, where)
