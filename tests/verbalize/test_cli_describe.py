"""`verbalize data describe` on a log, on a recipe, as JSON, and with contradicting options."""

import json
from pathlib import Path

import pytest

from verbalize.cli import main

MAPPING = """
events:
  file: log.csv
  columns: {user_id: who, item_id: what, event_time: {from: at, unit: s}, title: name}
  event_type: play
engaged: {event_types: [play]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text("who,what,at,name\na,x,1577836800,X\na,x,1577836800,X\nb,y,1577836801,Y\n")
    (tmp_path / "map.yaml").write_text(MAPPING)
    return tmp_path


def test_a_log_through_its_mapping(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mapping = ["--mapping", str(folder / "map.yaml")]
    assert main(["data", "describe", str(folder), *mapping, "--json"]) == 0
    profile = json.loads(capsys.readouterr().out)
    assert profile["counts"] == {"events": 2, "users": 2, "items": 2, "items_touched": 2, "series": 0}
    assert profile["treated"] == {"events_exact_duplicates_dropped": 1}
    assert main(["data", "describe", str(folder), *mapping]) == 0
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    assert ["events", "exact", "duplicates", "dropped", "1"] in lines and ["treated"] in lines
    assert ["impressions"] not in lines, "an empty section is left out"


def test_a_recipe_describes_its_own_source(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = folder / "recipe.yaml"
    source = f"{{kind: table, path: {folder}, mapping: {folder / 'map.yaml'}}}"
    recipe.write_text(f"name: tiny\nsource: {source}\nexamples: {{}}\n")
    assert main(["data", "describe", str(recipe), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["event_types"] == {"play": 2}
    assert main(["data", "describe", str(recipe), "--kind", "mind"]) != 0
    assert "a recipe describes its source itself" in capsys.readouterr().err


def test_a_log_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "describe", "nowhere", "--kind", "netflix"]) != 0
    assert "does not exist" in capsys.readouterr().err
