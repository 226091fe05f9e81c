"""A whole run on a tiny model: what it writes, who met whom, what is opened and recorded, what may be published."""

import gzip
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from conftest import Finished, Workshop
from safetensors.torch import load_file
from tiny_run import Interrupts, Recorder, recipe_of, run

from recsys import contracts
from recsys.storage import file_hash, read_json, read_parquet
from verbalize.recipe_sections import BEST_SCRIPTED, LEARNED, START
from verbalize.report.ledger import assemble, load_claims, verify
from verbalize.stages import policy_controls
from verbalize.stages.baselines import VERBALIZER
from verbalize.stages.evaluate import SHUFFLED
from verbalize.stages.policy_controls import written
from verbalize.verbalizers.actions import KEEP_METADATA

STAGES = ["logs", "examples", "recommender", "templates", "pool", "warm_start", "train", "evaluate", "report"]
ON_TEST = "evaluation.split=test"
OPENED = (ON_TEST, "name=opened")
"""In the shared store, under a name of its own: the run that everybody looks at stays as it is."""


@pytest.fixture(scope="module")
def tested(workshop: Workshop, finished: Finished) -> tuple[Path, Recorder]:
    """The same recipe on test users, over the same store; and what was reported on the way."""
    recorder = Recorder()
    result = run(workshop.values, finished.runs, *OPENED, progress=recorder)
    return result.stages["evaluate"], recorder


def test_every_stage_runs_and_the_run_folder_is_complete(finished: Finished) -> None:
    assert finished.recorder.began() == STAGES == list(finished.result.stages)
    folder = finished.result.folder
    manifest = read_json(folder / "manifest.json")
    assert set(manifest["stages"]) == set(STAGES) and manifest["recipe"]["seeds"] == [0, 1]
    for stage, done in manifest["stages"].items():
        for name, facts in done["files"].items():
            assert file_hash(finished.result.stages[stage] / name) == facts["sha256"]
    html, console = (folder / "report.html").read_text(), (folder / "report.txt").read_text()
    assert console == finished.result.console and "tiny.vs_template" in console and LEARNED in console
    assert html.startswith("<!doctype html>") and "tiny.learned_margin" not in html.split("<main")[0]
    for curve in ("reward", "groups.dead_groups", "validation reward", "entropy"):
        assert f"<figcaption>{curve}</figcaption>" in html
    for sentence in ("Chosen on validation", "Shuffled texts", "Actions of seed", "Headroom of the pool"):
        assert sentence in html


def test_every_arm_ranked_the_same_targets_in_the_same_slates(finished: Finished) -> None:
    decisions = read_parquet(finished.result.stages["evaluate"] / "decisions.parquet")
    contracts.check(decisions, "decisions")
    asked = ["example_id", "user_id", "slate_index", "target_index"]
    arms = {
        key: part.select(asked).sort(asked) for key, part in decisions.group_by("verbalizer", "recommender", "seed")
    }
    trained, plain = "tiny-lm-likelihood-trained", "tiny-lm-likelihood"
    assert {(LEARNED, trained, 0), (LEARNED, trained, 1), (SHUFFLED, trained, 0)} <= set(arms)
    assert {("concatenation", trained, 0), ("concatenation", plain, 0)} <= set(arms)
    assert {(VERBALIZER, name, 0) for name in ("popularity", "item_knn", "ease", "logit")} <= set(arms)
    first = next(iter(arms.values()))
    assert len(first) == 6 * 2 and all(part.equals(first) for part in arms.values())
    assert decisions["scores"].list.len().unique().to_list() == [4]
    slates = read_parquet(finished.result.stages["examples"] / "slates.parquet")
    drawn = slates.select("example_id", "slate_index", "target_index")
    assert first.join(drawn, on=drawn.columns, how="semi").height == len(first)


def test_training_the_recommender_changed_what_it_says(finished: Finished) -> None:
    decisions = read_parquet(finished.result.stages["evaluate"] / "decisions.parquet")
    same = decisions.filter(pl.col("verbalizer") == "concatenation").sort("example_id", "slate_index")
    scores = [part["scores"].explode().to_numpy() for _, part in same.group_by("recommender", maintain_order=True)]
    assert len(scores) == 2 and abs(scores[0] - scores[1]).max() > 1e-4


