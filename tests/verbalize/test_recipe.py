"""Recipes: the committed ones load, and what cannot be meant is refused before anything runs."""

from pathlib import Path

import pytest

from recsys.errors import InputError
from verbalize.config import build, plain
from verbalize.recipe import Recipe, load_recipe
from verbalize.recipe_sections import BASELINES, BEST_SCRIPTED, ROLES
from verbalize.verbalizers.actions import CONSTANT_POLICIES
from verbalize.verbalizers.templates import TEMPLATES

ROOT = Path(__file__).parents[2]
# Tables of recipes are another thing: see test_tables_paper.
COMMITTED = [path for path in sorted((ROOT / "experiments").glob("*.yaml")) if not path.stem.endswith("_table")]
DEMO = ROOT / "experiments" / "demo.yaml"
CLAIM = "{id: a.b, statement: s, a: learned, b: %s}"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_recipes_load_and_survive_the_round_trip(path: Path) -> None:
    recipe = load_recipe(path)
    assert build(Recipe, plain(recipe)) == recipe
    assert recipe.evaluation.claims and all(claim.statement for claim in recipe.evaluation.claims)
    assert len({claim.id for claim in recipe.evaluation.claims}) == len(recipe.evaluation.claims)
    # Claims are kept beside the code, so their ids must be unique over all recipes too.
    others = [load_recipe(other) for other in COMMITTED if other != path]
    taken = {claim.id for other in others for claim in other.evaluation.claims}
    assert not taken & {claim.id for claim in recipe.evaluation.claims}


def test_recipes_of_data_that_may_not_be_passed_on_show_no_examples_once_test_is_opened() -> None:
    """A report of the recorded comparison may be published: its licence forbids showing histories."""
    for path in COMMITTED:
        recipe = load_recipe(path)
        if recipe.evaluation.split == "test" and "no redistribution" in recipe.licence:
            assert recipe.evaluation.example_browser == 0, path.name


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["templates=[titels]"], ["templates ['titels']", "titles"]),
        (["evaluation.templates=[titels]"], ["evaluation.templates", "titels"]),
        (["constants=[keep_some]"], ["constants ['keep_some']", "keep_all"]),
        (["evaluation.baselines=[popular]"], ["evaluation.baselines ['popular']", "popularity"]),
        (["templates=[]"], ["templates", "at least one"]),
        (["constants=[]"], ["constants", "at least one"]),
        (["seeds=[]"], ["seeds", "not empty"]),
        (["seeds=[1, 1]"], ["seeds [1, 1]", "distinct"]),
        (["evaluation.split=test", "evaluation.claims=[]"], ["test", "claim"]),
        (["policy.kind=rewrite"], ["warm_start", "null"]),
        (["policy.kind=rewrite", "warm_start=null", "train.credit=slots"], ["train.credit", "group"]),
        (["reward.targets=0"], ["reward.targets = 0", "at least 1"]),
        (["reward.targets=2", "reward.kind=catalogue_log_softmax"], ["reward.targets = 2", "alone"]),
        (["reward.kind=margins"], ["reward.kind", "margin"]),
        (["train.group_size=1"], ["train.group_size = 1", ">= 2"]),
        (["recommender.mode=likelyhood"], ["likelyhood", "likelihood"]),
        (["policy.actions.marker='--'"], ["marker", "->"]),
        (["evaluation.claims=[{id: a.b, statement: s, kind: recal}]"], ["kind", "recall"]),
        (["evaluation.claims=[{statement: s}]"], ["evaluation.claims[0].id", "required"]),
        (["tracking.wandb=off"], ["tracking.wandb", "quote"]),
    ],
    ids=lambda value: value[0][:48] if isinstance(value, list) else None,
)
def test_what_cannot_be_meant_is_refused(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(InputError) as refusal:
        load_recipe(DEMO, overrides)
    assert refusal.value.remedy
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([f"evaluation.claims=[{CLAIM % 'best_templat'}]"], ["best_templat", "best_template"]),
        ([f"evaluation.claims=[{CLAIM % 'json'}]"], ["json", "evaluation.templates"]),
        ([f"evaluation.claims=[{CLAIM % 'ease'}]", "evaluation.baselines=[logit]"], ["ease"]),
        (["evaluation.claims=[{id: NoDots, statement: s}]"], ["NoDots"]),
        ([f"evaluation.claims=[{CLAIM % 'logit'}, {CLAIM % 'logit'}]"], ["a.b"]),
        (["evaluation.untrained=[titels]"], ["evaluation.untrained", "titels"]),
        (["name=../elsewhere"], ["../elsewhere", "name"]),
        (["name=artefacts"], ["artefacts", "name"]),
    ],
    ids=lambda value: value[0][:64] if isinstance(value, list) else None,
)
def test_what_would_fail_only_after_test_was_opened_is_refused_before(overrides: list[str], words: list[str]) -> None:
    """A claim on an arm that is never ranked would end the run at its report, with the look already spent."""
    with pytest.raises(InputError) as refusal:
        load_recipe(DEMO, overrides)
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize("arm", [*ROLES, "learned", "learned_shuffled", "concatenation", *BASELINES])
def test_every_arm_that_is_ranked_may_be_claimed(arm: str) -> None:
    ranked = ["evaluation.shuffled=true", "evaluation.templates=[concatenation]"]
    assert load_recipe(DEMO, [*ranked, f"evaluation.claims=[{CLAIM % arm}]"]).evaluation.claims[0].b == arm


def test_the_best_scripted_sequence_is_an_arm_where_sequences_are_listed() -> None:
    claim = f"evaluation.claims=[{CLAIM % BEST_SCRIPTED}]"
    assert load_recipe(DEMO, ["scripted=[liked_only]", claim]).roles == (*ROLES, BEST_SCRIPTED)
    with pytest.raises(InputError, match=BEST_SCRIPTED):
        load_recipe(DEMO, [claim])
    with pytest.raises(InputError, match="liked_only"):
        load_recipe(DEMO, ["evaluation.templates=[liked_only]"])
    assert load_recipe(DEMO, ["scripted=[liked_only]", "evaluation.templates=[liked_only]"])
    with pytest.raises(InputError, match="disliked_only"):
        load_recipe(DEMO, ["scripted=[disliked_only]"])


def test_no_name_means_two_things() -> None:
    """Claims name arms by one word: a template called like a role, a constant or a baseline would be ambiguous."""
    names = [*TEMPLATES, *CONSTANT_POLICIES, *BASELINES, *ROLES, BEST_SCRIPTED, "learned"]
    assert len(names) == len(set(names))
