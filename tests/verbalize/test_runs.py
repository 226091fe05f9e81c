"""A run's folder: one process at a time, a place that can be written to, what stopping early leaves."""

import resource
from pathlib import Path

import pytest
from conftest import Finished, Workshop
from tiny_run import Recorder, run

from recsys.errors import InputError
from recsys.storage import read_json
from verbalize import runs as runs_module


def test_a_second_process_is_refused_and_told_what_to_do(workshop: Workshop, finished: Finished) -> None:
    with runs_module._only_one(finished.result.folder):
        recorder = Recorder()
        with pytest.raises(InputError, match=r"another process is running this recipe.*wait") as refusal:
            run(workshop.values, finished.runs, progress=recorder)
        assert refusal.value.value == str(finished.result.folder) and recorder.events == []
    assert run(workshop.values, finished.runs).stages == finished.result.stages


def test_the_lock_is_released_by_a_failure(workshop: Workshop, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(InputError, match="no target is left"):
            run(workshop.values, tmp_path, "examples.history_min=6", "examples.engaged={rating_at_least: 5.5}")


def test_stopping_after_a_stage_leaves_a_manifest_and_no_report(workshop: Workshop, tmp_path: Path) -> None:
    result = run(workshop.values, tmp_path, until="examples")
    assert list(result.stages) == ["logs", "examples"] and result.console == ""
    manifest = read_json(result.folder / "manifest.json")
    assert set(manifest["stages"]) == {"logs", "examples"}
    assert manifest["stages"]["examples"]["facts"]["examples_train"] > 6
    assert {"command", "revision", "hardware", "date", "versions"} <= set(manifest)
    assert not (result.folder / "report.html").exists()
    with pytest.raises(InputError, match=r"'exampels'.*examples"):
        run(workshop.values, tmp_path, until="exampels")


def test_a_runs_folder_that_cannot_be_one_is_named(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"file/tiny.*--runs"):
        run(workshop.values, tmp_path / "file")


def test_a_folder_without_permission_is_named(workshop: Workshop, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    try:
        (closed / "probe").touch()
    except PermissionError:
        with pytest.raises(InputError, match=r"closed.*--runs"):
            run(workshop.values, closed)
    else:
        pytest.skip("this user may write anywhere")


def test_without_space_the_file_is_named_and_the_same_command_goes_on_later(workshop: Workshop, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        with pytest.raises(InputError, match=r"events\.parquet.*could not be written.*free space"):
            run(workshop.values, tmp_path, until="examples")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    left = [path.name for path in (tmp_path / "artefacts" / "logs").rglob("*") if path.is_file()]
    assert left in ([], [".lock"])  # nothing half-written, not even a temporary file
    recorder = Recorder()
    run(workshop.values, tmp_path, until="examples", progress=recorder)
    assert recorder.events[0] == ("logs", "resumes") and recorder.events[-1] == ("examples", "done")
