"""Both studies by their command, in TextWorld's own games, worker processes and all; a tiny model acts and embeds."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from agents_worlds import need_textworld
from tiny_run import model_with_chat

from recsys.storage import read_json, write_text
from verbalize import cli

SETTINGS: dict[str, dict[str, Any]] = {
    "exprag": {
        "seeds": [0],
        "families": {
            "seen": [{"family": "route", "difficulty": 1, "max_steps": 3}],
            "unseen": [{"family": "coin", "difficulty": 1, "max_steps": 3}],
        },
        "games": {"train": 1, "bank": 1, "selection": 1, "development": 1, "test": 1},
        "sft": {"epochs": 1, "batch_size": 1},
        "retrieval": {"k": 1, "budget": 150},
        "ablations": {"dynamic": True},
        "play": {"environments": 2, "processes": 2},
    },
    # The games of the other study, so that each is made once.
    "slea": {
        "seeds": [0],
        "environments": 2,
        "arms": {"grpo": {}, "slea": {"credit": "cluster", "retrieval": True}},
        "warm_start": {
            "games": [{"family": "route", "difficulty": 1, "count": 2, "first": 0, "max_steps": 3}],
            "lessons": True,
        },
        "train": [{"family": "coin", "difficulty": 1, "count": 1, "first": 100_000, "max_steps": 3}],
        "development": [{"family": "route", "difficulty": 1, "count": 1, "first": 200_000, "max_steps": 3}],
        "test": [{"family": "coin", "difficulty": 1, "count": 1, "first": 400_000, "max_steps": 3}],
        "training": {"environment_steps": 8, "games_per_batch": 1, "group_size": 2, "prompt_budget": 2000},
    },
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_textworld()
    return tmp_path_factory.mktemp("agents") / "runs"


def carried_out(kind: str, runs: Path, model: Path) -> Path:
    """The folder of a study that the command has run."""
    settings = {"kind": kind, "name": kind, "model": str(model)} | SETTINGS[kind]
    settings |= (
        {"embedding": str(model)}
        if kind == "exprag"
        else {"experience": {"embedding": str(model), "clusters": {"delta": 0.0, "warmup": 1, "minimum": 1}}}
    )
    write_text(yaml.safe_dump(settings), runs / f"{kind}.yaml")
    assert cli.main(["agents", str(runs / f"{kind}.yaml"), "--runs", str(runs)]) == 0
    return runs / "agents" / kind


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_with_chat(tiny_model_dir, tmp_path_factory.mktemp("model") / "tiny")


def test_exprag_in_textworld(runs: Path, model: Path) -> None:
    folder = carried_out("exprag", runs, model)
    facts = read_json(folder / "result.json")
    assert facts["crashed"] == 0 and facts["games"] == {"seen": 1, "unseen": 1}
    assert facts["banks"]["unseen"] == {"games": 1, "solutions": 1, "failures": 0}
    assert len(facts["rates"]) == len(list((folder / "cells").iterdir())) == 19
    assert set(facts["adapters"]) == {"lora seed 0", "exprag-lora seed 0"}
    assert facts["development"]["ran"] is False
    games = [read_json(path)["games"][0] for path in (folder / "cells").iterdir()]
    assert {game["game"] for game in games} == {"route-1-400000", "coin-1-400000"}
    assert all(1 <= game["steps"] <= 3 and game["invalid"] == 0 for game in games)


def test_slea_in_textworld(runs: Path, model: Path) -> None:
    folder = carried_out("slea", runs, model)
    facts = read_json(folder / "result.json")
    assert set(facts["success"]) == {"random", "start", "grpo", "slea"}
    for run in facts["runs"].values():
        assert 8 <= run["environment_steps"] <= 8 + 2 * 3 and run["batches"] >= 2
        assert run["development"][-1][0] == run["environment_steps"]
    assert facts["runs"]["slea/0"]["clusters"] > 0
    (start,) = (folder / "starts").iterdir()
    assert (
        read_json(start / "adapter" / "card.json")["data"]
        == "TextWorld games: route-1: 2 solutions, 2 turns with lessons"
    )
    cells = {path.name.split("-seed")[0]: read_json(path)["games"][0] for path in (folder / "cells").iterdir()}
    assert set(cells) == set(facts["success"])
    assert all(game["game"] == "coin-1-400000" and not game["crashed"] for game in cells.values())
