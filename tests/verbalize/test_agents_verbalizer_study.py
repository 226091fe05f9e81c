"""SLEA-RL on the verbalization task, whole and in miniature: from a prepared log to texts, curves and forgetting."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl
import pytest
import yaml
from conftest import Workshop
from slea_helpers import episode
from tiny_run import COMMAND, Recorder, write_recipe

from recsys.errors import CorruptFileError, InputError
from recsys.storage import read_json, read_parquet, write_parquet
from verbalize import cli
from verbalize.agents.environment import Trajectory
from verbalize.agents.personal import PersonalTask
from verbalize.agents.slea_arms import Arms
from verbalize.agents.slea_memory import StepMemory
from verbalize.agents.study import load_study
from verbalize.agents.verbalization_lessons import by_gain, gains
from verbalize.agents.verbalizer_outcomes import by_example, compare, summarise
from verbalize.agents.verbalizer_settings import KEPT, Config
from verbalize.agents.verbalizer_world import World, prepare_world
from verbalize.experience.entries import Experience
from verbalize.experience.evolution import Episode
from verbalize.experience.library import ExperienceLibrary
from verbalize.experience.settings import ExperienceConfig
from verbalize.forget import forget
from verbalize.pipeline import Silent
from verbalize.verbalizers.actions import KEEP, ActionConfig, execute
from verbalize.verbalizers.base import verbalizer_inputs

RECIPE = Path(__file__).parents[2] / "experiments" / "agents" / "verbalizer.yaml"
ROOT = RECIPE.parents[2]


@dataclass(frozen=True)
class Study:
    """A study carried out once by the command line, and what it printed."""

    file: Path
    runs: Path
    values: dict[str, Any]
    facts: dict[str, Any]

    @property
    def world(self) -> Path:
        (found,) = (self.runs / "agents" / "tiny").glob("world-*")
        return found


@pytest.fixture(scope="module")
def study(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """GRPO and SLEA-RL on the made-up log; the tiny model acts, recommends and embeds. Shared: look, do not touch."""
    base = tmp_path_factory.mktemp("verbalizer")
    recipe = write_recipe(workshop.values | {"recommender_training": None}, base / "recipe.yaml")
    values = {
        "kind": "slea_verbalizer",
        "name": "tiny",
        "recipe": str(recipe),
        "overrides": ["reward.slates=1"],
        "arms": {"grpo": {"credit": "episode"}, "slea": {"credit": "cluster", "retrieval": True}},
        "examples": {"train": 4, "development": 2, "evaluation": 4},
        "max_steps": 3,
        "max_sessions": 2,
        "model": str(workshop.model),
        "seeds": [0],
        "environments": 4,
        "training": {
            "environment_steps": 40,
            "games_per_batch": 2,
            "group_size": 3,
            "per_token": True,
            "prompt_budget": 1600,
            "memory_budget": 400,
            "token_budget": 4096,
            "beta": 0.0,
            "evaluate_every": 2,
            "save_every": 2,
        },
        "lora": {"rank": 4, "alpha": 8},
        "experience": {
            "embedding": str(workshop.model),
            "clusters": {"delta": 0.2, "warmup": 1, "minimum": 1},
            "admission": {"novelty": 1.1},
        },
    }
    file = base / "study.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert cli.main(["agents", str(file), "--runs", str(base / "runs"), "--json"]) == 0
    return Study(file, base / "runs", values, read_json(base / "runs" / "agents" / "tiny" / "result.json"))


@pytest.fixture
def runs(study: Study, tmp_path: Path) -> Path:
    """A copy of the study's folder of runs, to be changed."""
    return Path(shutil.copytree(study.runs, tmp_path / "runs"))


def examples_of(study: Study) -> pl.DataFrame:
    (path,) = (study.runs / "artefacts" / "examples").glob("*/examples.parquet")
    return read_parquet(path)


def cells(study: Study) -> dict[str, pl.DataFrame]:
    return {path.name.split("-")[0]: read_parquet(path) for path in (study.world / "cells").iterdir()}


def lessons(study: Study) -> list[Experience]:
    (folder,) = (study.world / "runs").glob("slea-*/library")
    config = ExperienceConfig(embedding=study.values["model"])
    with ExperienceLibrary.open(folder, config, read_only=True) as library:
        return library.entries()


