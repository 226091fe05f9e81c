"""The logs stage: impressions survive it, a bad source leaves nothing behind, rolling up is another configuration."""

from pathlib import Path
from typing import Any

import pytest

from recsys.errors import InputError
from verbalize.config import build
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.stages import data
from verbalize.stages.log_files import load_log

SHOWN = "request,user,item,at,label\nr1,a,x,1577836800,0\nr1,a,y,1577836800,1\nr2,b,x,1577836900,1\n"
MAPPING = {
    "impressions": {
        "file": "shown.csv",
        "event_type": "click",
        "columns": {
            "impression_id": "request",
            "user_id": "user",
            "item_id": "item",
            "shown_at": {"from": "at", "unit": "s"},
            "clicked": "label",
        },
    },
    "items": {"file": "items.csv", "columns": {"item_id": "item", "title": "name", "parent_id": "show"}},
    "engaged": {"event_types": ["click"]},
}


def recipe(folder: Path, **source: Any) -> Recipe:
    (folder / "items.csv").write_text("item,name,show\nx,X,s\ny,Y,\n")
    values = {"kind": "table", "path": str(folder), "inline": MAPPING, **source}
    return build(Recipe, {"name": "tiny", "source": values, "examples": {}})


def test_impressions_are_written_and_loaded(tmp_path: Path) -> None:
    (tmp_path / "shown.csv").write_text(SHOWN)
    out = tmp_path / "stage"
    counts = data.run_logs(recipe(tmp_path), Context(out, {}))
    log = load_log(out)
    assert log.impressions is not None and len(log.impressions) == counts["impression_rows_kept"] == 3
    assert log.engaged is not None and log.engaged.event_types == ("click",)
    assert len(log.events) == counts["events_kept"] == 2


@pytest.mark.parametrize(
    "bad",
    [
        SHOWN + "r1,b,z,1577836800,0\n",  # one impression, two users: found after the events were made
        SHOWN + "r3,a,x,99,1\n",
        SHOWN.replace("r2,b,x,1577836900,1", "r2,b,x,1577836900,maybe"),
        SHOWN + '"',
        "request,user\n",
    ],
)
def test_a_bad_source_leaves_nothing_behind(tmp_path: Path, bad: str) -> None:
    (tmp_path / "shown.csv").write_text(bad)
    out = tmp_path / "stage"
    with pytest.raises(InputError):
        data.run_logs(recipe(tmp_path), Context(out, {}))
    assert not out.exists() or not list(out.iterdir())


def test_rolling_up_is_another_configuration(tmp_path: Path) -> None:
    (tmp_path / "shown.csv").write_text(SHOWN)
    plain, rolled = recipe(tmp_path), recipe(tmp_path, roll_up=True)
    assert data.logs_config(plain) != data.logs_config(rolled)
    data.run_logs(rolled, Context(tmp_path / "stage", {}))
    log = load_log(tmp_path / "stage")
    assert log.impressions is not None and set(log.impressions["item_id"]) == {"s", "y"} == set(log.items["item_id"])
