"""Exports of runs that held a forgotten user: deleted among the runs, named elsewhere, never more than was written."""

import shutil
from pathlib import Path

import pytest
from conftest import Finished

from recsys.storage import read_json, read_parquet
from verbalize import cli
from verbalize.forget import forget
from verbalize.forget.exports import Export
from verbalize.report.export import export_runs
from verbalize.report.exported import RECORD, exports_of, note


@pytest.fixture(scope="module")
def users(finished: Finished) -> list[str]:
    """Users of the evaluated arms."""
    return read_parquet(finished.result.stages["evaluate"] / "decisions.parquet")["user_id"].unique().sort().to_list()


@pytest.fixture
def unexported(store_copy: Path) -> Path:
    """Runs of one's own that nobody has exported; other tests export the shared ones."""
    for path in store_copy.glob(f"*/{RECORD}"):
        path.unlink()
    return store_copy


def test_exports_among_the_runs_go_and_others_are_named(
    unexported: Path, users: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, inside, outside = unexported / "tiny", unexported / "exported", tmp_path / "paper"
    written = export_runs([run], inside, [])
    (inside / "notes.md").write_text("written by hand")
    count = len(export_runs([run], outside, []))
    command = ["data", "forget", "--user", users[0], "--runs", str(unexported)]
    assert cli.main([*command, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert f"{count} exported files deleted" in shown and "must be deleted by you" in shown
    assert f"{outside}: {count} files" in shown and all(path.exists() for path in written)

    assert cli.main(command) == 1  # something remains
    assert f"{outside}: {count} files" in capsys.readouterr().out
    assert [path.name for path in inside.rglob("*")] == ["notes.md"]
    assert sum(path.is_file() for path in outside.rglob("*")) == count
    assert read_json(unexported / "forgotten.json")[-1]["exports"] == [str(outside)]

    shutil.rmtree(outside)
    assert cli.main([*command[:2], "--user", users[1], "--runs", str(unexported)]) == 0
    assert f"{outside}: no longer there" in capsys.readouterr().out
    assert forget(["nobody"], runs=[unexported]).exports == ()


def test_an_export_that_broke_off_is_known_and_left_to_a_person(
    unexported: Path, users: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = unexported / "tiny", unexported / "exported"

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("verbalize.report.export.latex_of", dies)  # after the page and the tables as CSV
    with pytest.raises(KeyboardInterrupt):
        export_runs([run], out, [])
    lying = sum(path.is_file() for path in out.rglob("*"))
    assert lying > 1
    assert forget(users[:1], runs=[unexported]).exports == (Export(str(out), lying),)
    assert sum(path.is_file() for path in out.rglob("*")) == lying


def test_a_page_of_several_runs_goes_with_either_and_the_other_run_keeps_its_own(tmp_path: Path) -> None:
    from verbalize.forget.exports import delete_exports

    runs, out = tmp_path / "runs", tmp_path / "runs" / "both"
    for name in ("a", "b"):
        (out / name / "tables").mkdir(parents=True)
        for file in ("runs.html", f"{name}/report.html", f"{name}/tables/arms.csv"):
            (out / file).write_text("a history")
        (runs / name).mkdir()
        note(runs / name, out, [out / "runs.html"])
        note(runs / name, out, [out / name / "report.html", out / name / "tables" / "arms.csv"])
    assert exports_of(runs / "a") == {out.resolve(): ["a/report.html", "a/tables/arms.csv", "runs.html"]}
    (one,) = delete_exports(runs, [runs / "a"], dry_run=False)
    assert "3 exported files" in one.how
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "b/report.html",
        "b/tables/arms.csv",
    ]
    assert not (out / "a").exists()
    (other,) = delete_exports(runs, [runs / "a", runs / "b"], dry_run=False)
    assert "2 exported files" in other.how and not out.exists()