def test_texts_and_margins_cover_every_arm_and_seed(finished: Finished) -> None:
    folder = finished.result.stages["evaluate"]
    texts = contracts.check(read_parquet(folder / "verbalizations.parquet"), "verbalizations")
    assert {LEARNED, f"{LEARNED}@1", SHUFFLED, "concatenation"} <= set(texts["verbalizer"])
    assert texts.group_by("verbalizer").len()["len"].unique().to_list() == [6]
    margins = read_parquet(folder / "margins.parquet")
    arms = {key: part["example_id"].sort() for key, part in margins.group_by("arm", "seed")}
    assert set(arms) == {(START, 0), (LEARNED, 0), (LEARNED, 1)}
    assert all(ids.equals(arms[START, 0]) for ids in arms.values()) and margins["value"].is_finite().all()


def test_no_user_both_chooses_and_reports_and_none_of_them_trained(finished: Finished, workshop: Workshop) -> None:
    folders = finished.result.stages
    users = {
        "trained": read_parquet(folders["pool"] / "decisions.parquet"),
        "chose": read_parquet(folders["templates"] / "decisions.parquet"),
        "reported": read_parquet(folders["evaluate"] / "decisions.parquet"),
    }
    ids = {name: set(frame["user_id"]) for name, frame in users.items()}
    assert all(ids.values())
    assert (
        not ids["trained"] & ids["chose"]
        and not ids["chose"] & ids["reported"]
        and not ids["trained"] & ids["reported"]
    )
    split = read_parquet(folders["examples"] / "examples.parquet").select("user_id", "split").unique()
    assert set(split.filter(pl.col("user_id").is_in(list(ids["trained"])))["split"]) == {"train"}
    assert set(split.filter(pl.col("user_id").is_in(list(ids["reported"])))["split"]) == {"validation"}


@pytest.mark.parametrize(
    ("overrides", "frames", "twins"), [([], 1, False), ([ON_TEST], 2, False), ([ON_TEST], 2, True)]
)
def test_learned_texts_are_written_once_per_policy_and_frame(
    workshop: Workshop,
    store_copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    frames: int,
    twins: bool,
) -> None:
    """On validation the evaluated examples are the report's; on test the report's are written besides. Seeds whose best
    checkpoint is where both began are one policy."""
    for folder in (store_copy / "artefacts" / "evaluate").iterdir():
        shutil.rmtree(folder)
    if twins:
        for train in (store_copy / "artefacts" / "train").iterdir():
            shutil.copytree(train / "seed-0" / "adapter", train / "seed-1" / "adapter", dirs_exist_ok=True)
    asked: list[tuple[str, int]] = []

    def counting(verbalizer: Any, inputs: pl.DataFrame, slots: Any) -> Any:
        asked.append((verbalizer.name, len(inputs)))
        return written(verbalizer, inputs, slots)

    monkeypatch.setattr(policy_controls, "written", counting)
    register = f"evaluation.register={store_copy / 'looks.json'}"
    result = run(workshop.values, store_copy, *overrides, register)
    policies = 1 if twins else len(workshop.values["seeds"])
    assert len(asked) == policies * frames + 1, asked  # and once the policy before reinforcement learning
    parts = result.stages["evaluate"] / "parts"
    for kind in ("texts-learned", "actions"):
        assert (read_json(parts / f"{kind}-0.json") == read_json(parts / f"{kind}-1.json")) or not twins


def test_a_second_time_everything_is_up_to_date(finished: Finished, workshop: Workshop) -> None:
    before = file_hash(finished.result.stages["report"] / "report.html")
    recorder = Recorder()
    again = run(workshop.values, finished.runs, progress=recorder)
    assert recorder.events == [(stage, "up to date") for stage in STAGES]
    assert again.stages == finished.result.stages and file_hash(again.stages["report"] / "report.html") == before


def test_test_users_only_are_ranked_under_test_and_only_evaluation_ran(
    tested: tuple[Path, Recorder], finished: Finished
) -> None:
    folder, recorder = tested
    assert recorder.began() == ["evaluate", "report"]
    decisions = read_parquet(folder / "decisions.parquet")
    split = read_parquet(finished.result.stages["examples"] / "examples.parquet")
    ranked = split.filter(pl.col("example_id").is_in(decisions["example_id"].unique().implode()))
    assert set(ranked["split"]) == {"test"} and len(ranked) == 12
    assert set(decisions["slate_index"]) == {0}  # test is ranked on the examples' own slates
    plan = read_json(folder / "plan.json")
    assert (
        plan["n"] == 12
        and plan["split"] == "test"
        and plan["claims"] == sorted(plan["claims"], key=plan["claims"].index)
    )


