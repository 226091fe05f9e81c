"""Simulations as files: parts that equal the whole, and the door through which a recipe reads them."""

from pathlib import Path

import polars as pl
import pytest

from recsys.errors import InputError
from recsys.logs.events import canonicalise
from recsys.logs.sources import SourceConfig, open_source
from recsys.simulator.config import SimulatorConfig
from recsys.simulator.source import truth_of
from recsys.simulator.write import write_simulation

SETTINGS = {"users": 50, "works": 40, "days": 40, "seed": 9}


def test_parts_are_the_whole_and_a_folder_reads_like_its_settings(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    done = write_simulation(
        SimulatorConfig(**SETTINGS), tmp_path / "log", users_per_part=16, progress=lambda *now: told.append(now)
    )
    assert told == [(16, 50), (32, 50), (48, 50), (50, 50)] and done.parts == 4
    from_files = open_source(SourceConfig(kind="simulator", path=str(tmp_path / "log")))
    inline = open_source(SourceConfig(kind="simulator", inline=SETTINGS))
    assert from_files.events.collect().equals(inline.events.collect())
    assert from_files.items is not None and inline.items is not None and from_files.items.equals(inline.items)
    assert from_files.engaged == inline.engaged and from_files.engaged is not None
    truth = truth_of(str(tmp_path / "log"), None)
    assert truth.equals(truth_of("", SETTINGS))
    events = from_files.events.collect()
    assert (done.users, done.events, done.noise) == (50, len(events), truth["is_noise"].sum())
    assert canonicalise(from_files).counts["users_kept"] == 50
    # A part holds whole users only, and no column of the truth.
    parts = [pl.read_parquet(path) for path in sorted((tmp_path / "log" / "events").iterdir())]
    assert sum(part["user_id"].n_unique() for part in parts) == 50
    assert not {"kind", "is_noise", "member", "phase"} & set(parts[0].columns)


def test_folders_that_cannot_be_written_or_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        write_simulation(SimulatorConfig(**SETTINGS), tmp_path / "full")
    with pytest.raises(InputError, match="not a finished simulation"):
        open_source(SourceConfig(kind="simulator", path=str(tmp_path / "full")))
    for wrong in (SourceConfig(kind="simulator"), SourceConfig(kind="simulator", path="x", inline=SETTINGS)):
        with pytest.raises(InputError, match="exactly one of them names a simulation"):
            open_source(wrong)
    with pytest.raises(InputError, match="did you mean works"):
        open_source(SourceConfig(kind="simulator", inline={"work": 3}))
