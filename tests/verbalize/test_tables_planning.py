"""A table file becomes recipes: merging, refusals, what cells of a data set must share; nothing is run."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_run import recipe_values, write_recipe

from recsys.errors import InputError
from verbalize.tables.names import parts_of
from verbalize.tables.planning import left_out, plan_table, reader_of
from verbalize.tables.settings import Table, assignments, load_table

A = {"id": "a", "tiers": {"tiny": 1}}
B = {"id": "b", "tiers": {"tiny": 1}}


def table_values(**changes: Any) -> dict[str, Any]:
    """Two cells on one data set, a third that learns from the first's texts, a data set that waits."""
    return {
        "name": "tiny_table",
        "sets": {"tiny": {"recipe": "tiny.yaml"}, "later": {"recipe": "tiny.yaml", "given": True, "origin": "a shelf"}},
        "cells": [
            {"id": "bare", "tiers": {"tiny": 1, "later": 2}, "overrides": {"recommender_training": None}},
            {
                "id": "trained",
                "tiers": {"tiny": 1},
                "arms": ["learned", "concatenation", "ease"],
                "crossed": [{"recommender": "bare"}, {"mode": "listwise"}, {"texts": "bare"}],
            },
            {"id": "taught", "tiers": {"tiny": 2}, "learns_from": "bare"},
        ],
        "claims": [
            {
                "id": "tiny.{set}.text",
                "statement": "Text on {set}",
                "sets": ["tiny"],
                "a": "best/learned",
                "b": "trained/concatenation",
            }
        ],
        "finalists": {"best": ["bare", "trained"]},
    } | changes


def table_of(folder: Path, *overrides: str, **changes: Any) -> Table:
    write_recipe(recipe_values(folder / "log", folder / "no-model", folder), folder / "tiny.yaml")
    (folder / "table.yaml").write_text(yaml.safe_dump(table_values(**changes), sort_keys=False), encoding="utf-8")
    return load_table(folder / "table.yaml", overrides)


def test_cells_are_recipes_in_the_order_of_tiers(tmp_path: Path) -> None:
    planned = plan_table(table_of(tmp_path, "overrides.train.steps=3", "sets.tiny.overrides.seeds=[7]"))
    assert [(one.tier, one.name) for one in planned] == [
        (1, "tiny.bare"),
        (1, "tiny.trained"),
        (2, "tiny.taught"),
        (2, "later.bare"),
    ]
    (recipe,) = planned[1].recipes
    assert recipe.train.steps == 3 and recipe.train.group_size == 4 and recipe.seeds == (7,)
    assert recipe.evaluation.templates == ("concatenation",) and recipe.evaluation.baselines == ("ease",)
    assert (
        not recipe.evaluation.shuffled and recipe.evaluation.claims == () and recipe.name == "tiny_table.tiny.trained"
    )
    assert planned[0].recipes[0].recommender_training is None
    assert planned[2].recipes[0].recommender_training.learned.endswith("seed-7")


def test_every_cell_on_test_users_takes_a_look_of_its_own(tmp_path: Path) -> None:
    planned = plan_table(table_of(tmp_path, "overrides.evaluation.split=test", "register=looks.json"))
    for one in planned:
        (claim,) = one.recipes[0].evaluation.claims
        assert claim.id == f"tiny_table.{one.name}" and one.recipes[0].evaluation.register == "looks.json"


def test_paired_seeds_train_a_recommender_each(tmp_path: Path) -> None:
    bare, trained, taught, _ = plan_table(table_of(tmp_path, "paired_seeds=true"))
    assert [recipe.seeds for recipe in bare.recipes] == [(0, 1)]  # it trains no recommender
    assert [(recipe.seeds, recipe.recommender_training.seed) for recipe in trained.recipes] == [((0,), 0), ((1,), 1)]
    assert len({recipe.name for recipe in trained.recipes}) == 2
    assert [Path(recipe.recommender_training.learned).name for recipe in taught.recipes] == ["seed-0"] * 2


