"""A small table on test users from end to end: tiers, a kill, crossings, claims that are recomputed, looks."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from conftest import Workshop
from tiny_run import Interrupts, Recorder, write_recipe

from recsys.comparison import compare, summarise
from recsys.errors import InputError
from recsys.outcomes import Arm
from recsys.storage import read_json, read_parquet
from verbalize.cli import main
from verbalize.report.artefacts import read_artefact
from verbalize.report.data import Shown
from verbalize.report.estimators import estimate
from verbalize.report.ledger import assemble, load_claims, verify
from verbalize.tables.comparisons import blind_readers, compared, crossed_gains, reading_of
from verbalize.tables.report import summary
from verbalize.tables.results import decisions_of_set
from verbalize.tables.run import FOLDER, folder_of_table, run_table
from verbalize.tables.settings import Table, load_table

COMMAND = "verbalize table experiments/tiny_table.yaml"
ZERO_SHOT = {  # a rewriter whose instruction stays: the cheapest verbalizer with everything a learned one has
    "policy": {"kind": "rewrite", "rewrite": {"instruction": "Summarise.", "max_new_tokens": 5, "max_events": 2}},
    "warm_start": None,
    "gepa": {"calls": 0},
    "seeds": [0],
}


def claim(name: str, a: str, b: str, **more: Any) -> dict[str, Any]:
    return {"id": f"tiny.{{set}}.{name}", "statement": f"{name} on {{set}}", "sets": ["made"], "a": a, "b": b} | more


def table_of(workshop: Workshop, folder: Path, *overrides: str) -> Table:
    values: dict[str, Any] = {
        "name": "tiny_table",
        "register": str(folder / "looks.json"),
        "overrides": ZERO_SHOT | {"evaluation": {"split": "test"}},
        "sets": {
            "made": {"recipe": "tiny.yaml"},
            "absent": {"recipe": "tiny.yaml", "given": True, "origin": "a public shelf"},
        },
        "cells": [
            {
                "id": "plain",
                "tiers": {"made": 1, "absent": 2},
                "arms": ["learned", "learned_shuffled", "concatenation", "best_template"],
                "overrides": {"recommender_training": None, "seeds": [0, 1]},
            },
            {"id": "reader", "tiers": {"made": 2}, "arms": [], "overrides": {"recommender_training.seed": 5}},
            {
                "id": "taught",
                "tiers": {"made": 2},
                "arms": ["learned", "best_template", "ease"],
                "learns_from": "plain",
                "overrides": {"recommender_training": {"templates": [], "random_actions": 0.0}},
                "crossed": [{"texts": "plain"}, {"mode": "listwise"}, {"recommender": "reader"}],
                "compare_with": "plain",
            },
        ],
        "finalists": {"best": ["plain", "taught"]},
        "claims": [
            claim("text", "plain/learned", "plain/best_template"),
            claim("full", "plain/learned@taught", "plain/concatenation", target=0.93, criterion="value"),
            claim("shuffled", "plain/learned", "plain/best_template", kind="surviving_share"),
            claim("elsewhere", "plain/learned", "plain/concatenation", sets=["absent"]),
            {"statement": "best", "sets": ["made"], "a": "best/learned", "b": "taught/ease"},
        ],
    }
    write_recipe(workshop.values, folder / "tiny.yaml")
    (folder / "table.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return load_table(folder / "table.yaml", overrides)


def test_tiers_run_resume_after_a_kill_are_recorded_and_verify(workshop: Workshop, tmp_path: Path) -> None:
    table, runs, repository = table_of(workshop, tmp_path), tmp_path / "runs", tmp_path / "repository"
    with pytest.raises(KeyboardInterrupt):  # in the second tier, where a recommender is trained
        run_table(table, runs, COMMAND, Interrupts("recommender", 1), record_in=repository)
    first = load_claims(repository)
    assert first["tiny.made.text"].value is not None and first["tiny.made.text"].n == 12
    assert first["tiny.made.full"].note.endswith("taught on made belongs to tier 2, which has not been carried out")
    assert "no folder of absent was given: data=PATH (a public shelf)" in first["tiny.absent.elsewhere"].note

    recorder = Recorder()
    state = run_table(table, runs, COMMAND, recorder, record_in=repository)
    began = recorder.began()
    assert began.count("recommender") == 2 and began.count("crossed") == 3 and "logs" not in began
    assert set(state.done) == {("made", "plain"), ("made", "reader"), ("made", "taught")} and not state.refused
    alone = state.done["made", "reader"]  # its recommender is trained, and nothing else
    assert set(alone.folders[0]) == {"logs", "examples", "recommender"} and alone.crossed == ({},)

    # Every number follows from the committed evidence, and equals the comparison of the decisions themselves.
    claims = load_claims(repository)
    assert [str(problem) for problem in verify(repository)] == []
    full = claims["tiny.made.full"]
    assert full.value is not None and full.status == "missed"
    evidence = read_artefact(repository / claims["tiny.made.text"].artefact)
    assert set(evidence["arm"]) >= {"plain/learned", "plain/best_template"} and len(set(evidence["user"])) > 1
    stages = state.done["made", "plain"].folders[0]
    decisions = read_parquet(stages["evaluate"] / "decisions.parquet")
    roles, reader = read_json(stages["templates"] / "roles.json"), "tiny-lm-likelihood"
    direct = compare(decisions, Arm("learned", reader), Arm(roles["best_template"], reader))
    assert claims["tiny.made.text"].value == pytest.approx(direct.value, abs=1e-6)

    # The frozen texts were read by the recommender that learned from them, not by their own again.
    read = read_parquet(state.done["made", "taught"].crossed[0]["plain", "taught"] / "decisions.parquet")
    assert set(read["recommender"]) == {"tiny-lm-likelihood-trained"} and len(set(read["example_id"])) == 12
    own = decisions.filter(pl.col("verbalizer") == "learned").sort("example_id")
    other = read.filter(pl.col("verbalizer") == "learned").sort("example_id")
    assert own["target_index"].equals(other["target_index"]) and not own["scores"].equals(other["scores"])

    assert set(read["verbalizer"]) == {"learned", "best_template"}  # not every arm: what shows a gain
    second = read_parquet(state.done["made", "taught"].crossed[0]["taught", "reader"] / "decisions.parquet")
    assert set(second["recommender"]) == {"tiny-lm-likelihood-trained"}
    trained = read_parquet(state.done["made", "taught"].folders[0]["evaluate"] / "decisions.parquet")
    mine = trained.filter(pl.col("verbalizer") == "learned", pl.col("recommender") == "tiny-lm-likelihood-trained")
    theirs = second.filter(pl.col("verbalizer") == "learned")
    assert not mine.sort("example_id")["scores"].equals(theirs.sort("example_id")["scores"])

    folder = runs / FOLDER / "tiny_table"
    console = (folder / "report.txt").read_text(encoding="utf-8")
    assert "best is " in console and "MRR on selection users" in console and "taught/learned@listwise" in console
    assert "plain/learned" in (folder / "tables" / "arms.csv").read_text(encoding="utf-8")
    assert "taught/learned@reader" in (folder / "tables" / "arms.csv").read_text(encoding="utf-8")
    # A cell beside the claims against the one it names: paired over the seed that both have.
    label = "taught: learned − learned of plain, seed 0"
    assert label in (folder / "report.html").read_text(encoding="utf-8") and label in " ".join(console.split())
    assert label in (folder / "tables" / "comparisons.csv").read_text(encoding="utf-8")
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    json.dumps(summary(state))

    # Looks: one of each claim and one of each cell; resuming was none.
    looks = read_json(tmp_path / "looks.json")
    assert {look["look"] for look in looks} == {1}
    assert {look["claim_id"] for look in looks} >= {"tiny.made.text", "tiny.made.full", "tiny_table.made.taught"}

    # A claim that was measured is not lost to a later run that stops before it.
    run_table(table, runs, COMMAND, Recorder(), up_to=1, record_in=repository)
    assert load_claims(repository)["tiny.made.full"].value == full.value
    assemble(repository)

    # Asked for one data set alone, a table neither runs the others nor speaks of them.
    recorder = Recorder()
    asked = table_of(workshop, tmp_path, "only=[made]")
    run_table(asked, runs, COMMAND, recorder, up_to=1, record_in=tmp_path / "one_set")
    assert not recorder.began() and {claim.split(".")[1] for claim in load_claims(tmp_path / "one_set")} == {"made"}


def test_other_readers_may_be_given_fewer_examples_and_gains_are_compared_on_these(
    workshop: Workshop, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="plain/learned@taught: is given to another reader on 5 examples only"):
        table_of(workshop, tmp_path, "crossed_examples=5")
    cell = {
        "id": "plain",
        "tiers": {"made": 1},
        "arms": ["learned", "best_template"],
        "crossed": [{"mode": "listwise"}],
    }
    cells = json.dumps([cell | {"overrides": {"recommender_training": None}}])
    table = table_of(workshop, tmp_path, "crossed_examples=5", f"cells={cells}", "claims=[]", "finalists={}")
    state = run_table(table, tmp_path / "runs", COMMAND, Recorder(), formats=("png",))
    picture = folder_of_table(tmp_path / "runs", table.config.name) / "figures" / "made" / "arms.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    [done] = state.done.values()
    read = read_parquet(done.crossed[0]["plain", "listwise"] / "decisions.parquet")
    own = read_parquet(done.folders[0]["evaluate"] / "decisions.parquet")
    asked = own["example_id"].unique(maintain_order=True).to_list()
    assert set(read["example_id"]) == set(asked[:5]) and len(asked) == 12
    decisions = decisions_of_set(state, "made")
    assert decisions is not None
    gains = crossed_gains(state, "made", decisions)["plain"]
    assert {name: one.comparison.n for name, one in gains.items()} == {"": 5, "listwise": 5}
    assert compared(decisions, "plain/learned", "plain/best_template").n == 12


def test_the_command_checks_and_refuses(workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table_of(workshop, tmp_path)
    path = str(tmp_path / "table.yaml")
    assert main(["table", path, "--check"]) == 0 and "4 cells, 4 recipes" in capsys.readouterr().out
    assert main(["table", path, "--tier", "0", "--check"]) == 2
    assert main(["table", path, "--formats", "gif"]) == 2, "at once, not after the first tier"
    assert main(["table", path, "cells=[]", "nme=x", "--check"]) == 2 and "did you mean name" in capsys.readouterr().err


def test_other_files_than_those_the_table_was_written_for_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    table = table_of(workshop, tmp_path, f"data={workshop.log}", 'sets.absent.sha256={"events.csv": "00"}')
    with pytest.raises(InputError, match=r"events\.csv with sha256 .*is not the file"):
        run_table(table, tmp_path / "runs", COMMAND, Recorder())


def outcomes(values: dict[str, list[int]]) -> pl.DataFrame:
    """Ranks of arms over 60 users with one example each: 1 where the list, repeated, has a 1, else 2."""
    rows = [
        {
            "example": f"e{i}",
            "user": f"u{i}",
            "arm": arm,
            "seed": 0,
            "slate": 0,
            "size": 10,
            "rank": 2 - ones[i % len(ones)],
        }
        for arm, ones in values.items()
        for i in range(60)
    ]
    return pl.DataFrame(rows)


def test_the_surviving_share_is_measured_where_there_is_a_gain_and_refused_where_not() -> None:
    table = outcomes({"learned": [1, 1, 1, 1], "shuffled": [1, 1, 0, 0], "template": [1, 0, 0, 0]})
    names = {"learned": "learned", "shuffled": "shuffled", "baseline": "template"}
    found = estimate("surviving_share", table, names)
    assert found.value == pytest.approx(1 / 3) and 0 < found.low < found.value < found.high < 1 and found.n == 60
    with pytest.raises(InputError, match="no share of it to survive"):
        estimate("surviving_share", table, names | {"learned": "shuffled", "baseline": "learned"})


def decisions_of(values: dict[str, list[int]], seed: int = 0) -> pl.DataFrame:
    """`outcomes` as decisions of a table."""
    names = {"example": "example_id", "user": "user_id", "arm": "verbalizer", "size": "slate_size"}
    renamed = outcomes(values).rename(names | {"slate": "slate_index"})
    return renamed.with_columns(recommender=pl.lit(""), seed=pl.lit(seed, pl.Int64))


def test_learned_texts_are_compared_over_the_seeds_given() -> None:
    lucky, usual = {"a/learned": [1, 1, 1, 0]}, {"a/learned": [1, 0, 0, 0], "b/learned": [1, 1, 0, 0]}
    table = pl.concat([decisions_of(usual, seed=0), decisions_of(lucky, seed=1)])
    common, all_seeds = compared(table, "a/learned", "b/learned", seeds=[0]), compared(table, "a/learned", "b/learned")
    assert common.difference == pytest.approx(-0.25) and set(common.per_seed_a) == {0}
    assert all_seeds.difference == pytest.approx(0.0) and common.users == all_seeds.users == 60
    assert common.low < -0.25 < common.high < 0


def gain(low: float, high: float) -> Shown:
    found = compare(decisions_of({"learned": [1, 0], "template": [0, 1]}), Arm("learned", ""), Arm("template", ""))
    return Shown("", dataclasses.replace(found, low=low, high=high))


def test_a_gain_that_not_every_reader_sees_is_called_specific() -> None:
    seen, unseen = gain(0.01, 0.1), gain(-0.1, 0.1)
    assert "seen by every reader" in reading_of({"": seen, "listwise": gain(0.02, 0.1)})
    assert reading_of({"": seen, "other": unseen}).startswith("the gain is specific to its own recommender")
    assert reading_of({"": unseen, "listwise": unseen}).startswith("no reader shows a gain")


def test_a_gain_in_one_answering_mode_only_is_called_mode_specific() -> None:
    seen, unseen = gain(0.01, 0.1), gain(-0.1, 0.1)
    found = reading_of({"": seen, "other": seen, "listwise": unseen})
    assert found.startswith("the gain is specific to its own recommender, other (") and "Mode-specific" in found
    assert "Mode-specific" in reading_of({"": seen, "other+listwise": unseen}, {"other+listwise"})
    assert "Mode-specific" not in reading_of({"": seen, "listwise": seen, "other": unseen})


def test_a_reader_at_chance_makes_no_gain_specific() -> None:
    seen, unseen = gain(0.01, 0.1), gain(-0.1, 0.1)
    found = reading_of({"": seen, "other": seen, "bare": unseen}, {"bare"})
    assert found.startswith("the gain is seen by every reader that does better than chance: its own recommender, other")
    assert found.count("at chance with both texts") == 1
    assert "and no other reader does better than chance" in reading_of({"": seen, "bare": unseen}, {"bare"})
    assert reading_of({"": seen, "other": unseen, "bare": unseen}, {"bare"}).startswith("the gain is specific to")


def test_readers_at_chance_are_those_that_read_neither_text() -> None:
    chance = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]  # of ten candidates
    sides = {"c/learned": [1, 1, 0], "c/titles": [1, 0, 0]}
    sides |= {
        "c/learned@bare": chance,
        "c/titles@bare": chance[::-1],
        "c/learned@half": [1, 0],
        "c/titles@half": chance,
    }
    table = decisions_of(sides)
    readers = {"": "", "bare": "@bare", "half": "@half"}
    gains = {name: Shown("", compared(table, f"c/learned{at}", f"c/titles{at}")) for name, at in readers.items()}
    assert blind_readers(gains, summarise(table, ["recall@1", "mrr"])) == {"bare"}
