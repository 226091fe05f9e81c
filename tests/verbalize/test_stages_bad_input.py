"""Bad input through whole runs: each an error that names value, rule and remedy, or a treatment that is counted."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Workshop
from tiny_run import Recorder, hashes, run, write_log

from recsys.errors import CorruptFileError, InputError
from recsys.storage import read_json


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["examples.engaged={rating_at_least: 6}"], ["no target is left", "rating_at_least", "relax"]),
        (["examples.history_min=30", "examples.history_max=40"], ["no target is left", "history_min"]),
        (["examples.slate.size=90"], ["candidates of 80 items", "slate of 90", "slate.size"]),
        (["examples.slate.policy=retrieved"], ["retrieved"]),
        (["examples.split.train=0"], ["train", "0 examples", "share of users"]),
        (["examples.split.train_until='90%'", "examples.split.validate_until='10%'"], ["split times", "before"]),
        (["examples.split.train_until=soon"], ["split.train_until 'soon'", "60%"]),
        (["source.path=absent"], ["source.path 'absent'", "does not exist"]),
        (["source.inline.events.columns.rating.from=rank"], ["column 'rank'", "events.csv", "stars"]),
        (["source.inline.events.columns.event_time.unit=ms"], ["event_time", "1990", "unit: s"]),
        (["source.inline.events.columns.rating.scale=[0, 3]"], ["rating", "0 .. 3"]),
        (["recommender.model=no-such-model"], ["no-such-model", "folder"]),
    ],
    ids=lambda value: value[0][:60] if isinstance(value, list) else None,
)
def test_refusals_reach_the_user_whole(
    workshop: Workshop, tmp_path: Path, overrides: list[str], words: list[str]
) -> None:
    with pytest.raises(InputError) as refusal:
        run(workshop.values, tmp_path, *overrides, until="templates")
    assert refusal.value.value and refusal.value.rule and refusal.value.remedy
    for word in words:
        assert word in str(refusal.value), str(refusal.value)


def appended(*rows: str) -> Callable[[Path], None]:
    def append(log: Path) -> None:
        with (log / "events.csv").open("a", encoding="utf-8") as handle:
            handle.write("".join(f"{row}\n" for row in rows))

    return append


def without_titles(log: Path) -> None:
    lines = (log / "items.csv").read_text().splitlines()
    blank = [",".join([line.split(",")[0], "", *line.split(",")[2:]]) for line in lines[1:5]]
    (log / "items.csv").write_text("\n".join([lines[0], *blank, *lines[5:], ""]))


@pytest.mark.parametrize(
    ("spoil", "counted"),
    [
        (appended("quser0000,nothing,4,1610000000"), {"events_of_unknown_items_dropped": 1}),
        (appended("quser9999,qitem0001,5,1610000000"), {"users_kept": 61}),
        (appended(*["quser9999,qitem0001,5,1610000000"] * 3), {"events_exact_duplicates_dropped": 2}),
        (
            appended("quser9999,qitem0001,5,1610000000", "quser9999,qitem0002,4,1610000000"),
            {"events_tied_in_time": 2},
        ),
        (without_titles, {"items_without_title_dropped": 4}),
    ],
)
def test_treatments_are_counted_in_the_manifest(
    workshop: Workshop, tmp_path: Path, spoil: Callable[[Path], None], counted: dict[str, int]
) -> None:
    log = write_log(tmp_path / "log")
    spoil(log)
    result = run(workshop.values, tmp_path / "runs", f"source.path={log}", until="examples")
    facts = read_json(result.folder / "manifest.json")["stages"]["logs"]["facts"]
    assert counted.items() <= facts.items(), facts


def test_a_truncated_artefact_is_named_and_its_remedy_works(workshop: Workshop, store_copy: Path) -> None:
    folders = run(workshop.values, store_copy).stages
    before = hashes(folders["examples"], "examples.parquet")
    path = folders["examples"] / "examples.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptFileError, match=r"examples\.parquet.*delete") as refusal:
        run(workshop.values, store_copy)
    assert str(folders["examples"]) in refusal.value.remedy
    shutil.rmtree(folders["examples"])
    recorder = Recorder()
    run(workshop.values, store_copy, progress=recorder)
    assert recorder.began() == ["examples"] and hashes(folders["examples"], "examples.parquet") == before


def test_an_artefact_of_the_right_size_and_wrong_content_is_named(workshop: Workshop, store_copy: Path) -> None:
    folders = run(workshop.values, store_copy).stages
    path = folders["examples"] / "examples.parquet"
    path.write_bytes(b"\x00" * path.stat().st_size)
    with pytest.raises(CorruptFileError, match=r"examples\.parquet.*Remedy: delete"):
        run(workshop.values, store_copy, "sample.report=5")


def test_a_corrupt_record_of_a_finished_stage_is_named(workshop: Workshop, store_copy: Path) -> None:
    folders = run(workshop.values, store_copy).stages
    (folders["pool"] / "done.json").write_text('{"files": ')
    with pytest.raises(CorruptFileError, match=r"pool.*done\.json.*delete"):
        run(workshop.values, store_copy)
    (folders["pool"] / "done.json").unlink()
    recorder = Recorder()
    run(workshop.values, store_copy, progress=recorder)
    assert recorder.began() == ["pool"]


def test_a_corrupt_score_cache_is_named_and_may_be_deleted(workshop: Workshop, store_copy: Path) -> None:
    folders = run(workshop.values, store_copy).stages
    (folders["templates"] / "done.json").unlink()
    for path in (store_copy / "artefacts").rglob("scores.sqlite*"):
        path.unlink()
    places = [parent / "scores.sqlite" for parent in (store_copy / "artefacts", store_copy / "artefacts" / "logs")]
    for path in places:
        path.write_bytes(b"no database at all, but long enough to be looked at" * 40)
    shutil.rmtree(folders["templates"] / "parts")
    with pytest.raises(CorruptFileError, match=r"scores\.sqlite.*delete the file"):
        run(workshop.values, store_copy)
    for path in places:
        path.unlink()
    before = hashes(folders["templates"], "decisions.parquet")
    run(workshop.values, store_copy)
    assert hashes(folders["templates"], "decisions.parquet") == before


def test_an_interrupted_stage_with_a_cut_part_is_named(workshop: Workshop, store_copy: Path) -> None:
    folders = run(workshop.values, store_copy).stages
    (folders["templates"] / "done.json").unlink()
    part = next((folders["templates"] / "parts").rglob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(CorruptFileError, match=rf"{part.name}.*delete the file"):
        run(workshop.values, store_copy)
    part.unlink()
    recorder = Recorder()
    run(workshop.values, store_copy, progress=recorder)
    assert recorder.began() == ["templates"]
