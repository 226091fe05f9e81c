"""The honest number: the best configuration against the default one on test users, both with fresh seeds.

The order is that of every opening of test: first all that can fail is done (training, validation), then the detectable
difference is stated, then the look is registered, and only then test is ranked. The same two configurations again are a
resumption and no second look.
"""

import hashlib
import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import polars as pl

from recsys.comparison import compare
from recsys.decisions import decide
from recsys.looks import LooksRegister
from recsys.significance import intraclass_correlation, minimum_detectable_effect
from recsys.storage import read_json, write_json
from verbalize.config import plain
from verbalize.pipeline import STORE, Context, Progress, Silent
from verbalize.recipe import Recipe
from verbalize.recipe_sections import BASELINES, LEARNED, START
from verbalize.report.artefacts import outcomes_table, write_artefact
from verbalize.report.claims import Estimator, format_claim
from verbalize.report.ledger import RESULTS, assemble, write_claim
from verbalize.report.provenance import revision
from verbalize.stages import baselines, samples
from verbalize.stages.ranking import rank
from verbalize.stages.recommender import open_recommender
from verbalize.stages.saved_policies import learned_verbalizers
from verbalize.stages.templates import scripted
from verbalize.sweeps.measure import Measured, fit_baseline, measure, prepare
from verbalize.sweeps.results import FINAL, pick, write_results
from verbalize.sweeps.sampling import chosen
from verbalize.sweeps.settings import Sweep
from verbalize.sweeps.storage import folder_of_sweep
from verbalize.sweeps.worker import tracked_recipe
from verbalize.verbalizers.base import verbalizer_inputs

BEST, DEFAULT = "best", "default"


@dataclass(frozen=True)
class Side:
    """One of the two configurations, trained with the fresh seeds and measured on the selection examples."""

    name: str
    recipe: Recipe
    arm: str
    folders: Mapping[str, Path]
    validation: Measured


def final(
    sweep: Sweep,
    study: optuna.Study,
    runs: Path | str,
    command: str,
    progress: Progress | None = None,
    number: int | None = None,
    record_in: Path | None = None,
) -> dict[str, Any]:
    """Train, state what can be seen, open test once, compare. Returns and writes (final.json) the result.

    `number` names a trial other than the best; `record_in` is the root of a repository whose ledger receives the claim.

    Raises InputError where no trial is complete. Interrupted, the same call goes on.
    """
    progress, metric = progress or Silent(), sweep.config.objective.metric
    trial = pick(study, number)
    params = chosen(trial, sweep.config.space)
    sides = [
        _side(BEST, sweep, params, runs, command, progress),
        _side(DEFAULT, sweep, {}, runs, command, progress),
    ]
    digest = _digest(sides, metric)
    folder = folder_of_sweep(runs, sweep.config.name) / "final" / digest
    plan = plan_of(sides)
    write_json(plan, folder / "plan.json")
    progress.stage("final", "plans", f"n {plan['n']}, effective about {plan['n_effective']:.0f}")
    look = LooksRegister(sides[1].recipe.evaluation.register).open(
        sweep.config.final.claim,
        digest=digest,
        arms=[f"{side.name}: {side.arm}" for side in sides],
        n=plan["n"],
        n_effective=plan["n_effective"],
        mde=plan["detectable"]["absolute"],
        revision=revision(),
    )
    decided = pl.concat([_on_test(side, folder / side.name, progress) for side in sides])
    found = compare(decided, (BEST, ""), (DEFAULT, ""), metric)
    root = (record_in or folder).resolve()
    claim = _claim(sweep, decided, root, command)
    if record_in is not None:
        assemble(root)
    result = {
        "sweep": sweep.config.name,
        "trial": trial.number,
        "params": params,
        "command": sweep.command(params),
        "metric": metric,
        "seeds": list(sweep.config.final.seeds),
        "validation": {
            "chosen_with": trial.values[0],
            **{side.name: side.validation.value for side in sides},
        },
        "test": {BEST: found.value_a, DEFAULT: found.value_b, "difference": found.value}
        | {"low": found.low, "high": found.high, "n": found.n, "n_effective": found.n_effective},
        "optimism": trial.values[0] - found.value_a,
        "detectable": plan["detectable"]["absolute"],
        "look": look,
        "claim": {"id": claim.id, "text": format_claim(claim), "status": claim.status},
    }
    write_json(result, folder_of_sweep(runs, sweep.config.name) / FINAL)
    write_results(sweep, study, runs)  # the page of the sweep now opens with this comparison
    return result


def text(found: Mapping[str, Any]) -> str:
    """The result for people."""
    test, validation = found["test"], found["validation"]
    detectable = found["detectable"]
    seen = "no difference" if detectable is None else f"differences from {detectable:.3f}"
    return "\n".join(
        [
            f"{found['metric']}, trial {found['trial']} against the default, seeds {found['seeds']}:",
            f"  validation, as chosen    {validation['chosen_with']:.4f}   (optimistic: the best of many tries)",
            f"  validation, fresh seeds  {validation[BEST]:.4f}   default {validation[DEFAULT]:.4f}",
            f"  test                     {test[BEST]:.4f}   default {test[DEFAULT]:.4f}",
            f"  difference on test       {test['difference']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}]"
            f"   n {test['n']}, effective {test['n_effective']:.0f}; {seen} could be seen (80% power)",
            f"  optimism of validation   {found['optimism']:+.4f}",
            f"  claim {found['claim']['id']}: {found['claim']['status']}; look {found['look']} at test users",
        ]
    )


