"""What a claim listed beforehand must pass besides its own interval: the adjustment for all claims listed with it, and
the shuffle.

Holm's adjustment (`recsys.significance.holm`) runs over the p-values of every claim of a family, each recomputed from
that claim's artefact. A claim's p is that of its difference being its target where the interval decides, else of its
being 0. A member that could not be measured counts with p = 1: leaving it out would make the others look better.
"""

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import polars as pl

from recsys.controls import surviving_gain
from recsys.errors import InputError
from recsys.outcomes import paired_outcomes
from recsys.significance import RESAMPLES, bootstrap_means, holm, p_value, relative_draws
from verbalize.report.artefacts import read_artefact
from verbalize.report.claims import Claim
from verbalize.report.estimators import RECOMMENDER, decisions_of

DIFFERENCES = ("paired_difference", "relative_difference")
"""Estimators whose claims may form a family."""


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Fields of a claim that follow from its family and its shuffled arm; None where there is nothing to tell."""

    p_holm: float | None
    survives: float | None


def judge(claims: Mapping[str, Claim], root: Path | str) -> dict[str, Judgement]:
    """A judgement of every claim that has a family.

    Raises InputError for a family that is not complete among `claims`, or not the same for its members, and
    FileNotFoundError for a missing artefact.
    """
    read = cache(lambda place: read_artefact(Path(root) / place))
    p_values: dict[str, float] = {}
    for claim in claims.values():
        _check_family(claim, claims)
        if claim.family:
            p_values[claim.id] = 1.0 if claim.artefact is None else p_of(claim, read(claim.artefact))
    found = {}
    for name in p_values:
        claim = claims[name]
        if claim.artefact is None:
            found[name] = Judgement(None, None)
            continue
        adjusted = holm({member: p_values[member] for member in claim.family})
        share = surviving_of(claim, read(claim.artefact))
        found[name] = Judgement(round(adjusted[name], 6), None if share is None else round(share, 6))
    return found


def p_of(claim: Claim, table: pl.DataFrame) -> float:
    """Two-sided p of a difference of two arms, from the draws that its interval is made of."""
    a, b, metric, resamples, seed = _asked(claim)
    frame = paired_outcomes(decisions_of(table, [a, b]), [(a, RECOMMENDER), (b, RECOMMENDER)], metric)
    means = bootstrap_means(
        frame.select("0", "1").to_numpy(), frame["user_id"].to_numpy(), resamples=resamples, seed=seed
    )
    drawn_a, drawn_b = means.draws.T
    relative = claim.estimator.name == "relative_difference"
    found = relative_draws(drawn_a, drawn_b) if relative else drawn_a - drawn_b
    tested = claim.target if claim.criterion == "interval" and claim.target is not None else 0.0
    return p_value(found - tested, means.n_users)


def surviving_of(claim: Claim, table: pl.DataFrame) -> float | None:
    """Share of the claim's gain that the shuffled texts keep; None without such an arm, or without a gain whose
    interval excludes 0: of nothing there is no share.
    """
    if claim.shuffled is None or claim.shuffled not in table["arm"].unique() or claim.low is None or claim.low <= 0:
        return None
    a, b, metric, resamples, seed = _asked(claim)
    rows = decisions_of(table, [a, claim.shuffled, b])
    arms = [(name, RECOMMENDER) for name in (a, claim.shuffled, b)]
    return surviving_gain(rows, arms[0], arms[1], arms[2], metric, resamples=resamples, seed=seed).share


def judged(claims: Mapping[str, Claim], root: Path | str) -> dict[str, Claim]:
    """The claims with the judgement of each; those without a family as they are."""
    found = judge(claims, root)
    return {
        name: dataclasses.replace(claim, **dataclasses.asdict(found[name])) if name in found else claim
        for name, claim in claims.items()
    }


def _asked(claim: Claim) -> tuple[str, str, str, int, int]:
    """The parameters of the claim's estimator: arms a and b, metric, resamples, seed."""
    given = claim.estimator.parameters
    return (
        given["a"],
        given["b"],
        given.get("metric", "recall@1"),
        given.get("resamples", RESAMPLES),
        given.get("seed", 0),
    )


def _check_family(claim: Claim, claims: Mapping[str, Claim]) -> None:
    if claim.family and claim.estimator.name not in DIFFERENCES:
        raise InputError(
            f"claim {claim.id} of estimator {claim.estimator.name}",
            f"a family holds differences of two arms ({', '.join(DIFFERENCES)})",
            "take it out of its family",
        )
    for member in claim.family:
        if member not in claims or set(claims[member].family) != set(claim.family):
            raise InputError(
                f"claim {claim.id} with family {list(claim.family)}",
                f"{member} is {'of another family' if member in claims else 'not in the ledger'}",
                "record the recipe again, and remove the files of claims that it lists no more",
            )
