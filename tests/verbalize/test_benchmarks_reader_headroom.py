"""Readers of chosen events: they read what a candidate keeps, everything is measured, and a trial enters no claim."""

import json
import sys
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from benchmark_scripts import load_script
from conftest import Workshop
from tiny_run import recipe_of, write_recipe

from recsys.evaluation import decide
from verbalize.pipeline import run_stages
from verbalize.report.artefacts import read_artefact
from verbalize.stages import baselines, samples, stages_of

SPLIT = ["evaluation.split=validation", "evaluation.baselines=[logit, ease]", "examples.history_max=6"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_script("reader_headroom", monkeypatch)


def test_a_reader_reads_the_kept_events_alone(script: ModuleType, workshop: Workshop, tmp_path: Path) -> None:
    recipe = recipe_of(workshop.values, *SPLIT)
    inputs = run_stages(stages_of(recipe, ""), tmp_path, until="examples")
    table = script.decisions(recipe, inputs)
    examples = samples.load_examples(inputs["examples"], "validation")
    last_three = examples.with_columns(pl.col("history").list.tail(3))
    ease = next(reader for reader in baselines.fitted(recipe, inputs) if reader.name == "ease")
    for name, shown in (("keep_all", examples), ("recent_3", last_three)):
        expected = decide(ease, shown, [""] * len(shown), verbalizer=name)
        found = table.filter(verbalizer=name, recommender="ease")
        assert found["scores"].to_list() == expected["scores"].to_list()
    ranks = {name: table.filter(verbalizer=name)["rank"].to_list() for name in ("keep_all", "recent_3", "liked_only")}
    assert ranks["keep_all"] != ranks["recent_3"] != ranks["liked_only"] != ranks["keep_all"]
    assert "keep_all_metadata" not in table["verbalizer"].unique().to_list()  # keeps the events that keep_all keeps


def test_every_reader_is_measured_and_a_trial_enters_no_claim(
    script: ModuleType, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "RECIPE", write_recipe(workshop.values, tmp_path / "tiny.yaml"))
    monkeypatch.setattr(script, "SPLIT", SPLIT)
    monkeypatch.setattr(script, "HISTORIES", (3, 6))
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(sys, "argv", ["reader_headroom.py", "--out", str(out), "--runs", str(tmp_path / "runs")])
    script.main()
    summary = json.loads((out / "reader_headroom.json").read_text())
    assert [(row["history"], row["reader"]) for row in summary["readers"]] == [
        (3, "logit"),
        (3, "ease"),
        (6, "logit"),
        (6, "ease"),
    ]
    evidence = read_artefact(out / "artefacts" / "reader_headroom.csv.gz")
    row = summary["readers"][-1]
    hits = evidence.filter(arm="keep_all/ease").select((pl.col("rank") == 1).mean()).item()
    assert row["recall@1"]["keep_all"] == pytest.approx(hits, abs=1e-4)
    assert row["headroom"]["low"] <= row["headroom"]["value"] <= row["headroom"]["high"]
    assert not (out / "claims").exists()
