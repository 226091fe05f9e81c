"""The claims of a table: one evidence file per data set, and ledger entries computed from it alone."""

import dataclasses
import secrets
from pathlib import Path

import polars as pl

from recsys.errors import InputError
from verbalize.report.artefacts import outcomes_table, write_artefact
from verbalize.report.claims import Claim, Estimator
from verbalize.report.ledger import CLAIMS, RESULTS, assemble, judge_families, load_claim, write_claim
from verbalize.report.primary import DIFFERENCES
from verbalize.tables.names import PLACE, shuffled_of
from verbalize.tables.results import resolved
from verbalize.tables.run import State, cells_of
from verbalize.tables.settings import TableClaim

ARM = "{verbalizer}"
"""Opaque rows name an arm as the table does: the recommender is part of its cell."""


@dataclasses.dataclass(frozen=True)
class Measurable:
    """A claim on one data set: its estimator over the table's arms, or the reason why there is no number."""

    claim: TableClaim
    set: str
    estimator: Estimator
    reason: str = ""

    @property
    def arms(self) -> list[str]:
        """The arms that the estimator reads."""
        return _arms(self.estimator) if not self.reason else []


def measurables(state: State, name: str) -> list[Measurable]:
    """The claims listed for a data set, in the file's order."""
    return [_measurable(state, name, claim) for claim in state.table.config.claims if claim.id and name in claim.sets]


def write_claims(state: State, name: str, decisions: pl.DataFrame | None, root: Path, command: str) -> list[Claim]:
    """Evidence and ledger entries of a data set below `root`; an unmeasured claim says why, and never replaces a
    measured one."""
    root, found = root.resolve(), measurables(state, name)
    arms = {arm for one in found for arm in one.arms}
    if _narrower(found, root, set() if decisions is None else set(decisions["verbalizer"])):
        judged = judge_families(root)
        return [judged[_id(one)] for one in found if _id(one) in judged]
    artefact = root / RESULTS / "artefacts" / f"{state.table.config.name}.{name}.csv.gz"
    if decisions is not None and arms:
        chosen = decisions.filter(pl.col("verbalizer").is_in(sorted(arms)))
        # The salt is thrown away: nothing leads from a published id back to a user.
        write_artefact(outcomes_table(chosen, secrets.token_hex(16), arm=ARM), artefact)
    # What has no number yet counts against the others: a table read half way must not look better than at its end.
    family = [_id(one) for one in found if one.estimator.name in DIFFERENCES]
    for one in found:
        _write(one, artefact, root, command, family if one.estimator.name in DIFFERENCES else [])
    judged = judge_families(root)
    return [judged[_id(one)] for one in found]


def record(state: State, name: str, decisions: pl.DataFrame | None, root: Path, command: str) -> None:
    """Enter a data set's claims into the ledger of the repository at `root`."""
    write_claims(state, name, decisions, root, command)
    assemble(root)


def _measurable(state: State, name: str, claim: TableClaim) -> Measurable:
    surviving = claim.kind == "surviving_share"
    kind = "surviving_share" if surviving else "relative_difference" if claim.relative else "paired_difference"
    try:
        _refuse_weak_rivals(state, name, claim)
        a, b = (resolved(state, name, place) for place in (claim.a, claim.b))
        if surviving:
            shuffled = shuffled_of(a)
            return Measurable(claim, name, Estimator(kind, {"learned": a, "shuffled": shuffled, "baseline": b}))
        return Measurable(claim, name, Estimator(kind, {"a": a, "b": b}))
    except InputError as error:
        return Measurable(claim, name, Estimator(kind, {"a": claim.a, "b": claim.b}), f"{error.value}: {error.rule}")


def _refuse_weak_rivals(state: State, name: str, claim: TableClaim) -> None:
    """A prompt that a model too weak to reflect has evolved is no rival worth beating."""
    for planned in state.planned:
        if planned.set == name and planned.cell.id in cells_of(state.table, claim):
            for recipe in planned.recipes:
                if recipe.gepa is not None and not recipe.gepa.is_rival:
                    raise InputError(
                        f"cell {planned.cell.id}: reflection model {recipe.gepa.reflector}",
                        "is not declared capable of improving instructions, so beating its prompt would show nothing",
                        "set gepa.capable: true with a model that is",
                    )


def _narrower(found: list[Measurable], root: Path, arms: set[str]) -> bool:
    """Whether a claim in the ledger rests on an arm that this run, stopped earlier, does not have: all claims of a data
    set share one evidence file, which must not lose what they were computed from."""
    known = [path for one in found if (path := root / CLAIMS / f"{_id(one)}.json").exists()]
    used = {arm for path in known for claim in [load_claim(path)] if claim.artefact for arm in _arms(claim.estimator)}
    return not used <= arms


def _arms(estimator: Estimator) -> list[str]:
    return [arm for arm in estimator.parameters.values() if isinstance(arm, str)]


def _id(one: Measurable) -> str:
    return one.claim.id.replace(PLACE, one.set)


def _write(one: Measurable, artefact: Path, root: Path, command: str, family: list[str]) -> Claim | None:
    claim, claim_id = one.claim, _id(one)
    path = root / CLAIMS / f"{claim_id}.json"
    before = load_claim(path) if path.exists() else None
    share = claim.kind == "surviving_share"
    unit = "share" if share else "fraction" if claim.relative else "recall@1 difference"

    def write(evidence: Path | None, note: str | None) -> Claim:
        return write_claim(
            root,
            claim_id,
            claim.statement.replace(PLACE, one.set),
            unit=unit,
            estimator=one.estimator,
            artefact=evidence,
            command=command,
            target=claim.target,
            direction=claim.direction,
            criterion=claim.criterion,
            note=note,
            family=family,
        )

    reason = one.reason
    if not reason:
        try:
            # A note written by hand explains a number; one that explained its absence is no longer true.
            return write(artefact, None if before is not None and before.value is not None else "")
        except InputError as error:
            reason = f"{error.value}: {error.rule}"
    return write(None, reason) if before is None or before.value is None else None