def test_every_arm_meets_the_same_examples_and_no_test_user(study: Study) -> None:
    examples, parts = examples_of(study), pl.DataFrame(read_json(study.world / "examples.json"))
    told = parts.join(examples, on=["example_id", "user_id"], how="inner")
    assert len(told) == 10
    splits = dict(told.group_by("part").agg(pl.col("split").unique().sort()).iter_rows())
    assert splits == {"train": ["train"], "development": ["validation"], "evaluation": ["validation"]}
    users = {part: set(rows["user_id"]) for (part,), rows in parts.group_by("part")}
    assert not users["train"] & users["evaluation"] and not users["development"] & users["evaluation"]
    asked = parts.filter(part="evaluation")["example_id"].to_list()
    judged = cells(study)
    assert set(judged) == {"random", KEPT, "start", "grpo", "slea"} == set(study.facts["arms"])
    assert all(table["example_id"].to_list() == asked for table in judged.values())
    assert study.facts["examples"] == 4 and study.facts["users"] == len(users["evaluation"])


def test_texts_are_the_executors_and_rewards_the_recommenders(study: Study) -> None:
    """`keep_all` is the executor's plain text; numbers are means over its slates, and the facts are means of them."""
    kept = cells(study)[KEPT]
    rows = kept.select("example_id").join(examples_of(study), on="example_id", how="left", maintain_order="left")
    inputs = verbalizer_inputs(rows)
    symbols = [[KEEP] * len(history) for history in inputs["history"]]
    assert kept["text"].to_list() == execute(inputs, symbols, ActionConfig())
    for name, table in cells(study).items():
        assert table["reward"].equals(table["reciprocal_rank"])
        one_slate = table["rank"] ** -1.0  # of the only slate
        assert one_slate.to_list() == pytest.approx(table["reward"].to_list())
        assert table["rank"].is_between(1, 4).all() and table["steps"].is_between(1, 3).all()
        assert study.facts["arms"][name]["reward"]["value"] == pytest.approx(fmean(table["reward"]), abs=1e-6)
    gap = study.facts["differences"][f"slea - {KEPT}"]["reward"]["value"]
    means = [fmean(cells(study)[name]["reward"]) for name in ("slea", KEPT)]
    assert gap == pytest.approx(means[0] - means[1], abs=1e-6)


def test_curves_are_saved_and_lessons_are_of_training_examples_with_user_and_time(study: Study) -> None:
    curves = read_parquet(study.world / "curves.parquet")
    for arm in ("grpo", "slea"):
        mine, run = curves.filter(arm=arm), study.facts["runs"][f"{arm}/0"]
        steps = mine["environment_steps"].to_list()
        assert steps[0] == 0 and steps == sorted(set(steps)) and steps[-1] == run["environment_steps"] >= 40
        assert mine["reward"].is_between(0.25, 1).all()
        assert run["environment_steps"] < 40 + 2 * 3 * 3  # no more than a batch beyond the budget
    known = {
        example: (user, cutoff)
        for example, user, cutoff in examples_of(study).select("example_id", "user_id", "cutoff_time").iter_rows()
    }
    train = {row["example_id"] for row in read_json(study.world / "examples.json") if row["part"] == "train"}
    found = lessons(study)
    assert found and study.facts["runs"]["slea/0"]["lessons"] == len(found)
    for entry in found:
        (example,) = (source for source in entry.sources if not source.startswith("by:"))
        assert example in train and (entry.users[0], entry.time) == known[example] and len(entry.users) == 1
    assert cells(study)["slea"]["shown"].sum() > 0 == cells(study)["grpo"]["shown"].sum()
    (card,) = (study.world / "runs").glob("slea-*/adapter/card.json")
    assert "by the recipe tiny" in read_json(card)["data"]


def test_the_same_study_resumes_cell_by_cell(study: Study, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cell,) = (runs / "agents" / "tiny").glob("world-*/cells/slea-*")
    before = read_parquet(cell)
    cell.unlink()
    monkeypatch.setattr("verbalize.agents.slea_arms.train_agent", None)  # nothing is trained again
    played: list[int] = []
    recall = StepMemory.__call__
    monkeypatch.setattr(StepMemory, "__call__", lambda self, situations: played.append(1) or recall(self, situations))
    assert cli.main(["agents", str(study.file), "--runs", str(runs), "--json"]) == 0
    assert read_parquet(cell).equals(before) and played
    assert read_json(runs / "agents" / "tiny" / "result.json") == study.facts
    write_parquet(before.reverse(), cell)
    with pytest.raises(CorruptFileError, match="holds other examples"):
        cli_run(study, runs)


