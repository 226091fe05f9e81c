"""Sweep files: everything wrong is refused before anything runs; conditions, corners, grids and draws."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_files import BASELINE_SPACE, model_free_recipe, sweep_of

from recsys.errors import InputError
from recsys.seeding import rng
from verbalize.config import build
from verbalize.recipe import Recipe
from verbalize.sweeps.settings import Parameter, SweepConfig, assignments, load_sweep
from verbalize.sweeps.space import check_space, draw, ends, grid, ordered, random_value

STEPS = {"type": "int", "low": 2, "high": 8}


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return model_free_recipe(tmp_path_factory.mktemp("sweeps"))


def parameters(values: dict[str, Any]) -> dict[str, Parameter]:
    return {name: build(Parameter, value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"train.stepz": STEPS}, ["train.stepz", "unknown key", "did you mean steps?"]),
        ({"train.steps": {"type": "float", "low": 2, "high": 8}}, ["train.steps", "2.0", "is not int"]),
        ({"train.group_size": {"type": "int", "low": 1, "high": 8}}, ["space.train.group_size = 1", "rollouts"]),
        ({"reward.kind": {"type": "categorical", "choices": ["margin", "magrin"]}}, ["'magrin'", "is not one of"]),
        ({"recommender.frame": {"type": "categorical", "choices": ["a", "b"]}}, ["recommender.frame", "unknown key"]),
        ({"examples.slate.size": {"type": "int", "low": 4, "high": 8}}, ["examples.slate.size", "slates are ranked"]),
        ({"reward.slates": {"type": "int", "low": 1, "high": 8}}, ["reward.slates", "which slates"]),
        ({"sample.selection": {"type": "int", "low": 1, "high": 8}}, ["sample.selection", "same for all trials"]),
        ({"seeds": {"type": "categorical", "choices": [[0], [1]]}}, ["seeds", "luck"]),
        ({"evaluation.split": {"type": "categorical", "choices": ["validation", "test"]}}, ["evaluation.split"]),
        ({"arm": {"type": "categorical", "choices": ["ease", "esae"]}}, ["'esae'", "is no arm", "item_knn"]),
        # two keys that are each fine and do not go together: 3 does not divide 2 or 4
        (
            {
                "train.prompts_per_step": {"type": "categorical", "choices": [2, 4]},
                "train.prompts_per_forward": {"type": "categorical", "choices": [1, 2, 4]},
            },
            ["train.prompts_per_forward = 4", "must divide"],
        ),
    ],
)
def test_what_no_recipe_can_be_built_with_is_refused_before_anything_runs(
    space: dict[str, Any], words: list[str], values: dict[str, Any], tmp_path: Path
) -> None:
    sweep = sweep_of(tmp_path, values, space=space)
    with pytest.raises(InputError) as refused:
        check_space(sweep)
    for word in words:
        assert word in str(refused.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": {}}, ["space", "at least one"]),
        ({"space": {"a": {"type": "float", "low": 2, "high": 1}}}, ["`low` below `high`"]),
        ({"space": {"a": {"type": "float", "low": 0, "high": 1, "log": True}}}, ["logarithmic"]),
        ({"space": {"a": {"type": "int", "low": 1.5, "high": 3}}}, ["whole numbers"]),
        ({"space": {"a": {"type": "categorical", "choices": [1]}}}, ["two `choices`"]),
        ({"space": {"a": {"type": "categorical", "choices": [1, 2], "low": 1}}}, ["neither low"]),
        ({"space": {"a": {"type": "integer", "low": 1, "high": 2}}}, ["integer", "did you mean int?"]),
        ({"budgets": {}}, ["budgets", "did you mean budget?"]),
        ({"budget": {"trials": 0}}, ["budget", "above 0"]),
        ({"name": "../up"}, ["../up", "names a folder"]),
        ({"pruner": {}, "objective": {"costs": ["tokens"]}}, ["pruner", "drop one"]),
        ({"final": {"claim": "Best!"}}, ["Best!", "lower-case"]),
        ({"final": {"seeds": [1, 1]}}, ["final.seeds", "distinct"]),
    ],
)
def test_bad_files_are_refused_with_key_and_rule(
    changes: dict[str, Any], words: list[str], values: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        sweep_of(tmp_path, values, **changes)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": {"metric": "mpp", "arm": "ease"}}, ["mpp"]),
        ({"objective": {"metric": "ndcg@3"}, "space": {"train.steps": STEPS}}, ["ndcg@3", "training records"]),
        ({"pruner": {}}, ["pruner", "only training reports"]),
        ({"final": {"seeds": [1, 7]}}, ["final.seeds [1]", "no trial used"]),
        ({"sampler": {"kind": "grid"}}, ["grid needs the step", "ease.l2"]),
    ],
)
def test_objectives_that_cannot_be_measured_are_refused(
    changes: dict[str, Any], words: list[str], values: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        check_space(sweep_of(tmp_path, values, **changes))
    for word in words:
        assert word in str(refused.value)


def test_a_missing_recipe_beside_the_sweep_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        yaml.safe_dump({"name": "s", "recipe": "absent.yaml", "space": {"train.steps": STEPS}})
    )
    with pytest.raises(InputError, match=r"absent\.yaml: no such file"):
        load_sweep(tmp_path / "s.yaml")


def test_a_good_space_passes_and_builds_the_recipe_it_says(values: dict[str, Any], tmp_path: Path) -> None:
    sweep = sweep_of(
        tmp_path,
        values,
        space={
            "train.learning_rate": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True},
            "candidates.fields": {"type": "categorical", "choices": [["title"], ["title", "year"]]},
            "policy.lora.rank": {"type": "int", "low": 2, "high": 16},
        },
        objective={"metric": "recall@1"},
        pruner={"min_steps": 1},
    )
    check_space(sweep)
    recipe: Recipe = sweep.recipe({"train.learning_rate": 1e-05, "candidates.fields": ["title", "year"]})
    assert recipe.train.learning_rate == 1e-05 and recipe.candidates.fields == ("title", "year")
    assert recipe.policy == sweep.recipe().policy and recipe.evaluation.claims == ()
    assert sweep.command({"candidates.fields": ["title", "year"]}).endswith("""'candidates.fields=["title", "year"]'""")


def test_conditional_parameters_are_drawn_only_where_they_count() -> None:
    space = parameters(BASELINE_SPACE)
    names = {"item_knn": set(), "ease": set()}  # type: dict[str, set[frozenset[str]]]
    for number in range(60):
        generator = rng("test", number)
        drawn = draw(space, lambda _, parameter, generator=generator: random_value(parameter, generator))
        names[drawn["arm"]].add(frozenset(drawn))
    knn = {"arm", "examples.history_max", "baselines.item_knn.neighbours", "baselines.item_knn.shrinkage"}
    assert names == {
        "item_knn": {frozenset(knn)},
        "ease": {frozenset({"arm", "examples.history_max", "baselines.ease.l2"})},
    }


def test_conditions_of_conditions_come_in_order_and_circles_are_refused() -> None:
    choice = {"type": "categorical", "choices": ["x", "y"]}
    nested = parameters({"c": choice | {"when": {"b": ["x", "y"]}}, "b": choice | {"when": {"a": "x"}}, "a": choice})
    assert ordered(nested) == ["a", "b", "c"]
    assert draw(nested, lambda name, _: "y") == {"a": "y"}
    assert draw(nested, lambda name, _: "x") == {"a": "x", "b": "x", "c": "x"}
    for space, words in (
        ({"a": choice | {"when": {"b": "x"}}, "b": choice | {"when": {"a": "x"}}}, "circle"),
        ({"a": choice | {"when": {"z": "x"}}}, "names no parameter"),
        ({"a": choice, "b": choice | {"when": {"a": "q"}}}, "never drawn"),
    ):
        with pytest.raises(InputError, match=words):
            ordered(parameters(space))


def test_the_grid_holds_every_combination_once_and_respects_conditions() -> None:
    space = parameters(
        {
            "a": {"type": "categorical", "choices": ["x", "y"]},
            "b": {"type": "int", "low": 1, "high": 3, "when": {"a": "x"}},
            "c": {"type": "float", "low": 0, "high": 1, "step": 0.5},
        }
    )
    points = grid(space)
    expected = [{"a": "x", "b": b, "c": c} for b in (1, 2, 3) for c in (0.0, 0.5, 1.0)]
    expected += [{"a": "y", "c": c} for c in (0.0, 0.5, 1.0)]
    assert sorted(points, key=str) == sorted(expected, key=str)


@settings(max_examples=60, deadline=None)
@given(
    low=st.floats(1e-6, 1e3),
    factor=st.floats(1.01, 1e4),
    log=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_draws_stay_inside_their_range(low: float, factor: float, log: bool, seed: int) -> None:
    parameter = Parameter("float", low=low, high=low * factor, log=log)
    first, last = ends(parameter)
    assert first <= random_value(parameter, rng("draw", seed)) <= last
    whole = Parameter("int", low=int(low) + 1, high=int(low) + 1 + int(factor * 10), log=log)
    value = random_value(whole, rng("draw", seed))
    assert isinstance(value, int) and ends(whole)[0] <= value <= ends(whole)[1]


def test_logarithmic_draws_are_even_in_the_logarithm() -> None:
    parameter = Parameter("float", low=1e-4, high=1.0, log=True)
    drawn = [random_value(parameter, rng("log", number)) for number in range(400)]
    for edge, following in pairwise([1e-4, 1e-3, 1e-2, 1e-1, 1.0]):
        assert 60 <= sum(edge <= value < following for value in drawn) <= 140  # 100 expected, 3 standard errors: 26


def test_assignments_survive_yaml() -> None:
    from verbalize.config import override

    keys = {"a.b": 1e-05, "a.c": None, "d": [1, 2], "e": "off", "f": True, "g": "a: b"}
    read = override({}, assignments(keys | {"arm": "ease"}))
    assert float(read["a"].pop("b")) == 1e-05
    assert read == {"a": {"c": None}, "d": [1, 2], "e": "off", "f": True, "g": "a: b"}


def test_the_committed_sweeps_are_good() -> None:
    files = sorted((Path(__file__).parents[2] / "experiments" / "sweeps").glob("*.yaml"))
    assert files
    for path in files:
        check_space(load_sweep(path))
        assert isinstance(load_sweep(path).config, SweepConfig)
