"""What fuzzing of foreign files shares: mappings of one small table, odd values and types for it, and the one property
that every door keeps. A file becomes a log under its contracts with every row accounted for, or a refusal."""

import datetime as dt
import functools
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from recsys import contracts
from recsys.errors import InputError
from recsys.logs.sources import SourceConfig, read_log
from recsys.logs.sources.plays import SIGNALS
from recsys.logs.tables import Log

COLUMNS = ("who", "what", "at", "name", "n", "kind")
TYPICAL: dict[str, Any] = dict(zip(COLUMNS, ("u1", "i1", 1_577_836_800, "Title", 3, "play"), strict=True))
FOLDER = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
"""Examples share one folder and overwrite its file."""


def fuzz(examples: int) -> settings:
    """The same examples in every run, so that a change breaks a test and chance does not."""
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=FOLDER)


def mapping(section: str, file: str = "log.csv", time_unit: str = "s") -> dict[str, Any]:
    """One file as `events` (which describe their items), `plays`, or `impressions` with a catalogue."""
    time = {"from": "at", "unit": time_unit}
    who = {"user_id": "who", "item_id": "what"}
    if section == "events":
        columns = who | {"event_time": time, "title": "name", "rating": "n", "event_type": "kind"}
        return {"events": {"file": file, "columns": columns}}
    if section == "plays":
        signals = {"play": "start", "ad": None, **{name: name for name in SIGNALS}}
        columns = who | {"event_time": time, "title": "name", "signal": {"from": "kind", "values": signals}}
        return {"plays": {"file": file, "gap_s": 60, "columns": columns}}
    columns = who | {"impression_id": "name", "shown_at": time, "position": "n"}
    columns["clicked"] = {"from": "kind", "values": {"play": True, "b": False}}
    catalogue = {"item_id": "what", "title": "name", "available_from": time}
    return {
        "impressions": {"file": file, "event_type": "click", "columns": columns},
        "items": {"file": file, "columns": catalogue},
    }


def log_or_refusal(config: SourceConfig, rows: int | None = None) -> Log | InputError:
    """What comes of a source, whose file holds so many `rows` where they are known. Anything but a log under its
    contracts with all rows accounted for, or a refusal that names value, rule and remedy, fails the test."""
    before = _files(Path(config.path))
    try:
        log = read_log(config)
    except InputError as refusal:
        complete(refusal)
        found: Log | InputError = refusal
    else:
        contracts.check(log.events, "events")
        contracts.check(log.items, "items")
        if log.impressions is not None:
            contracts.check(log.impressions, "impressions")
        accounted(log, rows)
        found = log
    assert _files(Path(config.path)) == before, "reading wrote something"
    return found


def complete(refusal: InputError) -> None:
    """Value, rule and remedy are there, and no reader's own noise stands in for them."""
    assert refusal.value and refusal.rule and refusal.remedy
    assert "Traceback" not in str(refusal) and "object has no attribute" not in str(refusal)


def accounted(log: Log, rows: int | None = None) -> None:
    """What was read is what is kept and what was counted as left out, and the file's rows are what was read."""
    counts = log.counts
    if rows is not None and "signals_read" in counts:
        assert rows == counts["signals_read"] + counts["rows_without_signal_left_out"]
    elif rows is not None and log.impressions is not None:
        assert rows == counts["impression_rows_read"]
    elif rows is not None:
        assert rows == counts["events_read"] + counts.get("rows_without_event_type_left_out", 0)
    left_out = [name for name in counts if name.startswith("events_") and name.endswith("_dropped")]
    assert counts["events_read"] == counts["events_kept"] + sum(counts[name] for name in left_out)
    assert counts["events_kept"] == len(log.events) > 0
    dropped = ("without_id", "repeated", "without_title")
    assert counts["items_read"] == len(log.items) + sum(counts[f"items_{name}_dropped"] for name in dropped)
    if log.impressions is not None:
        parts = [name for name in counts if name.startswith("impression_rows_") and name != "impression_rows_read"]
        assert counts["impression_rows_read"] == sum(counts[name] for name in parts)
        assert counts["impression_rows_kept"] == len(log.impressions)
    if "signals_read" in counts:
        assert counts["views"] + counts["views_merged_across_devices"] <= counts["signals_read"]
        assert counts["views"] == counts["events_read"]


def shown(refusal: InputError, column: str, broken: int, rows: int) -> None:
    """The refusal names the column, how many rows of how many, and one of them."""
    assert column in refusal.value and f"{broken} of {rows} rows, e.g. " in refusal.value, str(refusal)