def cli_run(study: Study, runs: Path) -> None:
    from verbalize.agents.study import run_study

    run_study(load_study(study.file), runs, COMMAND)


def test_what_training_shows_is_of_others_and_from_before(study: Study, tmp_path: Path) -> None:
    """A whole training run: each lesson it showed was known before the cutoff of the example that saw it, and taught by
    somebody else."""
    shown: list[tuple[PersonalTask, Experience]] = []
    recall = StepMemory.__call__

    def watched(self: StepMemory, situations: Any) -> list[str]:
        blocks = recall(self, situations)
        for situation, block in zip(situations, blocks, strict=True):
            step = self.found[situation.task.id, situation.attempt, situation.turn]
            if block:
                shown.extend((situation.task, hit.entry) for hit in (*step.strategies, *step.warnings))
        return blocks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepMemory, "__call__", watched)
        world, arms = made_arms(study, tmp_path)
        arms.train("slea", 1)
    in_training = [(task, entry) for task, entry in shown if task in world.sets.train]
    assert in_training
    for task, entry in shown:
        assert entry.time is not None and entry.time < task.cutoff and task.user not in entry.users


def made_arms(study: Study, folder: Path) -> tuple[World, Arms]:
    from verbalize.agents.verbalizer_arms import VerbalizerArms
    from verbalize.experience.embedding import CachedEmbedder

    config = load_study(study.file).config
    recorder = Recorder()
    world = prepare_world(config, study.runs, recorder, COMMAND)
    assert recorder.began() == []  # the recipe's stages are there
    assert study.world.name == f"world-{world.key}"
    embedder = CachedEmbedder(config.experience.embedding)
    return world, VerbalizerArms(config, world, embedder, folder, Silent(), COMMAND)


def test_forgetting_a_user_of_training(study: Study, runs: Path) -> None:
    """Lessons, prototypes and rows go, the adapters that learned from the user are named, an unfinished run is dropped,
    and the study goes on without the user."""
    taught = lessons(study)
    user = taught[0].users[0]
    world = runs / "agents" / "tiny" / study.world.name
    begun = world / "runs" / "slea-seed7-unfinished"
    shutil.copytree(next((world / "runs").glob("slea-seed0-*")), begun)
    (begun / "result.json").unlink()
    planned = forget([user], runs=[runs], dry_run=True)
    assert begun.exists() and any("library" in place for place in planned.found.remaining)
    report = forget([user], runs=[runs])
    assert report.removed == planned.removed and not begun.exists()
    removed = {one.how: one.rows for one in report.removed if str(world) in one.place}
    assert removed["lessons removed"] == sum(user in entry.users for entry in taught) > 0
    assert "unfinished training dropped" in removed
    assert {Path(one.adapter).parent.name.split("-")[0] for one in report.adapters} == {"grpo", "slea"}
    assert all("of its 4 training examples" in one.why for one in report.adapters)
    assert report.found.remaining == {} and report.found.elsewhere == {}
    assert not any(user.encode() in path.read_bytes() for path in runs.rglob("*") if path.is_file())
    assert json.dumps(read_json(runs / "forgotten.json")).count("adapter") >= 2
    again = forget([user], runs=[runs])
    assert (again.removed, again.adapters) == ((), ())


def test_forgetting_a_user_of_the_evaluation_keeps_what_was_trained(study: Study, runs: Path) -> None:
    user = cells(study)["slea"]["user_id"][0]
    report = forget([user], runs=[runs])
    assert report.adapters == () and report.found.remaining == {}
    for path in runs.glob("agents/tiny/world-*/cells/*.parquet"):
        assert user not in read_parquet(path)["user_id"].to_list()
    assert len(list(runs.glob("agents/tiny/world-*/runs/*/adapter"))) == 2


def a_task(name: str, user: str, study: Study) -> PersonalTask:
    cutoff = examples_of(study)["cutoff_time"][0]
    return PersonalTask(name, "verbalization", 0, max_steps=4, user=user, cutoff=cutoff)


