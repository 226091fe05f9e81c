"""The claims of a recipe: evidence tables with opaque ids, and the ledger entries computed from them alone."""

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import InputError
from recsys.storage import read_json, read_parquet, write_json
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.recipe_sections import LEARNED, SHUFFLED, START, ClaimConfig
from verbalize.report.artefacts import outcomes_table, timings_table, values_table, write_artefact
from verbalize.report.claims import Claim, Estimator
from verbalize.report.ledger import RESULTS, assemble, judge_families, write_claim
from verbalize.stages import oracle
from verbalize.stages.evaluate import arm_of
from verbalize.stages.pool import HEADROOM_METRIC
from verbalize.stages.samples import of_targets

UNITS = {
    "recall": "recall@1 difference",
    "learned_margin": "nats",
    "pool_headroom": "recall@1 difference",
    "seconds": "seconds",
    "noise_drop_lift": "ratio",
    "noise_drop_recall": "share",
    "share_of_bayes": "share",
}
ESTIMATORS = {
    "recall": "paired_difference",
    "learned_margin": "mean_difference",
    "pool_headroom": "headroom",
    "seconds": "seconds",
    "noise_drop_lift": "lift",
    "noise_drop_recall": "ratio_of_means",
    "share_of_bayes": "ratio_of_means",
}


def write_claims(
    recipe: Recipe, context: Context, roles: Mapping[str, str], recommender: str, command: str
) -> list[Claim]:
    """Write each claim's artefact and ledger entry below the stage's folder, and what `record` needs to repeat it.

    Recall differences are the primary claims: one family, adjusted together, and a learned arm's gain is shuffled.
    """
    salt = secrets.token_hex(16)  # thrown away: nothing leads from a published id back to a user
    written: dict[str, Path] = {}
    primary = [claim.id for claim in recipe.evaluation.claims if claim.kind == "recall"]
    claims, entries = [], []
    for claim in recipe.evaluation.claims:
        entry: dict[str, Any] = {
            "claim_id": claim.id,
            "statement": claim.statement,
            "unit": "fraction" if claim.relative else UNITS[claim.kind],
            "target": claim.target,
            "direction": claim.direction,
            "criterion": claim.criterion,
            "command": command,
            "artefact": None,
        }
        if claim.id in primary:
            entry["family"] = primary
            if recipe.evaluation.shuffled and claim.a == LEARNED:
                entry["shuffled"] = f"{SHUFFLED}/{recommender}"
        estimator = Estimator(ESTIMATORS[claim.kind])
        try:
            table: str = "noise" if claim.kind in ("noise_drop_lift", "noise_drop_recall") else claim.kind
            table = table if claim.targets == "all" else f"{table}.{claim.targets}"
            if table not in written:
                found = evidence(claim, recipe, context, salt)
                written[table] = context.folder / RESULTS / "artefacts" / f"{recipe.name}.{table}.csv.gz"
                write_artefact(found, written[table])
            estimator = estimator_of(claim, recipe, context, roles, recommender)
            entry["artefact"] = str(written[table].relative_to(context.folder))
            claims.append(write_claim(context.folder, estimator=estimator, **entry))
        except InputError as error:  # no sound evidence: said in the ledger, and the report is still made
            entry |= {"artefact": None, "note": f"{error.value}: {error.rule}"}
            claims.append(write_claim(context.folder, estimator=estimator, **entry))
        entries.append(entry | {"estimator": {"name": estimator.name, "parameters": dict(estimator.parameters)}})
    write_json(entries, context.folder / "claims.json")
    judged = judge_families(context.folder)
    return [judged[claim.id] for claim in claims]


def record(report: Path, root: Path) -> list[Claim]:
    """Copy a report stage's artefacts and enter its claims into the ledger under `root`."""
    claims = []
    for entry in read_json(report / "claims.json"):
        if entry["artefact"] is not None:
            target = root / entry["artefact"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(report / entry["artefact"], target)
        claims.append(write_claim(root, **entry | {"estimator": Estimator(**entry["estimator"])}))
    judged = judge_families(root)
    assemble(root)
    return [judged[claim.id] for claim in claims]


def evidence(claim: ClaimConfig, recipe: Recipe, context: Context, salt: str) -> pl.DataFrame:
    """The table that claims of this kind and these targets are computed from."""
    kind = claim.kind
    if kind == "recall":
        decisions = read_parquet(context.inputs["evaluate"] / "decisions.parquet")
        return outcomes_table(of_targets(decisions, context.inputs, claim.targets), salt)
    if kind in ("noise_drop_lift", "noise_drop_recall"):
        return values_table(read_parquet(context.inputs["oracle"] / oracle.NOISE), salt)
    if kind == "share_of_bayes":
        return values_table(of_targets(oracle.bayes_values(context.inputs), context.inputs, claim.targets), salt)
    if kind == "learned_margin":
        return values_table(read_parquet(context.inputs["evaluate"] / "margins.parquet"), salt)
    if kind == "pool_headroom":
        if "pool" not in context.inputs:
            raise InputError(
                "pool headroom",
                "a recipe scores a pool for a warm start that imitates it and for DPO on actions",
                "set warm_start",
            )
        return outcomes_table(read_parquet(context.inputs["pool"] / "decisions.parquet"), salt)
    resumed = [name for name, folder in context.inputs.items() if read_json(folder / "done.json")["resumed"]]
    if resumed:
        raise InputError(
            f"stages {resumed}",
            "were resumed, so their recorded seconds are not the whole",
            "run in a fresh --runs folder",
        )
    return timings_table(
        {recipe.name: [float(sum(read_json(folder / "done.json")["seconds"] for folder in context.inputs.values()))]}
    )


def estimator_of(
    claim: ClaimConfig, recipe: Recipe, context: Context, roles: Mapping[str, str], recommender: str
) -> Estimator:
    """How the ledger recomputes the claim."""
    if claim.kind == "learned_margin":
        return Estimator("mean_difference", {"a": LEARNED, "b": START})
    if claim.kind == "seconds":
        return Estimator("seconds", {"arm": recipe.name})
    if claim.kind == "noise_drop_lift":
        counted = {"hits": "noise_dropped", "chosen": "dropped", "positives": "noise", "all": "shown"}
        return Estimator("lift", counted)
    if claim.kind == "noise_drop_recall":
        return Estimator("ratio_of_means", {"a": "noise_dropped", "b": "noise"})
    if claim.kind == "share_of_bayes":
        arm = arm_of(claim.a, roles, recommender, recipe.evaluation.baselines)
        return Estimator("ratio_of_means", {"a": f"{arm.verbalizer}/{arm.recommender}", "b": oracle.BAYES})
    if claim.kind == "pool_headroom":
        names = read_parquet(context.inputs["pool"] / "decisions.parquet")["verbalizer"].unique().sort().to_list()
        return Estimator(
            "headroom",
            {"pool": [f"{name}/{recommender}" for name in names], "choose_by": HEADROOM_METRIC, "shrinkage": 5.0},
        )
    a, b = (arm_of(name, roles, recommender, recipe.evaluation.baselines) for name in (claim.a, claim.b))
    parameters: dict[str, Any] = {"a": f"{a.verbalizer}/{a.recommender}", "b": f"{b.verbalizer}/{b.recommender}"}
    return Estimator("relative_difference" if claim.relative else "paired_difference", parameters)
