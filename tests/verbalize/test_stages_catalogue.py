"""Runs that pay for, or report, the target's place in the whole catalogue: stages, keys, refusals, what they leave."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Workshop
from tiny_run import COMMAND, Interrupts, Recorder, recipe_of, run

from recsys.catalogue_decisions import METRICS
from recsys.errors import InputError
from recsys.evaluation import aligned_texts
from recsys.logs.eligible import Eligible
from recsys.metrics import rank_of_target
from recsys.storage import read_json, read_parquet, write_json
from verbalize.optimize.rewards import CATALOGUE
from verbalize.pipeline import Context, stage_keys
from verbalize.report.console import render_console
from verbalize.report.data import ReportData
from verbalize.report.html import render_html
from verbalize.report.sets import combined
from verbalize.report.store import FILE, load
from verbalize.report.tables import frames_of
from verbalize.runs import RunResult
from verbalize.stages import full_catalogue, samples, stages_of
from verbalize.stages.log_files import load_log
from verbalize.stages.recommender import open_recommender

WHOLE = "evaluation.full_catalogue=true"
UNTRAINED = ("recommender_training=null", "evaluation.untrained=[]", "evaluation.claims=[]")
SMALL = ("sample.train=2", "sample.selection=4", "sample.report=8", "seeds=[0, 1]", "train.steps=1")
BASELINES = "evaluation.baselines=[popularity, item_knn, ease]"


def by_encoder(workshop: Workshop, *more: str) -> tuple[str, ...]:
    """The tiny model's hidden states, averaged, stand in for a sentence encoder."""
    encoder = f"recommender.embedding={{model: {workshop.model}, max_tokens: 2000}}"
    reward = f"reward={{kind: {CATALOGUE}, slates: 1}}"
    return (*UNTRAINED, *SMALL, BASELINES, "recommender.mode=embedding", encoder, reward, *more)


@pytest.fixture(scope="module")
def dense(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """Trained by the reward on the catalogue and evaluated on slates alone."""
    runs = tmp_path_factory.mktemp("dense")
    return runs, run(workshop.values, runs, *by_encoder(workshop))


@pytest.fixture(scope="module")
def whole(workshop: Workshop, dense: tuple[Path, RunResult]) -> tuple[RunResult, Recorder]:
    """The same recipe asked for the whole catalogue afterwards, killed once on its way."""
    overrides = by_encoder(workshop, WHOLE)
    with pytest.raises(KeyboardInterrupt):
        run(workshop.values, dense[0], *overrides, progress=Interrupts(full_catalogue.STAGE, 3))
    recorder = Recorder()
    return run(workshop.values, dense[0], *overrides, progress=recorder), recorder


def test_recipes_that_do_not_ask_keep_their_keys(workshop: Workshop) -> None:
    before = stages_of(recipe_of(workshop.values), COMMAND)
    after = stages_of(recipe_of(workshop.values, WHOLE), COMMAND)
    assert [stage.name for stage in after] == [*(stage.name for stage in before[:-1]), full_catalogue.STAGE, "report"]
    assert not any("catalogue" in repr(stage.config) for stage in before)  # so keys are those of before it existed
    keys, others = stage_keys(before), stage_keys(after)
    assert [name for name in keys if keys[name] != others[name]] == ["report"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((f"reward.kind={CATALOGUE}",), ["recommender.mode likelihood", "recommender.mode: embedding", "log_softmax"]),
        ((WHOLE, "evaluation.baselines=[]"), ["no baselines", "evaluation.baselines"]),
    ],
)
def test_what_only_an_encoder_affords_is_refused_before_anything_runs(
    workshop: Workshop, overrides: tuple[str, ...], words: list[str]
) -> None:
    quiet = "evaluation.claims=[]"
    with pytest.raises(InputError) as refusal:
        recipe_of(workshop.values, quiet, *overrides)
    assert all(word in str(refusal.value) for word in words)
    assert recipe_of(workshop.values, quiet, WHOLE).evaluation.full_catalogue  # baselines alone can be asked for


def test_pool_and_training_are_paid_by_the_whole_catalogue(workshop: Workshop, dense: tuple[Path, RunResult]) -> None:
    """Each reward again, by the definition: log softmax over what competes, of the scores of a slate that holds all."""
    _, result = dense
    recipe = recipe_of(workshop.values, *by_encoder(workshop))
    recommender = open_recommender(recipe, result.stages)
    examples = samples.training_sample(recipe, result.stages["examples"])
    eligible = Eligible(examples, load_log(result.stages["logs"]))
    rollouts = pl.concat(pl.read_ndjson(path) for path in sorted(result.stages["train"].rglob("rollouts/step-*.jsonl")))
    assert len(rollouts) == 2 * 2 * 4 and rollouts["reward"].n_unique() > 4
    for example_id, text, reward, component in rollouts.select("example_id", "text", "reward", CATALOGUE).iter_rows():
        row = eligible.row_of[example_id]
        slate = np.array(eligible.item_ids)[eligible.allowed(row)].tolist()
        (scores,) = recommender.score_texts([text], [slate])
        own = scores[slate.index(eligible.item_ids[eligible.targets[row]])]
        assert reward == component == pytest.approx(own - np.logaddexp.reduce(scores), abs=1e-3)
    pooled = read_parquet(result.stages["pool"] / "rewards.parquet")
    assert pooled["reward"].max() < 0 and pooled["reward"].n_unique() > 4  # type: ignore[operator]