def _files(path: Path) -> list[tuple[str, int]]:
    if path.is_dir():
        return sorted((one.as_posix(), one.stat().st_size) for one in path.rglob("*"))
    return [(path.as_posix(), path.stat().st_size)]


SECOND = 1_577_836_800  # 2020-01-01
PLAIN = ["", "a", "b", "1", "0", "-1", "play", "nan", str(SECOND), "2020-01-01", " ", "é", "'", ";", '"', "\n"]
HARD = ["1e400", "+12345-01-01", "\x00", "\u202e", "\ufeff", "Film (19٣٤)", "x" * 40, "9" * 30]
WORDS = st.sampled_from([*PLAIN, *HARD])
INTEGERS = st.sampled_from([0, 1, -1, 3, 101, SECOND, 2**31, 2**53 + 1, 2**58 + SECOND, 2**63 - 1, -(2**63)])
FLOATS = st.sampled_from([0.0, 1.5, 3.0, SECOND + 0.25, 1e18, 1e300, float("nan"), float("inf"), -float("inf")])
MOMENT = dt.datetime(2020, 1, 1)


@functools.cache
def column(rows: int, nested: bool) -> st.SearchStrategy[pl.Series]:
    """A column of any type that a Parquet file may hold, with nulls and extremes."""

    def of(values: st.SearchStrategy[Any], *dtypes: Any) -> st.SearchStrategy[pl.Series]:
        several = st.lists(st.none() | values, min_size=rows, max_size=rows)
        return st.builds(lambda some, dtype: pl.Series(some, dtype=dtype), several, st.sampled_from(dtypes))

    def stored(values: st.SearchStrategy[int], physical: Any, *dtypes: Any) -> st.SearchStrategy[pl.Series]:
        """Times and spans by the numbers that stand for them, so that no calendar limits them."""
        several = st.lists(st.none() | values, min_size=rows, max_size=rows)
        make = lambda some, dtype: pl.Series(some, dtype=physical).cast(dtype)  # noqa: E731
        return st.builds(make, several, st.sampled_from(dtypes))

    small = st.sampled_from([0, 1, 3, 127])
    if nested:
        return st.one_of(
            of(st.lists(WORDS, max_size=2), pl.List(pl.String)),
            of(st.lists(small, max_size=2), pl.List(pl.Int64)),
            of(st.lists(small, min_size=2, max_size=2), pl.Array(pl.Int64, 2)),
            of(st.lists(st.binary(max_size=2), max_size=2), pl.List(pl.Binary)),
            of(st.fixed_dictionaries({"a": st.none() | small}), pl.Struct({"a": pl.Int64})),
            of(st.lists(st.fixed_dictionaries({"a": small}), max_size=1), pl.List(pl.Struct({"a": pl.Int64}))),
        )
    times = [pl.Datetime(unit, zone) for unit in ("ms", "us", "ns") for zone in (None, "UTC", "Asia/Beirut")]  # type: ignore[arg-type]
    spans = [pl.Duration(unit) for unit in ("ms", "us", "ns")]  # type: ignore[arg-type]
    return st.one_of(
        of(WORDS, pl.String, pl.Categorical),
        of(st.sampled_from(["a", "play"]), pl.Enum(["a", "play"])),
        of(st.binary(max_size=3) | st.just(b"play"), pl.Binary),
        of(INTEGERS, pl.Int64, pl.Int128),
        of(small, pl.Int8, pl.UInt8, pl.UInt16, pl.Int32, pl.Decimal(10, 2)),
        of(st.sampled_from([2**64 - 1, 5]), pl.UInt64),
        of(FLOATS, pl.Float64),
        of(st.sampled_from([0.5, float("nan"), 3.0]), pl.Float32),
        of(st.booleans(), pl.Boolean),
        of(st.nothing(), pl.Null),
        of(st.just(MOMENT), *times),
        of(st.just(MOMENT.date()), pl.Date),
        of(st.just(MOMENT.time()), pl.Time),
        stored(INTEGERS, pl.Int64, *times),
        stored(INTEGERS, pl.Int64, *spans),
        stored(st.sampled_from([0, -(2**31), 2**31 - 1]), pl.Int32, pl.Date),
    )


@st.composite
def typed_tables(draw: st.DrawFn, low: int = 1) -> pl.DataFrame:
    """Good rows in which some columns are of any type and hold anything."""
    rows = draw(st.integers(low, 3))
    changed = draw(st.sets(st.sampled_from(COLUMNS), max_size=2))
    return pl.DataFrame(
        {
            name: draw(column(rows, draw(st.integers(0, 4)) == 0)) if name in changed else pl.Series([value] * rows)
            for name, value in TYPICAL.items()
        }
    )
