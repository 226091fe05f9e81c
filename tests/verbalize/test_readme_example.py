"""The README's own example: its mapping and recipe, as printed, give the numbers of examples that it states."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys.logs.examples import build_examples
from recsys.logs.sources import SourceConfig, read_log
from verbalize.config import build
from verbalize.recipe import Recipe

ROOT = Path(__file__).parents[2]
MOVIETWEETINGS = ROOT.parent / "shared/data/movietweetings-100k"
README = (ROOT / "README.md").read_text(encoding="utf-8")
STATED = re.compile(r"gives ([\d,]+) training, ([\d,]+) validation and ([\d,]+) test examples from ([\d,]+) events")


def block(key: str) -> dict[str, Any]:
    """The one YAML block of the README with this key at the top."""
    parsed = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)]
    (found,) = [values for values in parsed if key in values]
    return found


def test_the_printed_mapping_is_the_committed_one() -> None:
    source = build(Recipe, block("source")).source
    assert block("events") == yaml.safe_load((ROOT / source.mapping).read_text(encoding="utf-8"))


def test_the_printed_recipe_gives_the_stated_numbers_of_examples() -> None:
    if not MOVIETWEETINGS.is_dir():
        pytest.skip("MovieTweetings is not beside this checkout (../shared/data/movietweetings-100k)")
    recipe = build(Recipe, block("source"))
    assert recipe.source == SourceConfig("table", recipe.source.path, "experiments/mappings/movietweetings.yaml")
    source = dataclasses.replace(recipe.source, path=str(MOVIETWEETINGS), mapping="", inline=block("events"))
    log = read_log(source)
    _, counts = build_examples(log, recipe.examples)
    stated = STATED.search(" ".join(README.split()))
    assert stated is not None, "the README no longer states its counts in these words"
    found = [counts[f"examples_{split}"] for split in ("train", "validation", "test")]
    assert [*found, log.counts["events_kept"]] == [int(number.replace(",", "")) for number in stated.groups()]