def test_looks_are_counted_once_per_configuration_and_the_second_shows(
    tested: tuple[Path, Recorder], workshop: Workshop, finished: Finished
) -> None:
    def looks() -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for entry in read_json(workshop.looks):
            found.setdefault(entry["claim_id"], []).append(entry["look"])
        return found

    claims = [claim.id for claim in recipe_of(workshop.values).evaluation.claims]
    assert looks() == {claim: [1] for claim in claims}
    rerun = run(workshop.values, finished.runs, *OPENED)
    assert looks() == {claim: [1] for claim in claims}
    assert "look 2" not in (rerun.folder / "report.html").read_text()

    changed = run(workshop.values, finished.runs, *OPENED, "evaluation.baselines=[popularity, logit]")
    assert looks() == {claim: [1, 2] for claim in claims}
    assert "look 2" in (changed.folder / "report.html").read_text()
    assert "test users were opened 2 times for tiny.vs_template" in changed.console


def test_a_look_that_was_interrupted_is_the_same_look(workshop: Workshop, store_copy: Path, tmp_path: Path) -> None:
    register = tmp_path / "looks.json"
    options = (ON_TEST, f"evaluation.register={register}", "evaluation.claims=[{id: a.b, statement: s}]")
    for number in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            run(workshop.values, store_copy, *options, progress=Interrupts("evaluate", number))
        assert [entry["look"] for entry in read_json(register)] == [1]  # registered before anything was ranked
    run(workshop.values, store_copy, *options)
    assert [entry["look"] for entry in read_json(register)] == [1]


def test_recorded_claims_verify_and_a_tampered_artefact_does_not(
    tested: tuple[Path, Recorder], workshop: Workshop, finished: Finished, tmp_path: Path
) -> None:
    run(workshop.values, finished.runs, *OPENED, record_in=tmp_path)
    claims = load_claims(tmp_path)
    assert set(claims) == {claim.id for claim in recipe_of(workshop.values).evaluation.claims}
    assert verify(tmp_path) == []
    assert claims["tiny.vs_template"].n == 12 and claims["tiny.vs_template"].seeds == (0, 1)
    assert claims["tiny.learned_margin"].n == 6

    artefact = tmp_path / claims["tiny.vs_template"].artefact
    lines = gzip.decompress(artefact.read_bytes()).decode().splitlines()
    ranks = [line.rpartition(",") for line in lines[1:]]
    better = [f"{head},1" if f",{LEARNED}/" in head else f"{head},{rank}" for head, _, rank in ranks]
    artefact.write_bytes(gzip.compress("\n".join([lines[0], *better, ""]).encode()))
    assert any(problem.where == "tiny.vs_template" for problem in verify(tmp_path))
    artefact.unlink()
    assert any("missing" in problem.what for problem in verify(tmp_path))


def test_a_claim_whose_evidence_is_too_small_is_entered_as_not_measured(
    workshop: Workshop, finished: Finished, tmp_path: Path
) -> None:
    """On three rankings an empty text hits nothing (ties are broken by the examples' ids, whatever the model): nothing
    is relative to 0."""
    claim = [{"id": "tiny.ratio", "statement": "s", "b": "best_constant", "relative": True}]
    values = workshop.values | {"name": "small"}
    few = ("constants=[drop_all]", "sample.report=3", "evaluation.shuffled=false")
    options = (f"evaluation.claims={json.dumps(claim)}", *few)
    result = run(values, finished.runs, *options, record_in=tmp_path)
    found = load_claims(tmp_path)["tiny.ratio"]
    assert found.status == "not measured" and found.value is None
    assert "finite" in found.note and "not measured" in result.console
    assert verify(tmp_path) == []


def test_nothing_of_the_log_is_in_what_may_be_committed(
    workshop: Workshop, finished: Finished, tested: tuple[Path, Recorder], tmp_path: Path
) -> None:
    result = run(workshop.values, finished.runs, *OPENED, "evaluation.example_browser=0", record_in=tmp_path)
    assemble(tmp_path)
    examples = read_parquet(result.stages["examples"] / "examples.parquet")
    private = {"Zyxwood", "quser", "qitem", *examples["example_id"]}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".gz"}
    shown = [gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in files]
    shown.append((result.folder / "report.html").read_bytes())
    for word in private:
        assert not any(word.encode() in content for content in shown), word
    browsing = (finished.result.stages["report"] / "report.html").read_text()
    assert "Zyxwood" in browsing  # the words are there where examples are shown, so their absence above means something


