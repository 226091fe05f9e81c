"""What the paper's table says of itself holds for the recipes it builds; nothing is run."""

import re
from pathlib import Path

import pytest

from verbalize.cli import main
from verbalize.recipe_sections import LEARNED
from verbalize.report.ledger import load_claims
from verbalize.tables.claims import write_claims
from verbalize.tables.planning import Planned, plan_table, reader_of
from verbalize.tables.run import State
from verbalize.tables.settings import Table, load_table
from verbalize.verbalizers.templates import TEMPLATES

ROOT = Path(__file__).parents[2]
FILE = "experiments/paper_table.yaml"


@pytest.fixture(scope="module")
def table() -> Table:
    return load_table(ROOT / FILE)


@pytest.fixture(scope="module")
def planned(table: Table) -> list[Planned]:
    return plan_table(table)


def of_set(planned: list[Planned], name: str) -> dict[str, Planned]:
    return {one.cell.id: one for one in planned if one.set == name}


def test_every_recipe_builds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["table", FILE, "--check"]) == 0 and "all of them build" in capsys.readouterr().out
    encoders = "experiments/encoder_table.yaml"
    assert main(["table", encoders, "--check"]) == 0 and "all of them build" in capsys.readouterr().out
    assert main(["table", FILE, "--check", "paired_seeds=true"]) == 0  # no reader becomes that of the texts it reads


def test_remedies_are_compared_on_validation_users(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which remedy deserves another look must not be read off test."""
    monkeypatch.chdir(ROOT)
    remedies = "experiments/remedies_table.yaml"
    assert main(["table", remedies, "--check"]) == 0 and "all of them build" in capsys.readouterr().out
    recipes = [recipe for one in plan_table(load_table(remedies)) for recipe in one.recipes]
    assert {recipe.evaluation.split for recipe in recipes} == {"validation"}


def test_tier_1_is_movielens_and_tier_3_the_others_with_three_seeds(planned: list[Planned]) -> None:
    learned = [one for one in planned if LEARNED in one.cell.arms]
    first = {one.cell.id for one in learned if one.tier == 1}
    assert {one.set for one in planned if one.tier == 1} == {"movielens"} and len(first) == 4
    for name in ("movietweetings", "simulator"):
        assert {one.cell.id for one in learned if one.tier == 3 and one.set == name} == first
    assert all(len(one.seeds) == 3 for one in learned if one.tier in (1, 3))


def test_every_learned_text_meets_a_recommender_it_was_not_trained_with_and_the_other_mode(
    table: Table, planned: list[Planned]
) -> None:
    """A crossing may be listed by a later cell, so it must run wherever the writer's cell runs."""
    for one in planned:
        if LEARNED not in one.cell.arms:
            continue
        others, (own, *_) = of_set(planned, one.set), one.recipes
        trained, modes = set(), set()
        for name, (owner, crossing) in table.config.crossings_of(one.cell.id).items():
            if owner.id not in others:
                continue
            reader = others[crossing.recommender or owner.id].at(0)
            if crossing.mode not in (None, own.recommender.mode):
                modes.add(crossing.mode)
            elif reader.recommender_training is not None and reader_of(reader) != reader_of(own):
                trained.add(name)
        assert trained and modes, one.name
        assert one.cell.gain_over is not None, f"{one.name}: nothing to measure a gain over"


def test_no_learned_text_was_ever_written_for_the_second_reader(planned: list[Planned]) -> None:
    for one in planned:
        second = of_set(planned, one.set)["second_reader"]
        assert second.cell.is_reader and second.recipes[0].recommender_training is not None
        if one is not second:
            assert all(reader_of(recipe) != reader_of(second.recipes[0]) for recipe in one.recipes), one.name


def test_cells_outside_the_claims_are_compared_with_a_parent(planned: list[Planned]) -> None:
    for one in planned:
        if one.tier in (2, 4) and one.cell.arms:
            assert one.cell.reference is not None, one.name
    parents = {one.cell.id: one.cell.compare_with for one in planned}
    assert parents["actions_g4"] == "actions_trained" and parents["rewrite_hit"] == "rewrite_trained"
    assert parents["rewrite_gepa"] == "rewrite_untrained" and parents["templates"] == "actions_untrained/concatenation"


def test_the_best_template_is_the_best_of_all_that_differ(planned: list[Planned]) -> None:
    for one in planned:
        (recipe, *_) = one.recipes
        assert recipe.examples.history_max <= 10  # up to here, recent_10 writes what titles does
        assert set(TEMPLATES) - set(recipe.templates) == {"recent_10", "recent_10_metadata"}, one.name


def test_recommenders_learn_from_learned_text_by_both_methods(planned: list[Planned]) -> None:
    cells = of_set(planned, "movielens")
    rounds = [cells[name].recipes[0].recommender_training for name in ("second_round", "second_round_grpo")]
    assert [training.method for training in rounds] == ["cross_entropy", "grpo"]
    assert all(training.learned and training.templates == () and not training.random_actions for training in rounds)


def test_a_rival_too_weak_to_reflect_leaves_a_null_claim_with_the_reason_on_every_set(
    table: Table, planned: list[Planned], tmp_path: Path
) -> None:
    state = State(table, planned)
    for name in ("movielens", "movietweetings", "simulator"):
        write_claims(state, name, None, tmp_path, "verbalize table")
    absent = State(table, [one for one in planned if one.set != "movietweetings"])
    absent.missing["movietweetings"] = "no folder of movietweetings was given"
    write_claims(absent, "movietweetings", None, tmp_path / "absent", "verbalize table")
    claims = load_claims(tmp_path)
    for name in ("movielens", "movietweetings", "simulator"):
        claim = claims[f"paper.{name}.rewrite_vs_gepa"]
        assert claim.value is None and "is not declared capable" in claim.note
    assert "no folder" in load_claims(tmp_path / "absent")["paper.movietweetings.rewrite_vs_gepa"].note


def test_the_reduced_setting_of_the_head_builds_with_all_seeds(planned: list[Planned]) -> None:
    head = (ROOT / FILE).read_text(encoding="utf-8").split("# Reduced:")[1].split("# Then n =")
    overrides = re.findall(r"overrides\.\S+=\S+", head[0])
    (n,) = re.findall(r"^ (\d+) rankings", head[1])
    reduced = plan_table(load_table(ROOT / FILE, overrides))
    assert len(overrides) == 1 and [one.name for one in reduced] == [one.name for one in planned]
    for small, full in zip(reduced, planned, strict=True):
        assert small.seeds == full.seeds and small.cell == full.cell
        assert small.recipes[0].sample.test == int(n) < full.recipes[0].sample.test
        assert small.recipes[0].train == full.recipes[0].train
        assert small.recipes[0].recommender_training == full.recipes[0].recommender_training