def test_lessons_tell_gains_over_the_examples_own_episodes(study: Study) -> None:
    """An easy example's poor episode is a warning, a hard one's good episode a strategy; equal ones teach nothing."""
    easy, hard, flat = (a_task(name, name, study) for name in ("easy", "hard", "flat"))

    def ended(task: PersonalTask, outcome: float, *actions: str) -> Trajectory:
        turns = [(f"{task.id} {place}", action, 0.0) for place, action in enumerate(actions)]
        turns[-1] = (*turns[-1][:2], outcome)
        return episode(*turns, task=task)

    batch = [
        ended(easy, 1.0, "inspect session 1", "enrich session 1", "stop"),
        ended(easy, 0.5, "drop session 1", "stop"),
        ended(hard, 0.4, "stop"),
        ended(hard, 0.2, "group by genre", "drop session 2", "stop"),
        ended(flat, 0.3, "stop"),
        ended(flat, 0.3, "ungroup", "stop"),
    ]
    scores = gains(batch)
    assert scores == pytest.approx([0.25, -0.25, 0.1, -0.1, 0, 0])
    judged = [
        Episode(one.source, score, one.task.id, frozenset(), one) for one, score in zip(batch, scores, strict=True)
    ]
    order = sorted(judged, key=lambda one: -one.score)
    found = by_gain(order[:4], order[4:][::-1])
    texts = [(entry.zone, entry.key, entry.text) for entry in found]
    assert texts == [
        ("strategy", "easy 0", '"enrich session 1": gained 0.25.'),
        ("strategy", "hard 0", '"stop" at once: gained 0.10.'),
        ("warning", "easy 0", '"drop session 1": lost 0.25.'),
        ("warning", "hard 0", '"group by genre", then "drop session 2": lost 0.10.'),
        ("strategy", "easy 1", '"enrich session 1" here: gained 0.25 in the end.'),
        ("warning", "easy 0", '"drop session 1" here: lost 0.25 in the end.'),
        ("warning", "hard 0", '"group by genre" here: lost 0.10 in the end.'),
        ("warning", "hard 1", '"drop session 2" here: lost 0.10 in the end.'),
    ]
    assert all(entry.users == (entry.key.split()[0],) and entry.time == easy.cutoff for entry in found)
    assert by_gain(order[4:], order[:4]) == []  # on the other side of the batch's median than their gain


def test_outcomes_average_seeds_first_and_resample_users() -> None:
    columns = {name: [0.0] * 3 for name in ("reciprocal_rank", "rank", "hit", "compression", "steps", "shown")}

    def cell(*rewards: float) -> pl.DataFrame:
        return pl.DataFrame({"example_id": ["b", "a", "c"], "user_id": ["u", "u", "v"], "reward": rewards} | columns)

    means = by_example({("x", 0): cell(0.0, 1.0, 0.5), ("x", 1): cell(1.0, 1.0, 0.5), ("y", 0): cell(0.5, 0.0, 0.5)})
    assert means["x"].select("example_id", "reward").rows() == [("a", 1.0), ("b", 0.5), ("c", 0.5)]
    assert summarise(means["x"])["reward"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    gap = compare(means["x"], means["y"], ("reward",))["reward"]
    assert gap["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert (gap["low"], gap["high"]) == (0.0, 0.5)  # user v has no difference, user u one of 1/2 on average
    alone = means["x"].filter(user_id="v")
    assert summarise(alone)["reward"] == {"value": 0.5, "low": None, "high": None}
    with pytest.raises(InputError, match="the same ones in both"):
        compare(means["x"], alone, ("reward",))


def test_refusals(study: Study, tmp_path: Path) -> None:
    config = load_study(study.file).config
    assert isinstance(config, Config)
    with pytest.raises(InputError, match=r"examples\.evaluation = 7.*sample\.report"):
        prepare_world(replace(config, examples=replace(config.examples, evaluation=7)), study.runs, Silent(), COMMAND)
    for change, message in (
        ({"arms": {KEPT: {}}}, "none of them called"),
        ({"examples": {"train": 5}}, "multiple of training.games_per_batch"),
        ({"examples": {"evaluation": 0}}, "each part needs an example"),
        ({"reward": "margin"}, "must be one of"),
        ({"recipes": "x"}, "did you mean recipe"),
    ):
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(study.values | change), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            load_study(path)


def test_the_shipped_study_fits_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    from verbalize.recipe import load_recipe

    monkeypatch.chdir(ROOT)
    config = load_study(RECIPE).config
    recipe = load_recipe(config.recipe, config.overrides)
    assert config.examples.train <= recipe.sample.train
    assert config.examples.development <= recipe.sample.selection
    assert config.examples.evaluation <= recipe.sample.report
    methods = {name: (arm.credit, arm.retrieval) for name, arm in config.arms.items()}
    assert methods["grpo"] == ("episode", False) and methods["slea"] == ("cluster", True)
    assert config.experience.clusters.warmup < config.training.environment_steps // (16 * config.max_steps)
