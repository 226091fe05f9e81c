"""Forgetting a user across a store and a whole finished run: nothing is left, others stay, and the run goes on."""

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Finished, Workshop
from tiny_run import Recorder, run

from recsys.errors import InputError
from recsys.storage import read_json, read_parquet, write_json, write_parquet
from verbalize.forget import forget
from verbalize.forget import stages as stages_module
from verbalize.forget.rows import Subject, rows_of, write_without
from verbalize.forget.scan import scan
from verbalize.pipeline import STORE, is_done


@pytest.fixture(scope="module")
def trained_user(finished: Finished) -> str:
    """A user whose examples reinforcement learning met."""
    lines = (finished.result.stages["train"] / "seed-0" / "rollouts" / "step-00000.jsonl").read_text().splitlines()
    examples = read_parquet(finished.result.stages["examples"] / "examples.parquet")
    return str(examples.filter(pl.col("example_id") == json.loads(lines[0])["example_id"])["user_id"][0])


@pytest.fixture(scope="module")
def evaluated_user(finished: Finished) -> str:
    """A user of the evaluated arms."""
    return str(read_parquet(finished.result.stages["evaluate"] / "decisions.parquet")["user_id"][0])


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file but locks and what SQLite keeps while somebody reads: shared memory and a log without entries."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".sqlite-shm"]
    files = [path for path in files if path.suffix != ".sqlite-wal" or path.stat().st_size]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != ".lock"}


def test_a_dry_run_lists_and_changes_nothing(store_copy: Path, evaluated_user: str, trained_user: str) -> None:
    before = snapshot(store_copy)
    report = forget([evaluated_user, trained_user], runs=[store_copy], dry_run=True)
    assert snapshot(store_copy) == before
    stages = {Path(one.place).relative_to(store_copy / STORE).parts[0] for one in report.removed if STORE in one.place}
    assert {"logs", "examples", "pool", "train", "evaluate", "report"} <= stages
    assert sum(report.found.remaining.values()) > 20


def test_nothing_is_left_of_a_user_and_the_same_recipe_only_makes_its_report_again(
    workshop: Workshop, finished: Finished, store_copy: Path, evaluated_user: str
) -> None:
    stages = {name: store_copy / folder.relative_to(finished.runs) for name, folder in finished.result.stages.items()}
    before = read_parquet(stages["evaluate"] / "decisions.parquet")
    texts = read_parquet(stages["evaluate"] / "verbalizations.parquet")
    mine = before.filter(pl.col("user_id") == evaluated_user)["example_id"].unique()
    written = texts.filter(pl.col("example_id").is_in(mine.implode()), pl.col("text") != "")["text"].unique()
    write_parquet(before, store_copy / "tiny" / "copied.parquet")
    report = forget([evaluated_user], runs=[store_copy])
    assert report.found.remaining == {}
    for path in store_copy.rglob("*"):
        assert not path.is_file() or evaluated_user.encode() not in path.read_bytes(), path
    after = read_parquet(stages["evaluate"] / "decisions.parquet")
    assert after.equals(before.filter(pl.col("user_id") != evaluated_user))
    handed = read_parquet(stages["evaluate"] / "verbalizations.parquet")
    shuffled = handed.filter(pl.col("verbalizer").str.starts_with("shuffled"))
    assert not shuffled["text"].is_in(written.implode()).any()
    for name in ("logs", "examples", "evaluate"):
        assert is_done(stages[name])
        assert read_json(stages[name] / "done.json")["forgotten"]["users"] == 1
    assert not (stages["evaluate"] / "parts").exists()
    recorder = Recorder()
    again = run(workshop.values, store_copy, progress=recorder)
    assert recorder.began() == ["report"]
    assert read_json(again.folder / "manifest.json")["stages"]["evaluate"]["forgotten"]["rows"] > 0


def test_adapters_that_learned_from_a_user_are_named_and_stay(store_copy: Path, trained_user: str) -> None:
    report = forget([trained_user], runs=[store_copy])
    named = {str(Path(one.adapter).relative_to(store_copy / STORE)).split("/")[0]: one for one in report.adapters}
    assert "rollouts of their examples" in named["train"].why and named["train"].runs == ("tiny",)
    assert "training examples" in named["warm_start"].why
    assert all((Path(one.adapter) / "adapter_model.safetensors").is_file() for one in report.adapters)
    record = read_json(store_copy / "forgotten.json")
    assert len(record[0]["adapters"]) == len(report.adapters) and trained_user not in json.dumps(record)
    assert forget([trained_user], runs=[store_copy]).removed == ()


def test_a_user_nobody_knows_changes_nothing(store_copy: Path) -> None:
    report = forget(["nobody"], runs=[store_copy])
    assert (report.removed, report.adapters, report.found.remaining) == ((), (), {})


