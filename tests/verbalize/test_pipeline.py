"""Stage machinery: what runs again, what is shared, what resumes, what is refused."""

import threading
from pathlib import Path

import pytest

from recsys.errors import CorruptFileError, InputError
from recsys.storage import read_json, write_text
from verbalize.pipeline import Context, Silent, Stage, run_stages, stage_keys


def chain(log: list[str], first: int = 1, second: int = 1, fail: bool = False) -> list[Stage]:
    def write(context: Context) -> dict[str, int]:
        log.append("write")
        write_text(str(first), context.folder / "value.txt")
        return {"value": first}

    def double(context: Context) -> dict[str, int]:
        log.append("double")
        write_text("part", context.folder / "parts" / "0.txt")
        if fail:
            raise KeyboardInterrupt
        value = int((context.inputs["write"] / "value.txt").read_text()) * 2 * second
        write_text(str(value), context.folder / "value.txt")
        return {"value": value}

    return [Stage("write", write, {"first": first}), Stage("double", double, {"second": second}, needs=("write",))]


def test_a_second_run_does_nothing_and_a_changed_option_runs_only_what_depends_on_it(tmp_path: Path) -> None:
    log: list[str] = []
    run_stages(chain(log), tmp_path)
    run_stages(chain(log), tmp_path)
    assert log == ["write", "double"]
    folders = run_stages(chain(log, second=5), tmp_path)
    assert log == ["write", "double", "double"]
    assert (folders["double"] / "value.txt").read_text() == "10"
    run_stages(chain(log, first=2), tmp_path)
    assert log[3:] == ["write", "double"]


def test_an_interrupted_stage_is_entered_again_and_finds_its_parts(tmp_path: Path) -> None:
    log: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run_stages(chain(log, fail=True), tmp_path)
    folders = run_stages(chain(log), tmp_path)
    assert log == ["write", "double", "double"]
    assert (folders["double"] / "parts" / "0.txt").exists()
    assert [read_json(folders[name] / "done.json")["resumed"] for name in ("write", "double")] == [False, True]
    assert (folders["double"] / "value.txt").read_text() == "2"


def test_until_stops_after_the_named_stage(tmp_path: Path) -> None:
    log: list[str] = []
    assert list(run_stages(chain(log), tmp_path, until="write")) == ["write"]
    with pytest.raises(InputError, match="evaluate"):
        run_stages(chain(log), tmp_path, until="evaluate")


def test_a_truncated_artefact_is_named_with_its_remedy(tmp_path: Path) -> None:
    folders = run_stages(chain([]), tmp_path)
    (folders["write"] / "value.txt").write_text("")
    with pytest.raises(CorruptFileError, match=r"value\.txt.*delete"):
        run_stages(chain([]), tmp_path)


def test_order_is_checked_and_keys_depend_on_names_not_positions() -> None:
    stages = chain([])
    with pytest.raises(InputError, match="needs write"):
        stage_keys(stages[::-1])
    extra = Stage("other", lambda context: {}, {})
    assert stage_keys([extra, *stages])["double"] == stage_keys(stages)["double"]


def test_two_runs_that_share_a_stage_do_its_work_once(tmp_path: Path) -> None:
    log: list[str] = []
    started, go_on = threading.Event(), threading.Event()

    def slow(context: Context) -> dict[str, int]:
        log.append("slow")
        started.set()
        assert go_on.wait(20)
        return {}

    class Told(Silent):
        def stage(self, name: str, state: str, detail: str = "") -> None:
            if state == "waits":
                waiting.set()

    waiting = threading.Event()
    stages = [Stage("slow", slow, {})]
    first, second = (threading.Thread(target=run_stages, args=(stages, tmp_path, Told())) for _ in range(2))
    first.start()
    assert started.wait(20)
    second.start()
    assert waiting.wait(20)
    go_on.set()
    first.join(20)
    second.join(20)
    assert log == ["slow"]
