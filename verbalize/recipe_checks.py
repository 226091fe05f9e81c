"""What the sections of a recipe may not ask for together, refused before anything runs."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from recsys.errors import InputError
from recsys.logs.sources import read_whole
from recsys.recommenders.language import MODES
from verbalize.optimize.rewards import CATALOGUE
from verbalize.pipeline import STORE
from verbalize.recipe_display import check_display
from verbalize.recipe_sections import (
    BASELINES,
    BEST_DISPLAY,
    BEST_SCRIPTED,
    LEARNED,
    ORACLE_CLAIMS,
    ROLES,
    SHUFFLED,
    START,
)
from verbalize.report.claims import check_claim_id
from verbalize.verbalizers.action_pool import CANDIDATES
from verbalize.verbalizers.actions import CONSTANT_POLICIES
from verbalize.verbalizers.displays import DISPLAYS
from verbalize.verbalizers.templates import TEMPLATES

if TYPE_CHECKING:
    from verbalize.recipe import Recipe
    from verbalize.recipe_sections import ClaimConfig


def check_recipe(recipe: "Recipe") -> None:
    """Raise InputError naming the keys, the rule and the remedy."""
    _check_names(recipe)
    _check_policy(recipe)
    if recipe.engine == "bucketed":
        _check_bucketed(recipe)
    if recipe.dpo:
        recipe.dpo.check(recipe.train)
    if recipe.experience:
        _among("experience.sketch", [recipe.experience.sketch], TEMPLATES)
    if recipe.recommender_training and recipe.recommender.mode not in (*MODES, "embedding"):
        raise InputError(
            f"recommender_training with recommender.mode {recipe.recommender.mode}",
            "trains a local model only",
            "set recommender_training: null",
        )
    if recipe.policy.kind == "display":
        check_display(recipe)
    _check_catalogue(recipe)
    _check_arms(recipe)


def _check_names(recipe: "Recipe") -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", recipe.name) or recipe.name == STORE:
        # A run's folder and its evidence are named after the recipe, beside the store of artefacts.
        raise InputError(
            f"name {recipe.name!r}",
            f"names a folder and files: letters, digits, '.', '_' and '-', and not {STORE!r}",
            "rename the recipe",
        )
    _among("templates", recipe.templates, TEMPLATES)
    _among("evaluation.templates", recipe.evaluation.templates, (*TEMPLATES, *recipe.scripted))
    _among("constants", recipe.constants, CONSTANT_POLICIES)
    _among("scripted", recipe.scripted, CANDIDATES)
    _among("evaluation.baselines", recipe.evaluation.baselines, BASELINES)
    if not recipe.templates or not recipe.constants:
        raise InputError(
            "templates or constants []", "learned arms are compared with both", "list at least one of each"
        )
    if not recipe.seeds or len(set(recipe.seeds)) != len(recipe.seeds):
        raise InputError(f"seeds {list(recipe.seeds)}", "must be distinct and not empty", "for example [0, 1, 2]")


def _check_policy(recipe: "Recipe") -> None:
    """Ways to train that the kind of policy does not have."""
    kind, train = recipe.policy.kind, recipe.train
    if recipe.warm_start and kind == "rewrite":
        raise InputError(
            "warm_start with policy.kind rewrite", "the pool holds actions, not rewrites", "set warm_start: null"
        )
    if recipe.warm_start and not recipe.warm_start.imitates and kind != "actions":
        raise InputError(
            f"warm_start.effect_temperature with policy.kind {kind}",
            "changes what is done with single events, which actions alone decide",
            "set warm_start.effect_temperature: null",
        )
    if train.vllm and kind != "rewrite":
        raise InputError(
            f"train.vllm = {train.vllm} with policy.kind {kind}",
            "samples texts, and actions are read off one forward pass",
            "set train.vllm: null, or policy.kind: rewrite",
        )
    if train.vllm and not str(recipe.policy.device).startswith("cuda"):
        raise InputError(
            f"train.vllm = {train.vllm} with policy.device {recipe.policy.device or 'null, the CPU'}",
            "takes the policy's weights over from a GPU",
            "set policy.device: cuda, or train.vllm: null",
        )
    if train.credit == "slots" and kind == "rewrite":
        raise InputError(
            "train.credit = 'slots' with policy.kind rewrite",
            "changes one action at a time, and a rewrite has none",
            "set train.credit: group",
        )
    if recipe.gepa:
        if recipe.dpo or kind != "rewrite":
            raise InputError(
                f"gepa with policy.kind {kind}" + (" and dpo" if recipe.dpo else ""),
                "evolves the instruction of a rewriter and trains nothing",
                "set policy.kind: rewrite and dpo: null",
            )
        recipe.gepa.check(recipe.policy.rewrite)


def _check_bucketed(recipe: "Recipe") -> None:
    """Refuse what a recipe alone tells; what its mapping tells, the logs stage refuses before it reads an event."""
    kind, policy = recipe.source.kind, recipe.examples.slate.policy
    if kind in ("store", "mind"):
        raise InputError(
            f"engine bucketed with source.kind {kind}",
            read_whole(recipe.source),
            "set engine: local, or name files of events (source.kind: table)",
        )
    if policy == "logged":
        raise InputError(
            f"engine bucketed with examples.slate.policy {policy}",
            "needs impressions, and a log that has them is read whole",
            "set engine: local, or another slate.policy",
        )


def _check_catalogue(recipe: "Recipe") -> None:
    """What needs every item scored is refused where a language model would have to read each of them."""
    mode = recipe.recommender.mode
    if mode == "embedding":
        return
    if recipe.reward.kind == CATALOGUE:
        raise InputError(
            f"reward.kind = {CATALOGUE} with recommender.mode {mode}",
            "scores every item of the catalogue for every text, which only the sentence encoder affords",
            "set recommender.mode: embedding, or reward.kind: log_softmax",
        )
    if recipe.evaluation.full_catalogue and not recipe.evaluation.baselines:
        raise InputError(
            f"evaluation.full_catalogue with recommender.mode {mode} and no baselines",
            "leaves no arm that can rank a whole catalogue",
            "set recommender.mode: embedding, or list evaluation.baselines such as ease",
        )


def _check_arms(recipe: "Recipe") -> None:
    """Refuse now what would otherwise end the run at its report, with the look at test users spent."""
    evaluation = recipe.evaluation
    if evaluation.split == "test" and not evaluation.claims:
        raise InputError(
            "evaluation.split test",
            "test users are opened under a claim only",
            "list evaluation.claims, or evaluate on validation",
        )
    shuffled = (SHUFFLED,) if evaluation.shuffled else ()
    texts = (LEARNED, *shuffled, *recipe.roles, *evaluation.templates, *evaluation.against)
    displays = (START, BEST_DISPLAY, *DISPLAYS) if recipe.policy.kind == "display" else ()
    taken = {LEARNED, SHUFFLED, *ROLES, BEST_SCRIPTED, *BASELINES, *displays}
    taken |= {*TEMPLATES, *CONSTANT_POLICIES, *CANDIDATES}
    for name in evaluation.against:
        if name in taken or not re.fullmatch(r"[a-z0-9_]+", name):
            raise InputError(
                f"evaluation.against: arm {name!r}",
                "needs a name of its own, of lower-case letters, digits and '_'",
                "rename it",
            )
    _among("evaluation.untrained", evaluation.untrained, texts, "or add it to evaluation.templates")
    for claim in evaluation.claims:
        _check_claim(recipe, claim, (*texts, *displays, *evaluation.baselines))
    ids = [claim.id for claim in evaluation.claims]
    for name in ids:
        if ids.count(name) > 1:
            raise InputError(f"evaluation.claims: id {name}", "is given twice", "give every claim its own id")


def _check_claim(recipe: "Recipe", claim: "ClaimConfig", arms: Iterable[str]) -> None:
    check_claim_id(claim.id)
    if claim.kind in ORACLE_CLAIMS and recipe.source.kind != "simulator":
        raise InputError(
            f"claim {claim.id} of kind {claim.kind}",
            f"needs a truth that source.kind {recipe.source.kind} does not have",
            "set source.kind: simulator, or leave the claim out",
        )
    if claim.kind in ("noise_drop_lift", "noise_drop_recall") and recipe.policy.kind != "actions":
        raise InputError(
            f"claim {claim.id} of kind {claim.kind}",
            f"speaks of dropped events, and policy.kind {recipe.policy.kind} drops none",
            "set policy.kind: actions",
        )
    if claim.kind in ("recall", "share_of_bayes"):
        _among(f"claim {claim.id}: arm", (claim.a, claim.b), arms, "or add it to evaluation.templates")


def _among(where: str, names: Iterable[str], known: Iterable[str], otherwise: str = "") -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        choices = f"choose from {', '.join(dict.fromkeys(known))}"
        raise InputError(f"{where} {unknown}", "is not known", f"{choices}, {otherwise}" if otherwise else choices)
