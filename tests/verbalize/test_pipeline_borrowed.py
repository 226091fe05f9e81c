"""A stage that another run finished: used where it lies, under its own key, and never made here."""

from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.storage import read_json, write_text
from verbalize.pipeline import Context, Stage, manifest, run_stages, stage_keys


def write(context: Context) -> dict[str, int]:
    write_text("7", context.folder / "value.txt")
    return {"value": 7}


def double(context: Context) -> dict[str, int]:
    return {"value": 2 * int((context.inputs["write"] / "value.txt").read_text())}


def chain(done_in: Path | None = None, config: int = 0) -> list[Stage]:
    return [Stage("write", write, config, done_in=done_in), Stage("double", double, None, ("write",))]


def test_a_finished_stage_of_another_run_is_used_under_its_own_key(tmp_path: Path) -> None:
    theirs = run_stages(chain(), tmp_path / "theirs")
    stages = chain(theirs["write"], config=1)  # whatever this recipe says of it
    ours = run_stages(stages, tmp_path / "ours")
    assert ours["write"] == theirs["write"] and not (tmp_path / "ours" / "write").exists()
    assert stage_keys(stages) == stage_keys(chain()) != stage_keys(chain(config=1))
    assert read_json(ours["double"] / "done.json")["facts"] == {"value": 14}
    described = manifest(stages, tmp_path / "ours", {}, {})["stages"]
    assert described["write"]["key"] == theirs["write"].name and described["write"]["facts"] == {"value": 7}


def test_an_unfinished_stage_of_another_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "theirs" / "write" / "0123"
    with pytest.raises(InputError, match="another run's and not finished"):
        run_stages(chain(elsewhere), tmp_path / "ours")
    assert not elsewhere.exists()