def test_a_set_that_is_not_given_waits_and_is_checked_all_the_same(tmp_path: Path) -> None:
    assert list(left_out(table_of(tmp_path))) == ["later"] and not left_out(table_of(tmp_path, "data=/some/where"))
    (later,) = [one for one in plan_table(table_of(tmp_path, "data=/some/where")) if one.set == "later"]
    assert later.recipes[0].source.path == "/some/where"


def test_only_the_sets_asked_for_are_carried_out_and_all_are_checked(tmp_path: Path) -> None:
    table = table_of(tmp_path, "only=[later]", "data=/some/where")
    assert left_out(table) == {"tiny": "only later is asked for"}
    assert {one.set for one in plan_table(table)} == {"tiny", "later"}  # without a store: a check
    assert {one.set for one in plan_table(table, tmp_path)} == {"later"}
    with pytest.raises(InputError, match="only: set nowhere"):
        table_of(tmp_path, "only=[nowhere]")


@pytest.mark.parametrize(
    ("overrides", "wrong"),
    [
        ({"cells": [{"id": "a", "tiers": {"tiny": 1}, "learns_from": "b"}]}, "earlier cell b"),
        ({"cells": [{"id": "a", "tiers": {"tiny": 1}, "crossed": [{}]}]}, "is no pair"),
        ({"cells": [{"id": "a", "tiers": {"tiny": 1}, "crossed": [{"mode": "aloud"}]}]}, "mode 'aloud'"),
        ({"cells": [{"id": "a", "tiers": {"tyny": 1}}]}, "set tyny"),
        ({"cells": [{"id": "A", "tiers": {"tiny": 1}}]}, "lower-case"),
        ({"finalists": {"best": ["nobody"]}}, "nobody"),
        ({"finalists": {"bare": ["trained"]}}, "names a cell"),
        ({"claims": [{"statement": "s", "sets": ["tiny"], "a": "bare", "b": "bare/learned"}]}, "is written cell/arm"),
        ({"claims": [{"statement": "s", "sets": ["tiny"], "a": "bare/ease", "b": "bare/learned"}]}, "arm of bare ease"),
        (
            {"claims": [{"statement": "s", "sets": ["tiny"], "a": "bare/learned@taught", "b": "bare/learned"}]},
            "reader of bare taught",
        ),
        ({"cells": [A | {"arms": [], "crossed": [{"mode": "listwise"}]}]}, "no texts of its own"),
        ({"cells": [A | {"arms": []}, B | {"crossed": [{"texts": "a"}]}]}, "texts a: is a reader"),
        ({"cells": [A | {"arms": []}, B | {"learns_from": "a"}]}, "learns_from a: is a reader"),
        ({"cells": [A | {"arms": []}, B | {"compare_with": "a"}]}, "arm of a learned"),
        ({"cells": [A | {"compare_with": "b"}, B]}, "earlier cell b"),
        ({"cells": [A | {"compare_with": "a"}]}, "is the arm itself"),
        ({"cells": [A, B | {"compare_with": "a/ease"}]}, "arm of a ease"),
        ({"cells": [A, B | {"compare_with": "a/learned@b"}]}, "names a crossing"),
        (
            {
                "cells": [A | {"arms": ["learned", "titles"], "crossed": [{"mode": "listwise"}]}],
                "claims": [{"statement": "s", "sets": ["tiny"], "a": "a/titles@listwise", "b": "a/learned"}],
            },
            "given to other readers titles",
        ),
        (
            {"claims": [{"id": "a.b", "statement": "s", "sets": ["tiny", "later"], "a": "x/y", "b": "x/y"}]},
            "one id for several",
        ),
    ],
)
def test_a_table_that_cannot_mean_anything_is_refused(tmp_path: Path, overrides: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InputError, match=wrong):
        table_of(tmp_path, **({"claims": [], "finalists": {}} | overrides))


