"""Samples of examples: whole users, nested sizes, nobody on both sides; `retrieved` slates asked for by a recipe."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tiny_run import run

from recsys.errors import InputError
from recsys.storage import read_parquet, write_parquet
from verbalize.config import build, override
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.stages import data, samples

EXAMPLES = pl.DataFrame(
    [
        {"example_id": f"{split}{user}-{n}", "user_id": f"{split}{user}", "split": split}
        for split in ("train", "validation")
        for user in range(12)
        for n in range(5)
    ]
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_parquet(EXAMPLES, tmp_path / "examples.parquet")
    return tmp_path


def recipe(values: dict[str, Any], *changes: str) -> Recipe:
    return build(Recipe, override(values, changes))


def test_training_samples_take_users_in_turn_and_only_grow(workshop: Any, folder: Path) -> None:
    def sample(count: int) -> list[str]:
        chosen = recipe(
            workshop.values, "recommender_training=null", f"sample.train={count}", "sample.train_per_user=3"
        )
        return samples.training_sample(chosen, folder)["example_id"].to_list()

    large, small = sample(30), sample(10)
    assert large[:10] == small
    users = [name.partition("-")[0] for name in large]
    assert max(map(users.count, users)) == 3
    assert len(set(users)) == 10
    assert len(sample(100)) == 36


def test_recommender_and_verbalizer_learn_from_different_users(workshop: Any, folder: Path) -> None:
    chosen = recipe(workshop.values, "sample.train=1000", "sample.train_per_user=5")
    teaching = set(samples.recommender_sample(chosen, folder)["user_id"])
    rewarding = set(samples.training_sample(chosen, folder)["user_id"])
    assert teaching and rewarding
    assert not teaching & rewarding
    assert teaching | rewarding == {f"train{n}" for n in range(12)}


def test_a_recommender_may_learn_from_more_targets_of_its_users_and_of_nobody_else(
    workshop: Any, tmp_path: Path
) -> None:
    inputs = run(workshop.values, tmp_path, until="examples").stages

    def learned(*overrides: str) -> pl.DataFrame:
        return samples.recommender_examples(recipe(workshop.values, *overrides), inputs)

    usual, every = learned(), learned("recommender_training.targets_per_user=0")
    assert usual.equals(samples.recommender_sample(recipe(workshop.values), inputs["examples"]))
    assert len(every) > len(usual) and set(usual["example_id"]) < set(every["example_id"])
    assert set(every["user_id"]) == set(usual["user_id"]) and every["split"].unique().to_list() == ["train"]
    both = every.join(usual.select("example_id", "history"), on="example_id", suffix="_usual")
    assert both["history"].equals(both["history_usual"], check_names=False)
    two = learned("recommender_training.targets_per_user=2")
    assert two.group_by("user_id").len()["len"].max() == 2
    with pytest.raises(InputError, match=r"targets_per_user = -1"):
        learned("recommender_training.targets_per_user=-1")


def test_a_text_may_be_paid_for_the_users_next_targets_too(workshop: Any, tmp_path: Path) -> None:
    folder = run(workshop.values, tmp_path, until="examples").stages["examples"]
    examples = samples.training_sample(recipe(workshop.values, "recommender_training=null"), folder)
    own = samples.rewarded_slates(folder, examples, 1)
    assert own.equals(samples.load_slates(folder, examples))
    many = samples.rewarded_slates(folder, examples, 3)
    assert many.schema == own.schema
    redraws = own.filter(pl.col("example_id") == own["example_id"][0]).height
    counts = many.group_by("example_id").agg(pl.len(), pl.col("slate_index"))
    assert counts["len"].max() == 3 * redraws and (counts["len"] % redraws == 0).all()
    assert all(sorted(places) == list(range(len(places))) for places in counts["slate_index"])
    everything = read_parquet(folder / "examples.parquet")
    for example in examples.iter_rows(named=True):
        mine = many.filter(pl.col("example_id") == example["example_id"]).sort("slate_index")
        first = own.filter(pl.col("example_id") == example["example_id"]).sort("slate_index")
        assert mine.head(redraws).equals(first), "its own target comes first"
        later = everything.filter(
            pl.col("user_id") == example["user_id"],
            pl.col("split") == example["split"],
            pl.col("cutoff_time") > example["cutoff_time"],
        ).sort("cutoff_time", "example_id")
        found = [slate[place] for slate, place in mine.select("slate", "target_index").rows()]
        wanted = [example["target_item_id"], *later["target_item_id"].to_list()[:2]]
        assert found == [target for target in wanted for _ in range(redraws)]
        shown = {event["item_id"] for event in example["history"]}
        assert not shown & {item for slate in mine["slate"] for item in slate}


def test_those_who_choose_are_not_those_who_report(workshop: Any, folder: Path) -> None:
    chosen = recipe(workshop.values, "sample.selection=20", "sample.report=20")
    selection, report = samples.validation_samples(chosen, folder)
    assert len(selection) and len(report)
    assert not set(selection["user_id"]) & set(report["user_id"])
    assert set(selection["user_id"]) | set(report["user_id"]) <= {f"validation{n}" for n in range(12)}


def test_an_empty_split_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match="test: 0 examples"):
        samples.load_examples(folder, "test")


@pytest.mark.real_model
def test_a_recipe_may_ask_for_retrieved_slates(workshop: Any, tmp_path: Path) -> None:
    """The nearest items by MiniLM: other negatives than `uniform` ones, each slate with its target once."""
    tables = {}
    for policy in ("retrieved", "uniform"):
        chosen = recipe(workshop.values, f"examples.slate.policy={policy}", "examples.slate.retrieved_from=10")
        logs, made = (
            Context(tmp_path / policy / "logs", {}),
            Context(tmp_path / policy / "examples", {"logs": tmp_path / policy / "logs"}),
        )
        data.run_logs(chosen, logs)
        data.run_examples(chosen, made)
        tables[policy] = read_parquet(made.folder / "examples.parquet").sort("example_id")
    for row in tables["retrieved"].iter_rows(named=True):
        assert row["slate"].count(row["target_item_id"]) == 1
    assert tables["retrieved"]["example_id"].equals(tables["uniform"]["example_id"])
    assert not tables["retrieved"]["slate"].equals(tables["uniform"]["slate"])
