"""Recipes with experience, whole: a library from the pool, memory in prompts, other policies, another catalogue."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from conftest import Workshop
from tiny_run import COMMAND, Interrupts, Recorder, hashes, recipe_of, run, write_log

from recsys.errors import InputError
from recsys.storage import read_json, read_parquet, write_json
from verbalize.config import build, plain
from verbalize.experience.library import ExperienceLibrary
from verbalize.experience.settings import MemoryConfig
from verbalize.forget import forget
from verbalize.pipeline import stage_keys
from verbalize.recipe import load_recipe
from verbalize.recipe_sections import LEARNED
from verbalize.report.ledger import load_claims, verify
from verbalize.runs import RunResult, run_recipe
from verbalize.stages import stages_of
from verbalize.stages.experience import LIBRARY, library_config, open_memory
from verbalize.stages.saved_policies import open_policy
from verbalize.verbalizers.base import MEMORY, verbalizer_inputs

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SMALL = (
    "recommender_training=null",
    "templates=[titles]",
    "constants=[keep_all]",
    "reward.slates=1",
    "seeds=[0]",
    "train.steps=1",
    "evaluation.untrained=[]",
    "evaluation.baselines=[popularity]",
    "evaluation.example_browser=0",
    "evaluation.claims=[{id: tiny.memory, statement: s, b: best_template}]",
)
CLAIM = "evaluation.claims=[{id: tiny.against, statement: with against without, a: learned, b: no_experience}]"


@dataclass(frozen=True)
class Study:
    """A run that trains and is tested with memory, in a folder of runs of its own."""

    runs: Path
    overrides: tuple[str, ...]
    result: RunResult
    recorder: Recorder


@pytest.fixture(scope="module")
def study(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Shared: look, and add runs beside it; `store` is for what changes it. The tiny model embeds the sketches."""
    overrides = (*SMALL, f"experience.embedding={workshop.model}", "experience.tokens=500")
    runs, recorder = tmp_path_factory.mktemp("experienced"), Recorder()
    return Study(runs, overrides, run(workshop.values, runs, *overrides, progress=recorder), recorder)


@pytest.fixture
def store(study: Study, tmp_path: Path) -> Path:
    """A copy of the study's folder of runs."""
    return Path(shutil.copytree(study.runs, tmp_path / "runs"))


@pytest.fixture(scope="module")
def without(workshop: Workshop, study: Study) -> Path:
    """The same recipe trained without experience, beside the other."""
    overrides = (*study.overrides, "experience=null", "name=without")
    return run(workshop.values, study.runs, *overrides, until="train").folder


def keys_of(workshop: Workshop, *overrides: str) -> dict[str, str]:
    return stage_keys(stages_of(recipe_of(workshop.values, *overrides), COMMAND))


def test_switched_off_experience_is_in_no_key_and_at_test_only_it_shares_the_training(workshop: Workshop) -> None:
    plain, off = keys_of(workshop), keys_of(workshop, "experience=null", "examples.past_max=null")
    assert plain == off and "experience" not in plain
    at_test, both = keys_of(workshop, "experience.use=test"), keys_of(workshop, "experience.use=train_and_test")
    shared = [name for name in plain if plain[name] == at_test[name]]
    assert shared == ["logs", "examples", "recommender", "templates", "pool", "warm_start", "train"]
    assert [name for name in plain if plain[name] == both[name]] == shared[:-2]
    assert at_test["experience"] == both["experience"]
    shown = keys_of(workshop, "experience.strategies=3")
    assert shown["experience"] == both["experience"] and shown["warm_start"] != both["warm_start"]
    assert keys_of(workshop, "experience.dropout=0.5")["experience"] == both["experience"]


def test_the_library_holds_the_pools_best_and_worst_answers_with_where_they_come_from(study: Study) -> None:
    assert study.recorder.began() == [
        "logs",
        "examples",
        "templates",
        "pool",
        "experience",
        "warm_start",
        "train",
        "evaluate",
        "report",
    ]
    folders = study.result.stages
    config = recipe_config(study)
    with ExperienceLibrary.open(folders["experience"] / LIBRARY, library_config(config), read_only=True) as library:
        entries = library.entries()
    pool = read_parquet(folders["pool"] / "rewards.parquet")
    examples = {row["example_id"]: row for row in read_parquet(folders["examples"] / "examples.parquet").to_dicts()}
    rewards = {row[:2]: row[2] for row in pool.select("example_id", "candidate", "reward").iter_rows()}
    assert entries and {entry.zone for entry in entries} == {"strategy", "warning"}
    for entry in entries:
        (source,) = entry.sources
        mine = pool.filter(pl.col("example_id") == source)["reward"]
        assert entry.users == (examples[source]["user_id"],) and entry.time == examples[source]["cutoff_time"]
        assert examples[source]["split"] == "train" and entry.score == rewards[source, entry.family]
        assert entry.score == (mine.max() if entry.zone == "strategy" else mine.min())
    facts = read_json(folders["experience"] / "done.json")["facts"]
    assert sum(facts["lessons"].values()) == len(entries)
    assert 0 < read_json(folders["train"] / "done.json")["facts"]["prompts_with_memory"] <= 6


