"""Recipes that train by DPO, or their recommender by GRPO: stages, keys, refusals, and what the stages leave."""

from pathlib import Path

import pytest
from conftest import Workshop
from tiny_run import COMMAND, Recorder, recipe_of, run

from recsys.errors import InputError
from recsys.storage import read_json
from verbalize.optimize.curves import Curves
from verbalize.pipeline import stage_keys
from verbalize.stages import stages_of

ONE = ("seeds=[0]", "dpo.min_gap=0.000001", "dpo.pairs_per_prompt=2")
GRPO = ("recommender_training.method=grpo", "recommender_training.answers=4")
REWRITE = (
    "policy.kind=rewrite",
    "warm_start=null",
    "recommender_training=null",
    "train.group_size=4",
    "policy.rewrite.max_new_tokens=6",
    "policy.rewrite.instruction=Summarise.",
    "evaluation.untrained=[]",
)


def test_dpo_and_grpo_change_the_keys_of_what_they_train_and_the_defaults_are_in_no_key(workshop: Workshop) -> None:
    stages = stages_of(recipe_of(workshop.values), COMMAND)
    configs = {stage.name: stage.config for stage in stages}
    assert "dpo" not in configs["train"]
    assert not {"method", "answers", "scale_advantages"} & set(configs["recommender"]["training"])
    before = stage_keys(stages)
    for override, again in (
        ("dpo.beta=0.2", {"train", "evaluate", "report"}),
        (GRPO[0], set(before) - {"logs", "examples"}),
    ):
        after = stage_keys(stages_of(recipe_of(workshop.values, override), COMMAND))
        assert {name for name in before if before[name] != after[name]} == again


def test_dpo_on_actions_scores_a_pool_even_without_a_warm_start(workshop: Workshop) -> None:
    cold = ("warm_start=null", "recommender_training=null")
    names = [stage.name for stage in stages_of(recipe_of(workshop.values, *cold, *ONE), COMMAND)]
    assert names == ["logs", "examples", "templates", "pool", "train", "evaluate", "report"]
    rewriting = recipe_of(workshop.values, *REWRITE, *ONE)
    assert "pool" not in [stage.name for stage in stages_of(rewriting, COMMAND)]


def test_settings_that_dpo_would_ignore_are_refused(workshop: Workshop) -> None:
    with pytest.raises(InputError, match=r"train\.beta = 0\.05 with dpo"):
        recipe_of(workshop.values, "train.beta=0.05", "dpo.beta=0.1")


def test_actions_are_trained_from_the_pool_with_a_recommender_trained_by_grpo(
    workshop: Workshop, tmp_path: Path
) -> None:
    recorder = Recorder()
    trained = run(workshop.values, tmp_path, *ONE, *GRPO, progress=recorder, until="train")
    folder = trained.stages["train"] / "seed-0"
    assert read_json(folder / "result.json")["steps"] == 2 and not (folder / "rollouts").exists()
    assert [record["step"] for record in Curves(folder / "curves.jsonl").of_kind("train")] == [1, 2]
    assert any("train loss" in detail for name, *_, detail in recorder.steps if name == "train")
    assert "GRPO" in read_json(trained.stages["recommender"] / "adapter" / "card.json")["note"]


def test_rewrites_are_trained_from_sampled_pairs(workshop: Workshop, tmp_path: Path) -> None:
    trained = run(workshop.values, tmp_path, *ONE, *REWRITE, until="train")
    folder = trained.stages["train"] / "seed-0"
    assert read_json(folder / "result.json")["steps"] == 2
    assert len((folder / "rollouts" / "chunk-00000.jsonl").read_text().splitlines()) % 4 == 0
