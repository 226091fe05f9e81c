"""Events that stay in their files and pass by in batches are those of a table read whole, refusals and counts alike."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.errors import CorruptFileError, InputError
from recsys.logs.buckets import canonicalise_bucketed
from recsys.logs.events import canonicalise
from recsys.logs.impressions import carried
from recsys.logs.sources import SourceConfig, open_passing, open_source, passing, read_whole
from recsys.simulator.config import SimulatorConfig
from recsys.simulator.write import write_simulation

ROWS = 900
COLUMNS: dict[str, Any] = {
    "user_id": "who",
    "item_id": "what",
    "event_time": {"from": "at", "unit": "s"},
    "event_type": {"from": "kind", "values": {"p": "play", "r": "rating", "x": None}},
    "rating": {"from": "stars", "scale": [0, 10]},
}
ITEMS = {"file": "items.csv", "columns": {"item_id": "what", "title": "name", "parent_id": "show"}}


LATE = pl.when(pl.int_range(pl.len()) == 700)
ENGAGED = {"engaged": {"rating_at_least": 7}}


def table(rows: int = ROWS) -> pl.DataFrame:
    generator = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "who": [f"u{n}" for n in generator.integers(0, 40, rows)],
            "what": [f"i{n}" for n in generator.integers(0, 30, rows)],
            "at": 1_600_000_000 + generator.integers(0, 10**6, rows),
            "kind": generator.choice(["p", "r", "x"], rows),
            "stars": generator.integers(0, 11, rows),
        }
    )


def write_items(folder: Path) -> None:
    ids = [f"i{n}" for n in range(30)]
    shows = [f"s{n // 3}" if n % 2 else None for n in range(30)]
    pl.DataFrame({"what": ids, "name": [f"Title {n}" for n in ids], "show": shows}).write_csv(folder / "items.csv")


def mapping(**events: Any) -> dict[str, Any]:
    return {
        "events": {"file": "events-*.csv", "columns": COLUMNS, **events},
        "items": ITEMS,
        "engaged": {"rating_at_least": 7},
    }


def csv(rows: pl.DataFrame, folder: Path) -> dict[str, Any]:
    for number, part in enumerate(rows.iter_slices(250)):
        part.write_csv(folder / f"events-{number}.csv")
    return mapping()


def parquet(rows: pl.DataFrame, folder: Path) -> dict[str, Any]:
    rows.write_parquet(folder / "events.parquet", row_group_size=100)
    return mapping(file="events.parquet")


def jsonl(rows: pl.DataFrame, folder: Path) -> dict[str, Any]:
    rows.write_ndjson(folder / "events.jsonl")
    return mapping(file="events.jsonl")


def wide(rows: pl.DataFrame, folder: Path) -> dict[str, Any]:
    (folder / "events.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in rows.iter_rows()))
    return mapping(file="events.dat", separator="::", header=rows.columns, encoding="latin-1")


def described(rows: pl.DataFrame, folder: Path) -> dict[str, Any]:
    """Without a catalogue: events carry title and year, and one type."""
    titled = rows.with_columns(name=pl.concat_str(pl.lit("Title "), "what", pl.lit(" (1999)")))
    titled.write_csv(folder / "events-0.csv")
    columns = {name: spec for name, spec in COLUMNS.items() if name != "event_type"}
    columns["title"] = {"from": "name", "year": "suffix"}
    content: Mapping[str, Any] = mapping(columns=columns, event_type="rating")
    return {name: value for name, value in content.items() if name != "items"}


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "BATCH_ROWS", 128)


@pytest.mark.parametrize("write", [csv, parquet, jsonl, wide, described])
@pytest.mark.parametrize("roll_up", [False, True])
def test_passing_events_are_those_of_the_table(
    tmp_path: Path, write: Callable[[pl.DataFrame, Path], dict[str, Any]], roll_up: bool
) -> None:
    write_items(tmp_path)
    config = SourceConfig("table", str(tmp_path), inline=write(table(), tmp_path))
    if roll_up and write is described:
        pytest.skip("rolling up needs a parent_id")
    config = dataclasses.replace(config, roll_up=roll_up)
    whole, lazy = open_source(config), open_passing(config)
    assert lazy.counts == whole.counts and lazy.provenance == whole.provenance
    events = whole.events.collect()
    assert pl.concat(lazy.read(events.columns)).equals(events) and lazy.schema == events.schema
    for columns in (["user_id"], ["event_type"], ["rating", "item_id"]):
        assert pl.concat(lazy.read(columns)).equals(events.select(columns))
    expected = carried(whole, canonicalise(whole))
    found = canonicalise_bucketed(lazy, tmp_path / "buckets", bucket_events=100, batch_rows=200)
    assert found.counts == expected.counts and len(found.buckets) > 4
    assert pl.concat([found.bucket(bucket).events for bucket in found.buckets]).equals(expected.events)
    assert found.items.equals(expected.items)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            pl.when(pl.int_range(pl.len()) == 700).then(11).otherwise("stars").alias("stars"),
            r"rating.*falls outside 0 .. 10",
        ),
        (pl.when(pl.int_range(pl.len()) == 700).then(pl.lit("q")).otherwise("kind").alias("kind"), "declared values"),
        (pl.when(pl.int_range(pl.len()) == 700).then(99).otherwise("at").alias("at"), "outside 1990"),
    ],
)
def test_a_bad_value_is_refused_when_it_passes(tmp_path: Path, change: pl.Expr, message: str) -> None:
    write_items(tmp_path)
    content = csv(table().with_columns(change), tmp_path)
    with pytest.raises(InputError, match=message):
        lazy = open_passing(SourceConfig("table", str(tmp_path), inline=content))
        canonicalise_bucketed(lazy, tmp_path / "buckets", bucket_events=100, batch_rows=200)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    write_items(tmp_path)
    lazy = open_passing(SourceConfig("table", str(tmp_path), inline=csv(table(), tmp_path)))
    with (tmp_path / "events-2.csv").open("ab") as handle:
        handle.write(b"u\xff,i1,1600000000,p,5\n")
    with pytest.raises(CorruptFileError, match=r"events-2\.csv.*could not be read"):
        canonicalise_bucketed(lazy, tmp_path / "buckets", bucket_events=100, batch_rows=200)


def test_an_absent_column_is_refused_at_once(tmp_path: Path) -> None:
    write_items(tmp_path)
    content = csv(table().drop("stars"), tmp_path)
    with pytest.raises(InputError, match=r"events\.columns\.rating.*is not in"):
        open_passing(SourceConfig("table", str(tmp_path), inline=content))


def test_a_simulation_on_disk_passes(tmp_path: Path) -> None:
    write_simulation(SimulatorConfig(users=60, works=50, days=60, seed=3), tmp_path / "made", users_per_part=13)
    config = SourceConfig("simulator", str(tmp_path / "made"))
    expected = canonicalise(open_source(config))
    found = canonicalise_bucketed(open_passing(config), tmp_path / "log", bucket_events=200, batch_rows=300)
    assert found.counts == expected.counts and len(found.buckets) > 3
    assert pl.concat([found.bucket(bucket).events for bucket in found.buckets]).equals(expected.events)


def test_what_is_read_whole_says_why(tmp_path: Path) -> None:
    write_items(tmp_path)
    content = csv(table(), tmp_path)
    signals = {name: COLUMNS[name] for name in ("user_id", "item_id", "event_time")}
    plays = {
        "file": "events-*.csv",
        "gap_s": 60,
        "columns": {**signals, "signal": {"from": "kind", "values": {"p": "start"}}},
    }
    config = SourceConfig("table", str(tmp_path), inline={**content, "plays": plays})
    with pytest.raises(InputError, match=r"maps `plays`.*engine: local"):
        open_passing(config)
    assert not read_whole(SourceConfig("table", str(tmp_path), inline=content))
    for kind in ("store", "mind"):
        with pytest.raises(InputError, match=r"read whole.*engine: local"):
            open_passing(SourceConfig(kind, str(tmp_path)))