def test_asking_later_writes_no_text_and_ranks_no_slate_again(
    dense: tuple[Path, RunResult], whole: tuple[RunResult, Recorder]
) -> None:
    result, recorder = whole
    assert recorder.began() == [full_catalogue.STAGE, "report"]
    assert (full_catalogue.STAGE, "resumes") in recorder.events
    for name, folder in dense[1].stages.items():
        assert (result.stages[name] == folder) == (name != "report")


def test_every_arm_ranks_every_target_among_all_that_competes(
    workshop: Workshop, whole: tuple[RunResult, Recorder]
) -> None:
    result, _ = whole
    recipe = recipe_of(workshop.values, *by_encoder(workshop, WHOLE))
    ranks = read_parquet(result.stages[full_catalogue.STAGE] / full_catalogue.RANKS)
    decided = read_parquet(result.stages["evaluate"] / "decisions.parquet")
    arms = ["verbalizer", "recommender", "seed"]
    assert set(ranks.select(arms).unique().rows()) == set(decided.select(arms).unique().rows())
    assert {(*arm, 8) for arm in ranks.select(arms).unique().rows()} == set(ranks.group_by(arms).len().rows())
    assert {"popularity", "item_knn", "ease"} < set(ranks["recommender"]) and {0, 1} == set(ranks["seed"])

    context = Context(result.folder, result.stages)
    examples = full_catalogue.evaluated(recipe, context)
    eligible = Eligible(examples, load_log(result.stages["logs"]))
    recommender = open_recommender(recipe, result.stages)
    texts = aligned_texts(examples, read_parquet(result.stages["evaluate"] / "verbalizations.parquet"), "learned@1")
    mine = ranks.filter(verbalizer="learned", seed=1)
    for row, (example_id, text) in enumerate(zip(examples["example_id"], texts, strict=True)):
        slate = np.array(eligible.item_ids)[eligible.allowed(row)].tolist()
        (scores,) = recommender.score_texts([text], [slate])
        target = slate.index(examples["target_item_id"][row])
        found, size = mine.filter(example_id=example_id).select("rank", "slate_size").row(0)
        assert size == len(slate) > 50
        close = np.abs(np.delete(scores, target) - scores[target]) < 1e-3  # last bits may order near ties
        assert abs(found - rank_of_target(scores, target, example_id)) <= int(close.sum())


def test_the_report_has_its_table_and_says_who_competed(whole: tuple[RunResult, Recorder]) -> None:
    folder = whole[0].stages["report"]
    report = load(folder / FILE)
    assert report.catalogue["metric"].unique(maintain_order=True).to_list() == list(METRICS)
    page, text = ((folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.txt"))
    assert render_html(report) == page and render_console(report) == text
    assert '<h2 id="catalogue">' in page and "Recall@50" in page and "Recall@50" in text
    assert re.search(r"Whole catalogue: each target among all .* of 80\.", text)
    best = report.catalogue.filter(metric="ndcg@10").sort("value", descending=True).row(0, named=True)
    shown = text.partition("among the whole catalogue")[2].splitlines()[2]
    assert f"{best['verbalizer']} × {best['recommender']}" in shown and f"{best['value']:.3f}" in shown
    assert len(frames_of(report)["catalogue"]) == len(report.catalogue)
    together = combined({"one": report, "none": ReportData("Nothing yet")}).catalogue
    assert together["value"].to_list() == report.catalogue["value"].to_list()
    assert together["verbalizer"].to_list() == [f"one: {name}" for name in report.catalogue["verbalizer"]]


def test_a_report_without_the_table_and_one_from_before_it_existed_are_whole(
    dense: tuple[Path, RunResult], tmp_path: Path
) -> None:
    folder = dense[1].stages["report"]
    assert "whole catalogue" not in (folder / "report.txt").read_text(encoding="utf-8").lower()
    stored = read_json(folder / FILE)
    del stored["catalogue"]
    write_json(stored, tmp_path / FILE)
    assert render_html(load(tmp_path / FILE)) == (folder / "report.html").read_text(encoding="utf-8")
    assert "catalogue" not in frames_of(ReportData("Nothing yet"))
