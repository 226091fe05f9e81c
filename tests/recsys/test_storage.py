"""Files are whole or absent, and a file that cannot be read says so."""

import errno
import os
from pathlib import Path

import polars as pl
import pytest

from recsys import storage
from recsys.errors import CorruptFileError, InputError


def test_a_failed_write_leaves_the_old_file_and_no_neighbour(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "value.txt"
    storage.write_text("old", path)
    with pytest.raises(RuntimeError), storage.replacing(path) as temporary:
        temporary.write_text("half of the new")
        raise RuntimeError("killed")
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["value.txt"]


def test_no_space_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match=r"No space left on device.*Remedy: free space"):
        storage.write_json({"a": 1}, tmp_path / "value.json")
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not be written"):
        storage.write_text("x", tmp_path / "file" / "below.txt")


def test_round_trips_are_deterministic(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [1, 2], "b": [["x"], []]})
    storage.write_parquet(frame, tmp_path / "a.parquet")
    storage.write_parquet(frame, tmp_path / "b.parquet")
    assert storage.read_parquet(tmp_path / "a.parquet").equals(frame)
    assert storage.file_hash(tmp_path / "a.parquet") == storage.file_hash(tmp_path / "b.parquet")
    storage.write_json({"b": "ü", "a": [1]}, tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "a": [\n    1\n  ],\n  "b": "ü"\n}\n'
    assert storage.read_json(tmp_path / "a.json") == {"a": [1], "b": "ü"}
    assert (tmp_path / "a.json").stat().st_mode & 0o044


def test_corrupt_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"PAR1 but not really")
    with pytest.raises(CorruptFileError, match="bad: not a readable Parquet file"):
        storage.read_parquet(tmp_path / "bad")
    with pytest.raises(CorruptFileError, match="bad: not valid JSON"):
        storage.read_json(tmp_path / "bad")
    with pytest.raises(FileNotFoundError):
        storage.read_parquet(tmp_path / "absent")