def test_a_kill_between_the_files_of_a_stage_is_finished_by_the_same_command(
    finished: Finished, store_copy: Path, evaluated_user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = store_copy.with_name("expected")
    shutil.copytree(store_copy, expected)
    forget([evaluated_user], runs=[expected])

    real, moves = stages_module.os.replace, []

    def dies(source: Path, target: Path) -> None:
        moves.append(target)
        if len(moves) == 3:
            raise KeyboardInterrupt
        real(source, target)

    # The module's own name for `os`: writing files atomically renames as well, and is not what is cut here.
    monkeypatch.setattr(stages_module, "os", type("os", (), {"replace": staticmethod(dies)}))
    with pytest.raises(KeyboardInterrupt):
        forget([evaluated_user], runs=[store_copy])
    monkeypatch.undo()
    report = forget([evaluated_user], runs=[store_copy])
    assert report.found.remaining == {}
    tables = [path.relative_to(expected) for path in expected.rglob("*.parquet")]
    assert tables and all((store_copy / name).read_bytes() == (expected / name).read_bytes() for name in tables)
    assert not list(store_copy.rglob(".forget*"))


def test_an_unfinished_stage_that_holds_the_user_is_dropped(
    finished: Finished, store_copy: Path, evaluated_user: str
) -> None:
    folder = store_copy / finished.result.stages["evaluate"].relative_to(finished.runs)
    (folder / "done.json").unlink()
    report = forget([evaluated_user], runs=[store_copy])
    assert any(one.place == str(folder) and "unfinished" in one.how for one in report.removed)
    assert [path.name for path in folder.iterdir()] == [".lock"]


SUBJECT = Subject(frozenset({"7"}), frozenset({"e7"}))


def test_rows_are_found_and_removed_in_every_format(tmp_path: Path) -> None:
    write_parquet(pl.DataFrame({"user_id": ["7", "77"], "n": [1, 2]}), tmp_path / "a.parquet")
    rows = [{"example_id": "e7"}, {"example_id": "e8", "in": {"user_id": 7}}]
    write_json({"kept": 7, "rows": rows}, tmp_path / "b.json")
    lines = [{"user_id": "7"}, {"user_id": "8"}, {"kind": "table", "rows": [{"example_id": "e7"}, {"example_id": "x"}]}]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cut')
    with sqlite3.connect(tmp_path / "d.sqlite") as database:
        database.execute("CREATE TABLE t (user_id INTEGER, text TEXT)")
        database.executemany("INSERT INTO t VALUES (?, ?)", [(7, "secret of seven"), (8, "other")])
    expected = {"a.parquet": 1, "b.json": 2, "c.jsonl": 2, "d.sqlite": 1}
    for name, count in expected.items():
        path = tmp_path / name
        assert rows_of(path, SUBJECT) == count
        write_without(path, SUBJECT, path)
        assert rows_of(path, SUBJECT) == 0
    assert read_parquet(tmp_path / "a.parquet")["user_id"].to_list() == ["77"]
    assert read_json(tmp_path / "b.json") == {"kept": 7, "rows": [{"example_id": "e8"}]}
    kept = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert kept == [{"user_id": "8"}, {"kind": "table", "rows": [{"example_id": "x"}]}]
    assert b"secret of seven" not in (tmp_path / "d.sqlite").read_bytes()


def test_the_scan_tells_a_users_places_from_equal_texts(tmp_path: Path) -> None:
    nested = {"item_id": ["7", "8"], "rows": [[{"user_id": "7"}], []], "year": [7, 8]}
    write_parquet(pl.DataFrame(nested), tmp_path / "a.parquet")
    write_json({"examples": 7, "users": ["7"], "chat": '[{"user": "7"}]', "7": {}}, tmp_path / "b.json")
    (tmp_path / "weights.bin").write_bytes(b"7")
    found = scan([tmp_path], SUBJECT)
    assert {place.split("/")[-1]: count for place, count in found.remaining.items()} == {
        "a.parquet: rows.user_id": 1,
        "b.json: users": 1,
        "b.json: chat.user": 1,
    }
    assert {place.split("/")[-1] for place in found.elsewhere} == {"a.parquet: item_id", "b.json: (top).(keys)"}
    assert found.unread == {".bin": 1}


def test_folders_that_are_not_what_they_are_said_to_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"holds no {STORE}"):
        forget(["x"], runs=[tmp_path])
    with pytest.raises(InputError, match="holds no store"):
        forget(["x"], stores=[tmp_path])
    with pytest.raises(InputError, match="nobody"):
        forget([], runs=[tmp_path])


def test_an_experience_library_is_asked_as_well(tmp_path: Path) -> None:
    from verbalize.experience.entries import lesson
    from verbalize.experience.library import ExperienceLibrary
    from verbalize.forget import LibraryKeeper

    told = [
        lesson("saw war films", "keep the recent ones", "example", "strategy", 0.5, sources=["s1"], users=["quser7"]),
        lesson("saw comedies", "name the genre", "example", "strategy", 0.4, sources=["s2"], users=["quser8"]),
    ]
    with ExperienceLibrary.open(tmp_path, embedder=lambda texts: np.eye(4, dtype=np.float32)[: len(texts)]) as library:
        library.admit(told)
    keeper = LibraryKeeper(tmp_path)
    assert forget(["quser7"], keepers=[keeper], dry_run=True).removed[0].rows == 1
    report = forget(["quser7"], keepers=[keeper])
    assert report.removed[0].rows == 1 and report.found.remaining == {}
    assert keeper.holds(["quser7"]) == 0 and keeper.holds(["quser8"]) == 1
    assert not any(b"quser7" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
