"""The recipes for a GPU are whole: they build as they stand, and their path runs here with a tiny model."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Workshop
from tiny_run import MAPPING, recipe_of, run

from recsys.errors import InputError
from recsys.storage import read_json
from verbalize.recipe import load_recipe

GPU = Path(__file__).parents[2] / "experiments" / "gpu"


def small(recipe: str, workshop: Workshop) -> tuple[dict[str, Any], list[str]]:
    """The recipe's own values, and what a CPU, a tiny model and a made-up log need: everything else stays."""
    values = yaml.safe_load((GPU / recipe).read_text(encoding="utf-8"))
    values["source"] = {"kind": "table", "path": str(workshop.log), "inline": MAPPING}
    model = str(workshop.model)
    return values, [
        f"recommender.model={model}",
        "recommender.mode=listwise",  # asks locally what is asked of the server
        "recommender.remote=null",
        f"policy.model={model}",
        "policy.device=null",
        "policy.rewrite.max_new_tokens=6",
        "examples.history_min=3",
        "examples.targets_per_user=3",
        "examples.slate.size=4",
        "examples.split={train: 0.3, validation: 0.3, test: 0.4, train_until: 40%, validate_until: 65%}",
        "sample={train: 6, selection: 3, report: 3, test: 6}",
        "templates=[titles, concatenation]",
        "train.steps=1",
        "train.warmup_steps=0",
        "train.prompts_per_step=2",
        "train.group_size=4",
        "train.eval_every=1",
        "train.save_every=1",
        "seeds=[0]",
        "evaluation={split: validation}",
    ]


def test_the_recipes_build_as_they_stand_and_agree_on_the_policy() -> None:
    verbalizer, recommender = (load_recipe(GPU / f"{name}.yaml") for name in ("movielens_8b", "recommender_8b"))
    assert verbalizer.policy == recommender.policy and verbalizer.policy.dtype == "bfloat16"
    assert verbalizer.examples == recommender.examples and verbalizer.candidates == recommender.candidates
    assert verbalizer.recommender.remote is not None and verbalizer.recommender.remote.loopback
    assert verbalizer.recommender.model == recommender.recommender.model == verbalizer.recommender.remote.model


def test_both_stages_run_with_a_tiny_model_in_bfloat16(workshop: Workshop, tmp_path: Path) -> None:
    values, overrides = small("movielens_8b.yaml", workshop)
    trained = run(values, tmp_path, *overrides, until="train")
    place = trained.stages["train"] / "seed-0"
    assert read_json(place / "result.json")["steps"] == 1
    config = read_json(trained.stages["train"] / "done.json")["config"]
    assert config["policy"]["dtype"] == "bfloat16"

    values, overrides = small("recommender_8b.yaml", workshop)
    overrides = [one for one in overrides if not one.startswith(("recommender.mode=", "recommender.remote="))]
    few = [
        "recommender.device=null",
        "recommender_training={examples: 4, accumulation: 2, save_every: 2, templates: []}",
    ]
    few += ["recommender_training.random_actions=0.0", f"recommender_training.learned={place}"]
    taught = run(values, tmp_path, *overrides, *few, until="recommender")
    card = read_json(taught.stages["recommender"] / "adapter" / "card.json")
    assert card["base_name"] == "tiny-lm"
    assert (
        taught.stages["recommender"] / "adapter" / "adapter_config.json"
    ).exists()  # PEFT's format, which vLLM loads
    kept = read_json(taught.stages["recommender"] / "parts" / "learned-00000.json")
    assert len(kept) == 4


def test_texts_to_learn_from_belong_to_the_stages_key_and_must_be_there(workshop: Workshop, tmp_path: Path) -> None:
    from verbalize.stages.learned_texts import learned_texts
    from verbalize.stages.recommender_training import training_identity

    def identity(folder: str, *more: str) -> Any:
        return training_identity(recipe_of(workshop.values, f"recommender_training.learned={folder}", *more))

    plain = training_identity(recipe_of(workshop.values))
    assert "learned" not in plain
    assert identity("/a/store/train/key/seed-0") == identity("b/train/key/seed-0")  # wherever the store lies
    assert identity("b/train/key/seed-0") != identity("b/train/other/seed-0")
    assert identity("b/train/key/seed-0") != identity("b/train/key/seed-0", "policy.actions.show_age_in_prompt=false")
    with pytest.raises(InputError, match="holds no finished training"):
        learned_texts(recipe_of(workshop.values), str(tmp_path / "seed-0"), None, tmp_path)  # type: ignore[arg-type]