def test_cells_that_would_rank_other_things_are_refused_by_name(tmp_path: Path) -> None:
    for key, value in (("examples.slate.size", 5), ("sample.test", 3), ("candidates.fields", ["title"])):
        cells = [
            {"id": "a", "tiers": {"tiny": 1}, "overrides": {"candidates.fields": ["title", "year"]}},
            {"id": "b", "tiers": {"tiny": 1}, "overrides": {"candidates.fields": ["title", "year"], key: value}},
        ]
        with pytest.raises(InputError, match=rf"set tiny, cell b: {key.split('.')[0]}.*differs"):
            plan_table(table_of(tmp_path, cells=cells, claims=[], finalists={}))


def test_keys_that_follow_from_the_table_cannot_be_overridden(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set tiny, cell bare: evaluation\.templates: follows from the table"):
        plan_table(table_of(tmp_path, "overrides.evaluation.templates=[titles]"))
    with pytest.raises(InputError, match=r"set tiny, cell bare: train\.stepps"):
        plan_table(table_of(tmp_path, "overrides.train.stepps=1"))


def test_nested_overrides_leave_the_rest_of_a_section_alone() -> None:
    assert assignments({"a": {"b": {"c": 1}, "d": []}, "e.f": "x"}) == ["a.b.c=1", "a.d=[]", 'e.f="x"']
    assert parts_of("cell/learned@other+listwise") == ("cell", "learned", "other+listwise")


def test_a_reader_trains_a_recommender_and_brings_no_arms(tmp_path: Path) -> None:
    reader: dict[str, Any] = A | {"arms": [], "overrides": {"recommender_training.seed": 7}}
    cells = [reader, B | {"crossed": [{"recommender": "a"}]}]
    one, other = plan_table(table_of(tmp_path, cells=cells, claims=[], finalists={}))
    assert one.cell.is_reader and not other.cell.is_reader
    assert one.recipes[0].recommender_training.seed == 7 and one.recipes[0].evaluation.templates == ()
    assert reader_of(one.recipes[0]) != reader_of(other.recipes[0])
    reader["overrides"] = {"recommender_training": None}
    with pytest.raises(InputError, match="set tiny, cell a: no arms: make a reader"):
        plan_table(table_of(tmp_path, cells=cells, claims=[], finalists={}))


@pytest.mark.parametrize("crossing", [{"recommender": "a"}, {"texts": "a"}, {"mode": "likelihood"}])
def test_texts_before_their_own_recommender_are_no_crossing(tmp_path: Path, crossing: dict[str, str]) -> None:
    cells = [A, B | {"overrides": {"train.steps": 1}, "crossed": [crossing]}]
    with pytest.raises(InputError, match=r"set tiny, cell b: crossing @.* read by their own recommender"):
        plan_table(table_of(tmp_path, cells=cells, claims=[], finalists={}))
    # Paired seeds give each seed a recommender of its own, and the crossing meets that of the same seed.
    with pytest.raises(InputError, match="read by their own recommender"):
        plan_table(table_of(tmp_path, "paired_seeds=true", cells=cells, claims=[], finalists={}))
    cells[1]["overrides"] = {"recommender_training.seed": 1, "recommender.mode": "listwise"}
    assert len(plan_table(table_of(tmp_path, cells=cells, claims=[], finalists={}))) == 2


def test_learned_texts_without_a_common_seed_are_not_compared(tmp_path: Path) -> None:
    cells = [A, B | {"overrides": {"seeds": [5]}, "compare_with": "a"}]
    with pytest.raises(InputError, match=r"cell b: compare_with a: has no seed in common: \[5\] and \[0, 1\]"):
        plan_table(table_of(tmp_path, cells=cells, claims=[], finalists={}))
    cells = [A | {"arms": ["learned", "titles"]}, B | {"overrides": {"seeds": [5]}, "compare_with": "a/titles"}]
    assert plan_table(table_of(tmp_path, cells=cells, claims=[], finalists={}))  # a template has no seeds
