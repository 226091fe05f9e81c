"""What a changed option makes run again: what depends on it, and nothing else."""

import json

import pytest
from conftest import Finished, Workshop
from tiny_run import COMMAND, Recorder, recipe_of, run

from recsys.storage import read_json
from verbalize.pipeline import stage_keys
from verbalize.stages import stages_of

ALL = ("logs", "examples", "recommender", "templates", "pool", "warm_start", "train", "evaluate", "report")
FROM_EXAMPLES, FROM_RECOMMENDER = ALL[1:], ALL[2:]
LEARNING = ("warm_start", "train", "evaluate", "report")
CLAIM = json.dumps([{"id": "other.claim", "statement": "another"}])


@pytest.mark.parametrize(
    ("override", "again"),
    [
        ("examples.history_max=5", FROM_EXAMPLES),
        ("examples.slate.size=5", FROM_EXAMPLES),
        ("reward.slates=3", FROM_EXAMPLES),
        ("recommender_training.examples=6", FROM_RECOMMENDER),
        ("recommender.cue='Up next:'", FROM_RECOMMENDER),
        ("candidates.fields=[title, year]", FROM_RECOMMENDER),
        ("templates=[titles, json]", ("templates", "evaluate", "report")),
        ("scripted=[liked_only]", ("templates", "evaluate", "report")),
        ("sample.train=5", ("pool", *LEARNING)),
        ("sample.report=5", ("templates", *LEARNING[1:])),
        ("sample.test=5", LEARNING[2:]),
        ("policy.lora.rank=8", LEARNING),
        ("warm_start.epochs=2", LEARNING),
        ("train.steps=4", LEARNING[1:]),
        ("seeds=[0]", LEARNING[1:]),
        ("limits.max_kl=1.0", LEARNING[1:]),
        ("evaluation.split=test", LEARNING[2:]),
        (f"evaluation.claims={CLAIM}", LEARNING[2:]),
        ("evaluation.shuffled=false", LEARNING[2:]),
        ("evaluation.example_browser=0", ("report",)),
        ("title=Another", ("report",)),
        ("tracking.project=elsewhere", ()),
    ],
)
def test_a_changed_option_changes_the_keys_of_what_depends_on_it(
    workshop: Workshop, override: str, again: tuple[str, ...]
) -> None:
    before = stage_keys(stages_of(recipe_of(workshop.values), COMMAND))
    after = stage_keys(stages_of(recipe_of(workshop.values, override), "verbalize run elsewhere.yaml"))
    assert [name for name in ALL if before[name] != after[name]] == list(again)


def test_the_bytes_of_the_log_count_not_where_they_lie(workshop: Workshop, tmp_path) -> None:
    for file in workshop.log.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    moved = recipe_of(workshop.values, f"source.path={tmp_path}")
    keys = [stage_keys(stages_of(recipe, COMMAND)) for recipe in (recipe_of(workshop.values), moved)]
    assert keys[0] == keys[1]
    with (tmp_path / "events.csv").open("a") as handle:
        handle.write("quser0000,qitem0000,5,1640000000\n")
    assert stage_keys(stages_of(moved, COMMAND))["logs"] != keys[0]["logs"]


def test_a_reworded_claim_makes_a_new_report_and_no_new_look(workshop: Workshop) -> None:
    first, *rest = workshop.values["evaluation"]["claims"]
    for change in ({"statement": "In other words"}, {"target": 0.5}, {"criterion": "value"}):
        claims = json.dumps([first | change, *rest])
        keys = [
            stage_keys(stages_of(recipe_of(workshop.values, *overrides), COMMAND))
            for overrides in ([], [f"evaluation.claims={claims}"])
        ]
        assert [name for name in ALL if keys[0][name] != keys[1][name]] == ["report"], change


def test_changed_claims_evaluate_and_report_again_and_nothing_is_trained(
    workshop: Workshop, finished: Finished
) -> None:
    recorder = Recorder()
    result = run(workshop.values, finished.runs, f"evaluation.claims={CLAIM}", "name=claims", progress=recorder)
    assert recorder.began() == ["evaluate", "report"]
    assert [entry["claim_id"] for entry in read_json(result.stages["report"] / "claims.json")] == ["other.claim"]
    kept = read_json(finished.result.stages["evaluate"] / "plan.json")["claims"]
    assert "other.claim" not in kept  # the earlier evaluation is untouched


def test_a_recipe_without_trained_recommender_and_warm_start_has_no_such_stages(workshop: Workshop) -> None:
    recipe = recipe_of(workshop.values, "recommender_training=null", "warm_start=null")
    names = [stage.name for stage in stages_of(recipe, COMMAND)]
    assert names == ["logs", "examples", "templates", "train", "evaluate", "report"]


def test_another_name_makes_its_own_report(workshop: Workshop, finished: Finished) -> None:
    """The report and the evidence bear the recipe's name: a renamed recipe may not publish under the old one."""
    result = run(workshop.values, finished.runs, "name=renamed")
    entries = read_json(result.stages["report"] / "claims.json")
    assert {entry["artefact"].rpartition("/")[2].partition(".")[0] for entry in entries if entry["artefact"]} == {
        "renamed"
    }
