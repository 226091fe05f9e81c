"""A recipe that learns what candidates show: stages and keys, who met whom, leaks, resumption, refusals."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Workshop
from safetensors.torch import load_file
from sweep_files import sweep_of
from tiny_run import COMMAND, Interrupts, Recorder, hashes, recipe_of, run

from recsys import contracts
from recsys.errors import InputError
from recsys.recommenders.base import Query
from recsys.recommenders.candidates import slates_hash
from recsys.storage import read_json, read_parquet
from verbalize.config import load_yaml
from verbalize.pipeline import Context, stage_keys
from verbalize.recipe_sections import BEST_DISPLAY, LEARNED, SHUFFLED, START
from verbalize.report.ledger import load_claims, verify
from verbalize.runs import RunResult
from verbalize.stages import displays, samples, stages_of
from verbalize.stages.evaluate import learned_texts
from verbalize.stages.saved_policies import open_policy
from verbalize.stages.templates import METRIC
from verbalize.tables.cells import CellConfig
from verbalize.tables.crossed import Side, cross
from verbalize.verbalizers.displays import DISPLAYS
from verbalize.verbalizers.templates import TemplateVerbalizer

CLAIMS = json.dumps(
    [
        {"id": "tiny.vs_display", "statement": "Learned minus the best display for all", "b": "best_display"},
        {"id": "tiny.vs_start", "statement": "Learned minus before", "b": "before_training"},
        {"id": "tiny.vs_all", "statement": "Learned minus all fields", "b": "show_title_year_genres"},
        {"id": "tiny.vs_template", "statement": "Learned minus template", "b": "best_template"},
        {"id": "tiny.headroom", "kind": "pool_headroom", "statement": "Headroom", "target": None},
    ]
)
ASKED = (
    "policy.kind=display",
    "policy.display.instruction=Choose.",
    "reward.kind=log_softmax",
    f"evaluation.claims={CLAIMS}",
)
TABLES = {
    "pool": ("decisions.parquet", "rewards.parquet", "scores.parquet", "roles.json"),
    "warm_start": ("loss.parquet",),
    "evaluate": ("decisions.parquet", "verbalizations.parquet", "displays.parquet", "plan.json"),
}


@pytest.fixture(scope="module")
def shown(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """The recipe carried out once, and the folder of its evidence. Shared: look, do not touch."""
    base = tmp_path_factory.mktemp("displays")
    return base, run(workshop.values, base / "runs", *ASKED, record_in=base / "results")


def test_every_display_is_an_arm_on_the_same_slates(shown: tuple[Path, RunResult]) -> None:
    result = shown[1]
    decisions = contracts.check(read_parquet(result.stages["evaluate"] / "decisions.parquet"), "decisions")
    mine = decisions.filter(pl.col("recommender") == "tiny-lm-likelihood-trained")
    asked = ["example_id", "user_id", "slate_index", "target_index"]
    arms = {key: part.select(asked).sort(asked) for key, part in mine.group_by("verbalizer", "seed")}
    wanted = {(name, 0) for name in DISPLAYS} | {(LEARNED, 0), (LEARNED, 1), (START, 0), (SHUFFLED, 0)}
    assert wanted <= set(arms) and ("concatenation", 0) in arms
    first = next(iter(arms.values()))
    assert len(first) == 6 * 2 and all(part.equals(first) for part in arms.values())
    by_display = {name: mine.filter(pl.col("verbalizer") == name)["scores"].explode() for name in DISPLAYS}
    assert not by_display["show_title"].equals(by_display["show_title_year_genres"])  # the rendering is the treatment
    texts = contracts.check(read_parquet(result.stages["evaluate"] / "verbalizations.parquet"), "verbalizations")
    of_displays = texts.filter(pl.col("verbalizer").is_in([*DISPLAYS, LEARNED, START, SHUFFLED]))
    assert of_displays.group_by("example_id").agg(pl.col("text").n_unique())["text"].unique().to_list() == [1]


def test_the_slates_hash_is_of_items_and_their_order(workshop: Workshop, shown: tuple[Path, RunResult]) -> None:
    folders = shown[1].stages
    _, examples = samples.validation_samples(recipe_of(workshop.values, *ASKED), folders["examples"])
    items = {item: item for item in read_parquet(folders["logs"] / "items.parquet")["item_id"]}
    found = read_json(folders["evaluate"] / "done.json")["facts"]["audits"]["slates_sha256"]
    assert found == slates_hash(examples.select("example_id", "slate"), items)


def test_every_candidate_of_a_slate_is_ranked_as_the_display_chosen_for_its_history_shows_it(
    workshop: Workshop, shown: tuple[Path, RunResult]
) -> None:
    """Ranked once more, by the recommender of the one display that the table names: target and negatives alike."""
    recipe, folders = recipe_of(workshop.values, *ASKED), shown[1].stages
    _, examples = samples.validation_samples(recipe, folders["examples"])
    template = read_json(folders["templates"] / "roles.json")["best_template"]
    texts = TemplateVerbalizer(template).verbalize(examples.select("example_id", "cutoff_time", "history"))
    recommenders = displays.open_displays(recipe, folders)
    chosen = read_parquet(folders["evaluate"] / displays.CHOSEN)
    decisions = read_parquet(folders["evaluate"] / "decisions.parquet")
    slates = samples.load_slates(folders["examples"], examples)
    for arm, seed in ((LEARNED, 0), (LEARNED, 1), (START, 0), (SHUFFLED, 0), ("show_title_year", 0)):
        mine = chosen.filter(pl.col("verbalizer") == arm, pl.col("seed") == seed)
        for example_id, text in zip(examples["example_id"], texts, strict=True):
            (display,) = mine.filter(pl.col("example_id") == example_id)["display"]
            for index, slate in slates.filter(example_id=example_id).select("slate_index", "slate").iter_rows():
                (scores,) = recommenders[display].rank([Query(example_id, text)], [slate])
                kept = decisions.filter(verbalizer=arm, seed=seed, example_id=example_id, slate_index=index)
                np.testing.assert_allclose(kept["scores"].to_list()[-1], scores, atol=1e-4)
    assert set(chosen.filter(pl.col("verbalizer") == "show_title_year")["display"]) == {"show_title_year"}


def test_neither_target_nor_slate_reaches_the_choice(
    workshop: Workshop, shown: tuple[Path, RunResult], tmp_path: Path
) -> None:
    """Another target, another order, another split: every policy chooses as before; another history it does read."""
    recipe, folders = recipe_of(workshop.values, *ASKED), shown[1].stages
    _, examples = samples.validation_samples(recipe, folders["examples"])
    rewritten = examples.with_columns(
        target_item_id=pl.col("slate").list.first(),
        slate=pl.col("slate").list.reverse(),
        split=pl.lit("test"),
        is_discovery=~pl.col("is_discovery"),
    )
    assert not rewritten["target_item_id"].equals(examples["target_item_id"])
    context = Context(tmp_path, folders, Recorder())
    learned, start = learned_texts(recipe, context, {"evaluated": rewritten}, None)
    chosen = read_parquet(folders["evaluate"] / displays.CHOSEN)

    def kept(arm: str, seed: int) -> list[str]:
        return chosen.filter(pl.col("verbalizer") == arm, pl.col("seed") == seed)["display"].to_list()

    assert start["evaluated"] == kept(START, 0)
    assert {seed: found["evaluated"] for seed, found in learned.items()} == {
        seed: kept(LEARNED, seed) for seed in (0, 1)
    }
    shorter = examples.with_columns(history=pl.col("history").list.head(1))  # what may be read, is
    policy_inputs = [frame.select("example_id", "cutoff_time", "history") for frame in (examples, shorter)]
    policy = open_policy(recipe, folders["train"] / "seed-0" / "adapter", LEARNED)
    first, other = (np.concatenate([row.numpy() for row in policy.logprobs(one)]) for one in policy_inputs)
    assert np.abs(first - other).max() > 1e-6


def test_rollouts_are_paid_what_the_display_earned_in_the_pool(shown: tuple[Path, RunResult]) -> None:
    folders = shown[1].stages
    scores = read_parquet(folders["pool"] / displays.SCORES)
    paid = dict(zip(zip(scores["example_id"], scores["display"], strict=True), scores["reward"], strict=True))
    lines = (folders["train"] / "seed-0" / "rollouts" / "step-00000.jsonl").read_text().splitlines()
    rolled = [json.loads(line) for line in lines]
    assert len(rolled) == 8 and {row["text"] for row in rolled} <= set(DISPLAYS)
    assert all(row["reward"] == paid[row["example_id"], row["text"]] for row in rolled)
    judged = read_parquet(folders["train"] / "seed-0" / "validation" / "step-00002.parquet")
    assert all(reward == paid[key, name] for key, name, reward in judged.select("example_id", "text", "reward").rows())
    training = set(read_parquet(folders["pool"] / "decisions.parquet")["example_id"])
    assert {row["example_id"] for row in rolled} <= training and not training & set(judged["example_id"])


def test_the_best_display_is_chosen_on_selection_users_and_the_report_says_what_was_chosen(
    shown: tuple[Path, RunResult],
) -> None:
    folders = shown[1].stages
    facts = read_json(folders["pool"] / "done.json")["facts"]
    best = facts["roles"][BEST_DISPLAY]
    assert facts[METRIC][best] == max(facts[METRIC].values()) and set(facts[METRIC]) == set(DISPLAYS)
    html = (shown[1].folder / "report.html").read_text()
    assert f"best display for all on validation: {best}" in html and "Displays that seed 1 chose" in html
    assert "Headroom of the pool" in html and "learned − show title genres" in html
    assert not (folders["evaluate"] / "margins.parquet").exists()


def test_claims_against_displays_verify(shown: tuple[Path, RunResult]) -> None:
    claims = load_claims(shown[0] / "results")
    assert {"tiny.vs_display", "tiny.vs_start", "tiny.vs_all", "tiny.vs_template", "tiny.headroom"} == set(claims)
    assert verify(shown[0] / "results") == []
    assert all(claim.value is not None for claim in claims.values())
    rival = claims["tiny.vs_display"].estimator.parameters["b"]
    assert rival.partition("/")[0] in DISPLAYS


@pytest.mark.parametrize(("stage", "number"), [("pool", 3), ("train", 3), ("evaluate", 5)])
def test_interrupted_it_ends_as_the_uninterrupted_run(
    workshop: Workshop, shown: tuple[Path, RunResult], tmp_path: Path, stage: str, number: int
) -> None:
    few = ("name=one", "seeds=[0]", "evaluation.claims=[]")
    whole = run(workshop.values, shown[0] / "runs", *ASKED, *few)
    with pytest.raises(KeyboardInterrupt):
        run(workshop.values, tmp_path, *ASKED, *few, progress=Interrupts(stage, number))
    again = run(workshop.values, tmp_path, *ASKED, *few)
    for name, files in TABLES.items():
        assert hashes(again.stages[name], *files) == hashes(whole.stages[name], *files), name
    place = Path("seed-0") / "adapter" / "adapter_model.safetensors"
    expected = load_file(whole.stages["train"] / place)
    for name, value in load_file(again.stages["train"] / place).items():
        assert (value - expected[name]).abs().max() <= 1e-6


def test_the_committed_recipe_runs_as_it_is_but_for_data_model_and_sizes(workshop: Workshop, tmp_path: Path) -> None:
    committed = load_yaml(Path(__file__).parents[2] / "experiments" / "candidates.yaml")
    values = committed | {name: workshop.values[name] for name in ("source", "examples", "sample", "recommender")}
    small = (
        f"policy.model={workshop.model}",
        "recommender_training.examples=4",
        "recommender_training.accumulation=2",
        "train.steps=2",
        "train.prompts_per_step=2",
        "train.eval_every=1",
        "train.save_every=1",
        "seeds=[0]",
    )
    result = run(values, tmp_path, *small)
    assert read_json(result.stages["train"] / "seed-0" / "result.json")["steps"] == 2
    assert all(claim["id"] in result.console for claim in committed["evaluation"]["claims"])


def test_keys_follow_the_display_and_other_recipes_know_nothing_of_it(workshop: Workshop) -> None:
    stages = stages_of(recipe_of(workshop.values), COMMAND)
    assert "display" not in json.dumps([stage.config for stage in stages])
    before = stage_keys(stages_of(recipe_of(workshop.values, *ASKED), COMMAND))
    for override, again in (
        ("policy.display.template=titles", {"pool", "warm_start", "train", "evaluate", "report"}),
        ("policy.display.show_rating_in_prompt=false", {"warm_start", "train", "evaluate", "report"}),
        ("templates=[titles]", set(before) - {"logs", "examples", "recommender"}),  # the best template may change
    ):
        after = stage_keys(stages_of(recipe_of(workshop.values, *ASKED, override), COMMAND))
        assert {name for name in before if before[name] != after[name]} == again, override
    plain = stage_keys(stages_of(recipe_of(workshop.values), COMMAND))
    assert plain["recommender"] != before["recommender"]  # one that reads every display
    assert plain["examples"] == before["examples"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("reward.kind=margin", r"reward\.kind = margin .*grow with what a candidate shows"),
        ("dpo={}", "dpo with policy.kind display"),
        ("experience={}", "experience with policy.kind display"),
        ("evaluation.untrained=[learned]", "untrained"),
        ("recommender_training.learned=runs/artefacts/train/x/seed-0", "recommender_training.learned"),
        ('evaluation.claims=[{"id": "a.b", "statement": "s", "kind": "learned_margin"}]', "learned_margin"),
        ("train.vllm=colocate", "vllm"),
    ],
)
def test_what_it_would_ignore_or_could_not_mean_is_refused(workshop: Workshop, override: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        recipe_of(workshop.values, *ASKED, override)
    with pytest.raises(InputError, match="show_title"):
        recipe_of(workshop.values, 'evaluation.claims=[{"id": "a.b", "statement": "s", "b": "show_title"}]')


def test_whoever_ranks_learned_texts_elsewhere_is_told_that_there_are_none(
    workshop: Workshop, shown: tuple[Path, RunResult], tmp_path: Path
) -> None:
    recipe, folders = recipe_of(workshop.values, *ASKED), shown[1].stages
    with pytest.raises(InputError, match=r"evaluation\.against\.other.*chooses what candidates show"):
        run(workshop.values, shown[0] / "runs", f"evaluation.against.other={shown[1].folder}", "seeds=[0]")
    asked = {"policy": {"kind": "display"}, "reward": {"kind": "log_softmax"}, "evaluation": {}}
    sweep = sweep_of(tmp_path, workshop.values | asked)
    with pytest.raises(InputError, match=r"sweep .*with policy\.kind display"):
        sweep.recipe()
    side = Side(CellConfig("cell", {"tiny": 1}), recipe, folders)
    with pytest.raises(InputError, match="crossing of cell"):
        cross(side, side, None, tmp_path, COMMAND, Recorder())
