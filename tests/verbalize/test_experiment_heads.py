"""The commands at the head of every experiment's file build: a reader who copies one is not refused by our checks."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from verbalize.agents.study import load_study
from verbalize.recipe import load_recipe
from verbalize.sweeps.settings import load_sweep
from verbalize.tables.planning import plan_table
from verbalize.tables.settings import load_table

ROOT = Path(__file__).parents[2]
VERBS = "run|train|evaluate|table|sweep|agents"
COMMAND = re.compile(rf"^#\s+(?:\w+=\S+ )?(verbalize ({VERBS}) experiments/\S+.*?)(?:  +.*| # .*| \\)?$")
LOADERS: dict[str, Callable[[Path, list[str]], Any]] = {
    "run": load_recipe,
    "train": load_recipe,
    "evaluate": load_recipe,
    "table": lambda path, overrides: plan_table(load_table(path, overrides)),
    "sweep": load_sweep,
    "agents": load_study,
}


def commands() -> list[tuple[str, str]]:
    """(verb, command) of the comment lines before the first key of each file. Files that apply another run need it
    finished; `test_stages_experience` builds them.
    """
    found = []
    for path in sorted((ROOT / "experiments").rglob("*.yaml")):
        head = path.read_text(encoding="utf-8").split("\nname:")[0]
        found += [(match[2], match[1]) for line in head.splitlines() if (match := COMMAND.match(line))]
    return [(verb, command) for verb, command in found if "generalise/" not in command]


def test_most_files_have_a_command() -> None:
    assert len({command.split()[2] for _, command in commands()}) > 15


@pytest.mark.parametrize(("verb", "command"), commands())
def test_the_command_builds(verb: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    _, _, path, *rest = shlex.split(command)
    LOADERS[verb](Path(path), [word for word in rest if "=" in word and not word.startswith("-")])