def test_the_rules_that_a_warm_start_imitates_can_be_an_arm(workshop: Workshop, store_copy: Path) -> None:
    """Validation chooses among them, as it does among templates; the policy is then compared with the best."""
    claim = json.dumps([{"id": "tiny.vs_rule", "statement": "Learned minus the rule", "b": BEST_SCRIPTED}])
    recorder = Recorder()
    options = ("scripted=[liked_only, recent_3]", f"evaluation.claims={claim}")
    result = run(workshop.values, store_copy, *options, progress=recorder)
    assert recorder.began() == ["templates", "evaluate", "report"]
    rule = read_json(result.stages["templates"] / "roles.json")[BEST_SCRIPTED]
    means = read_json(result.stages["templates"] / "done.json")["facts"]["mrr"]
    assert rule == max(("liked_only", "recent_3"), key=means.get)
    decisions = read_parquet(result.stages["evaluate"] / "decisions.parquet")
    ranked = {arm: set(decisions.filter(pl.col("verbalizer") == arm)["example_id"]) for arm in (rule, LEARNED)}
    assert ranked[rule] == ranked[LEARNED] != set()
    assert "Learned minus the rule" in result.console


def test_a_warm_start_on_single_events_scores_no_pool(workshop: Workshop, finished: Finished, store_copy: Path) -> None:
    values = workshop.values | {"warm_start": workshop.values["warm_start"] | {"effect_temperature": 0.02}}
    options = ("evaluation.claims=[]", "seeds=[0]", "train.steps=1")
    with pytest.raises(KeyboardInterrupt):
        run(values, store_copy, *options, progress=Interrupts("warm_start", 1))
    recorder = Recorder()
    result = run(values, store_copy, *options, progress=recorder)
    assert recorder.began() == ["warm_start", "train", "evaluate", "report"] and "pool" not in result.stages
    table = read_parquet(result.stages["effects"] / "effects.parquet")
    pool = read_parquet(finished.result.stages["pool"] / "rewards.parquet")
    assert set(table["example_id"]) == set(pool["example_id"])
    assert read_json(result.stages["effects"] / "done.json")["facts"]["events"] * 4 == len(table)
    kept = table.filter(pl.col("action") == KEEP_METADATA)
    assert kept["effect"].abs().max() == 0 and table["effect"].abs().max() > 0


def test_each_seed_may_have_a_warm_start_of_its_own(workshop: Workshop, store_copy: Path) -> None:
    values = workshop.values | {"warm_start": workshop.values["warm_start"] | {"each_seed": True}}
    options = ("evaluation.claims=[]", "train.steps=1", "train.learning_rate=1e-9")
    with pytest.raises(KeyboardInterrupt):
        run(values, store_copy, *options, progress=Interrupts("warm_start", 4))  # in the second seed's
    recorder = Recorder()
    result = run(values, store_copy, *options, progress=recorder)
    assert [done for name, done, *_ in recorder.steps if name == "warm_start"] == [4, 5, 6]
    assert read_parquet(result.stages["warm_start"] / "loss.parquet")["seed"].to_list() == [0] * 3 + [1] * 3
    first, second, *trained = (
        load_file(result.stages[stage] / f"seed-{seed}" / "adapter" / "adapter_model.safetensors")
        for stage in ("warm_start", "train")
        for seed in (0, 1)
    )
    for start, other, end in ((first, second, trained[0]), (second, first, trained[1])):
        assert all(torch.allclose(start[name], end[name], atol=1e-6) for name in end)
        assert any(not torch.allclose(other[name], end[name], atol=1e-3) for name in end)


def test_the_same_user_is_shown_under_every_arm(finished: Finished) -> None:
    html = (finished.result.stages["report"] / "report.html").read_text()
    first = html.split('<details class="example"')[1]
    for arm in (LEARNED, "concatenation", *read_json(finished.result.stages["templates"] / "roles.json").values()):
        assert arm in first
    assert html.count('<details class="example"') == 3


def test_a_run_asks_nothing_of_the_network(
    workshop: Workshop, store_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT looks base models up on a hub and TRL reports each training to its makers, unless they are kept from it."""
    asked: list[object] = []

    def refuse(host: object, *_: object, **__: object) -> None:
        asked.append(host)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("CI", raising=False)  # where TRL sends no telemetry anyway
    recorder = Recorder()
    run(workshop.values, store_copy, "warm_start.seed=5", "train.steps=1", "seeds=[0]", progress=recorder)
    assert recorder.began() == ["warm_start", "train", "evaluate", "report"] and asked == []
