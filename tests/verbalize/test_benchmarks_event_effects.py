"""What dropping one event does to a reward: as the reward itself says, summed up, and a trial enters no claim."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from benchmark_scripts import load_script
from conftest import Workshop
from tiny_run import recipe_of, write_recipe

from verbalize.pipeline import Context, run_stages
from verbalize.report.artefacts import read_artefact
from verbalize.stages import samples, stages_of
from verbalize.stages.pool import reward_scorer
from verbalize.stages.recommender import open_recommender
from verbalize.verbalizers.actions import execute
from verbalize.verbalizers.base import verbalizer_inputs

PLAIN = ["recommender_training=null", "warm_start=null", "evaluation.untrained=[]", "reward.targets=2"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_script("event_effects", monkeypatch)


def test_every_event_is_dropped_once_from_a_text_that_keeps_the_others(
    script: ModuleType, workshop: Workshop, tmp_path: Path
) -> None:
    recipe = recipe_of(workshop.values, *PLAIN)
    inputs = run_stages(stages_of(recipe, ""), tmp_path, until="examples")
    table = script.effects(recipe, inputs, 3)
    examples = samples.training_sample(recipe, inputs["examples"]).head(3)
    assert len(table) == examples["history"].list.len().sum()
    score = reward_scorer(recipe, Context(tmp_path, inputs), open_recommender(recipe, inputs), examples)
    key, history = examples.select("example_id", "history").row(1)
    shown = verbalizer_inputs(examples[[1]])
    keep, drop = [3] * len(history), [3, 0, *[3] * (len(history) - 2)]
    texts = [*execute(shown, [keep], recipe.policy.actions), *execute(shown, [drop], recipe.policy.actions)]
    kept, dropped = (scored.reward for scored in score([key, key], texts))
    mine = table.filter(pl.col("example_id") == key)
    assert mine["effect"][1] == pytest.approx(dropped - kept, abs=1e-6)
    assert mine["event_type"].to_list() == [event["event_type"] for event in history]


def test_what_it_takes_to_see_an_effect_follows_from_mean_and_spread(script: ModuleType) -> None:
    table = pl.DataFrame({"event_type": ["preview"] * 4, "completion": [0.02] * 4, "effect": [0.3, -0.1, 0.3, -0.1]})
    found = script.summary(table, pl.col("event_type") == "preview")
    spread = np.std([0.3, -0.1, 0.3, -0.1], ddof=1)
    assert found["mean"] == 0.1 and found["spread"] == pytest.approx(spread, abs=1e-5)
    assert found["events_needed"] == int(np.ceil((3 * spread / 0.1) ** 2))
    nothing = table.with_columns(effect=pl.Series([0.1, -0.1, 0.1, -0.1]))
    assert script.summary(nothing, pl.lit(True))["events_needed"] is None


def test_a_trial_does_not_take_the_place_of_what_is_recorded(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, wrong in ((["--examples", "4"], "give --out DIR"), (["movies"], "choose from simulator, movielens")):
        monkeypatch.setattr(sys, "argv", ["event_effects.py", *options])
        with pytest.raises(SystemExit):
            script.main()
        assert wrong in capsys.readouterr().err


def test_a_trial_measures_every_kind_and_enters_no_claim(
    script: ModuleType, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = {"any": pl.col("event_type").is_not_null()}
    tiny = script.Log(write_recipe(workshop.values, tmp_path / "tiny.yaml"), (), every, "Tiny")
    monkeypatch.setattr(script, "LOGS", {"tiny": tiny})
    out = tmp_path / "out"
    out.mkdir()
    command = ["event_effects.py", "tiny", "--examples", "4", "--out", str(out), "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", command)
    script.main()
    figures = json.loads((out / "event_effects_tiny.json").read_text())
    assert [(row["targets"], row["kind"]) for row in figures["effects"]] == [(1, "any"), (4, "any")]
    evidence = read_artefact(out / "artefacts" / "event_effects_tiny.csv.gz")
    assert set(evidence["arm"]) == {"tiny.any.1", "tiny.any.4", "nothing.tiny.any.1", "nothing.tiny.any.4"}
    assert evidence.filter(pl.col("arm").str.starts_with("nothing"))["value"].to_list() == [0.0] * 8
    assert not (out / "claims").exists()