def plan_of(sides: list[Side]) -> dict[str, Any]:
    """n, effective n and the smallest detectable difference, from validation alone."""
    examples = _test_examples(sides[1])
    pair = sides[0].validation.outcomes.join(sides[1].validation.outcomes, on="example_id")
    values = sides[1].validation.outcomes
    rho = max(0.0, intraclass_correlation(values["value"].to_numpy(), values["user_id"].to_numpy()))
    per_user = examples.group_by("user_id").len()["len"]
    n_effective = float((per_user / (1 + (per_user - 1) * rho)).sum())
    # Arms that agreed throughout on few validation examples need not on test: a tenth is then taken, as in `evaluate`.
    discordance = float(((pair["value"] - pair["value_right"]) ** 2).mean()) or 0.1  # type: ignore[arg-type, operator]
    effect = minimum_detectable_effect(n_effective, sides[1].validation.value, discordance)
    return {
        "n": len(examples),
        "users": len(per_user),
        "n_effective": n_effective,
        "intraclass_correlation": rho,
        "detectable": {name: value if math.isfinite(value) else None for name, value in asdict(effect).items()},
    }


def _side(
    name: str, sweep: Sweep, params: Mapping[str, Any], runs: Path | str, command: str, progress: Progress
) -> Side:
    progress.stage("final", "prepares", name)
    recipe = replace(tracked_recipe(sweep, params, f"final-{name}"), seeds=sweep.config.final.seeds)
    arm = sweep.arm(params)
    folders = prepare(recipe, arm, Path(runs) / STORE, command, progress)
    return Side(name, recipe, arm, folders, measure(recipe, arm, sweep.config.objective.metric, folders))


def _digest(sides: list[Side], metric: str) -> str:
    """What is looked at: both configurations and how they are judged, not how they are called or tracked."""
    parts: list[Any] = [metric]
    for side in sides:
        recipe = plain(side.recipe)
        for name in ("name", "title", "licence", "source", "tracking", "evaluation"):  # the logs key is the source
            recipe.pop(name)
        parts.append([side.arm, recipe, {stage: folder.name for stage, folder in side.folders.items()}])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _test_examples(side: Side) -> pl.DataFrame:
    return samples.load_examples(side.folders["examples"], "test", side.recipe.sample.test)


def _on_test(side: Side, folder: Path, progress: Progress) -> pl.DataFrame:
    """Decisions of one configuration on test users' own slates, under the configuration's name. Resumable."""
    examples = _test_examples(side)
    if side.arm in BASELINES:
        fitted = fit_baseline(side.recipe, side.arm, side.folders, "test")
        decided = decide(fitted, examples, [""] * len(examples), verbalizer=baselines.VERBALIZER)
    else:
        context = Context(folder, side.folders, progress)
        recommender = open_recommender(side.recipe, side.folders)
        texts = _texts(side, context, examples)
        decided, _ = rank(context, recommender, examples, texts, None, folder / "parts")
    return decided.with_columns(verbalizer=pl.lit(side.name), recommender=pl.lit(""))


def _texts(side: Side, context: Context, examples: pl.DataFrame) -> dict[tuple[str, int], list[str]]:
    """(arm, seed) -> one text per example. A trained policy's are kept, because writing them takes its model."""
    inputs = verbalizer_inputs(examples)
    if side.arm != LEARNED:
        name = str(read_json(side.folders["templates"] / "roles.json").get(side.arm, side.arm))
        return {(side.arm, 0): scripted(name, side.recipe).verbalize(inputs)}
    texts = {}
    for name, seed, make in learned_verbalizers(side.recipe, context):
        path = context.folder / "parts" / f"texts-{seed}.json"
        if name == START:
            continue
        if not path.exists():
            write_json(make().verbalize(inputs), path)
        texts[LEARNED, seed] = read_json(path)
    return texts


def _claim(sweep: Sweep, decided: pl.DataFrame, root: Path, command: str) -> Any:
    """Evidence with opaque ids, and the ledger's entry computed from it."""
    config, metric = sweep.config, sweep.config.objective.metric
    artefact = root / RESULTS / "artefacts" / f"{config.name}.best_vs_default.csv.gz"
    # The salt is thrown away: nothing leads from a published id back to a user.
    write_artefact(outcomes_table(decided, secrets.token_hex(16), arm="{verbalizer}"), artefact)
    return write_claim(
        root,
        config.final.claim,
        f"Sweep {config.name}: {metric} on test users, best of the sweep minus the default, fresh seeds",
        unit="recall@1 difference" if metric == "recall@1" else "score difference",
        estimator=Estimator("paired_difference", {"a": BEST, "b": DEFAULT, "metric": metric}),
        artefact=artefact,
        command=command,
        target=config.final.target,
    )