def test_nobody_is_shown_their_own_entries_or_later_ones(study: Study, workshop: Workshop) -> None:
    recipe = recipe_of(workshop.values, *study.overrides, "experience.strategies=50", "experience.warnings=50")
    memory = open_memory(recipe, study.result.stages)
    assert memory is not None
    examples = read_parquet(study.result.stages["examples"] / "examples.parquet")
    found = memory.retrieve(verbalizer_inputs(examples))
    counts = {"train": 0, "validation": 0, "test": 0}
    for row, hits in zip(examples.iter_rows(named=True), found, strict=True):
        for entry in (hit.entry for side in hits for hit in side):
            assert row["user_id"] not in entry.users and row["example_id"] not in entry.sources
            assert entry.time is not None and entry.time < row["cutoff_time"]
            counts[row["split"]] += 1
    assert all(counts.values())
    sources = {hit.entry.sources for hits in found for side in hits for hit in side}
    users = {entry for hits in found for side in hits for hit in side for entry in hit.entry.users}
    assert len(sources) > 1 and len(users) > 1  # so that something of oneself was there to be left out


def test_killed_while_building_or_evaluating_a_run_ends_in_the_same_bytes(
    workshop: Workshop, study: Study, store: Path
) -> None:
    written = ("decisions.parquet", "verbalizations.parquet", "margins.parquet")
    expected = hashes(study.result.stages["evaluate"], *written)
    for stage in ("experience", "evaluate"):
        shutil.rmtree(store / study.result.stages[stage].relative_to(study.runs))
    with pytest.raises(KeyboardInterrupt):
        run(workshop.values, store, *study.overrides, progress=Interrupts("experience", 1))
    with pytest.raises(KeyboardInterrupt):
        run(workshop.values, store, *study.overrides, progress=Interrupts("evaluate", 1))
    recorder = Recorder()
    again = run(workshop.values, store, *study.overrides, progress=recorder)
    assert recorder.began() == ["evaluate"] and hashes(again.stages["evaluate"], *written) == expected


def test_another_runs_policies_are_further_arms_and_a_claim_between_them_verifies(
    workshop: Workshop, study: Study, without: Path, tmp_path: Path
) -> None:
    recorder = Recorder()
    against = f"evaluation.against={json.dumps({'no_experience': str(without)})}"
    overrides = (*study.overrides, against, CLAIM, "name=compared")
    result = run(workshop.values, study.runs, *overrides, progress=recorder, record_in=tmp_path)
    assert recorder.began() == ["evaluate", "report"]
    decisions = read_parquet(result.stages["evaluate"] / "decisions.parquet")
    arms = {key[0]: part for key, part in decisions.group_by("verbalizer")}
    assert set(arms["no_experience"]["example_id"]) == set(arms[LEARNED]["example_id"])
    assert arms["no_experience"]["recommender"].unique().to_list() == arms[LEARNED]["recommender"].unique().to_list()
    assert load_claims(tmp_path)["tiny.against"].n == 6 and verify(tmp_path) == []
    with pytest.raises(InputError, match="holds no manifest"):
        run(workshop.values, study.runs, *study.overrides, "evaluation.against={no_experience: nowhere}", CLAIM)
    with pytest.raises(InputError, match="name of its own"):
        recipe_of(workshop.values, f"evaluation.against={json.dumps({'titles': str(without)})}")


def test_what_a_run_trained_is_evaluated_on_another_catalogue_without_training(
    workshop: Workshop, study: Study, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "other", title=lambda place: f"Qwert{place} day tale", seed=5)
    values = {name: workshop.values[name] for name in ("source", "examples", "sample")}
    values |= {"name": "elsewhere", "transfer_from": str(study.result.folder)}
    values["source"] = values["source"] | {"path": str(log)}
    values["evaluation"] = {"baselines": [], "claims": [], "shuffled": False, "example_browser": 0}
    write_json(values, tmp_path / "elsewhere.yaml")  # JSON is YAML
    recipe = load_recipe(tmp_path / "elsewhere.yaml", ["examples.history_max=5"])
    recorder = Recorder()
    result = run_recipe(recipe, study.runs, COMMAND, recorder)
    assert recorder.began() == ["logs", "examples", "evaluate", "report"]
    assert result.stages["train"] == study.result.stages["train"]
    assert result.stages["logs"] != study.result.stages["logs"]
    assert read_json(result.folder / "manifest.json")["stages"]["train"]["key"] == study.result.stages["train"].name
    examples = read_parquet(result.stages["examples"] / "examples.parquet")
    assert examples["history"].list.len().max() == 5
    texts = read_parquet(result.stages["evaluate"] / "verbalizations.parquet")["text"]
    assert texts.str.contains("Qwert").any() and not texts.str.contains("Zyxwood").any()
    assert "prompts_with_memory" in read_json(result.stages["evaluate"] / "done.json")["facts"]
    with pytest.raises(InputError, match=r"policy\.actions\.show_age_in_prompt = False with transfer_from"):
        stages_of(load_recipe(tmp_path / "elsewhere.yaml", ["policy.actions.show_age_in_prompt=false"]), COMMAND)


def test_a_forgotten_users_entries_are_gone_and_the_library_is_built_again_without_them(
    workshop: Workshop, study: Study, store: Path
) -> None:
    with ExperienceLibrary.open(
        study.result.stages["experience"] / LIBRARY, library_config(recipe_config(study)), read_only=True
    ) as library:
        user = library.entries()[0].users[0]
        known = len(library)
    report = forget([user], runs=[store])
    assert report.found.remaining == {}
    assert any("experience dropped" in one.how for one in report.removed)
    recorder = Recorder()
    again = run(workshop.values, store, *study.overrides, progress=recorder)
    assert recorder.began() == ["experience", "report"]
    with ExperienceLibrary.open(
        again.stages["experience"] / LIBRARY, library_config(recipe_config(study)), read_only=True
    ) as library:
        assert 0 < len(library) < known and all(user not in entry.users for entry in library.entries())


def test_a_policy_is_not_asked_in_a_format_it_was_not_trained_on(workshop: Workshop, study: Study) -> None:
    adapter = study.result.stages["train"] / "seed-0" / "adapter"
    assert read_json(adapter / "card.json")["prompt"]
    changed = recipe_of(workshop.values, *study.overrides, "policy.actions.show_age_in_prompt=false")
    with pytest.raises(InputError, match="trained on prompts of format"):
        open_policy(changed, adapter, "x")


def test_rewrites_train_and_write_with_memory_in_the_system_role(workshop: Workshop, study: Study) -> None:
    rewriting = (
        "policy.kind=rewrite",
        "warm_start=null",
        "train.group_size=2",
        "policy.rewrite.max_new_tokens=4",
        "policy.rewrite.instruction=Summarise.",
        "name=rewriting",
    )
    recorder = Recorder()
    trained = run(workshop.values, study.runs, *study.overrides, *rewriting, progress=recorder, until="train")
    assert recorder.began() == ["experience", "train"]
    assert read_json(trained.stages["train"] / "done.json")["facts"]["prompts_with_memory"] > 0
    recipe = recipe_of(workshop.values, *study.overrides, *rewriting)
    memory = open_memory(recipe, trained.stages)
    examples = read_parquet(trained.stages["examples"] / "examples.parquet").filter(pl.col("split") == "validation")
    assert memory is not None
    shown = memory.recall(verbalizer_inputs(examples.head(3)))[MEMORY]
    assert shown.str.contains("Zyxwood").any()  # texts, where the slot policy is shown actions


def test_the_committed_study_tests_nobody_it_trained_on_and_publishes_nobodys_history(tmp_path: Path) -> None:
    training = load_recipe(EXPERIMENTS / "generalise.yaml")
    write_json({"recipe": plain(training), "stages": {"train": {"key": "0"}}}, tmp_path / "manifest.json")
    ids = set()
    for path in sorted((EXPERIMENTS / "generalise").glob("*.yaml")):
        recipe = load_recipe(path, [f"transfer_from={tmp_path}"])
        assert recipe.policy == training.policy and recipe.experience == training.experience
        assert recipe.evaluation.split == "test" and set(recipe.evaluation.against) == {
            "no_experience",
            "retrieval_at_test",
        }
        if recipe.source == training.source:
            assert recipe.examples.split == training.examples.split and recipe.evaluation.example_browser == 0
        ids |= {claim.id for claim in recipe.evaluation.claims}
    assert ids == {"generalise.unseen_users", "generalise.cold_start", "generalise.new_catalogue"}


def recipe_config(study: Study) -> MemoryConfig:
    """The experience section of the study's run."""
    return build(MemoryConfig, read_json(study.result.folder / "manifest.json")["recipe"]["experience"])
