"""The ledger of claims: every number we publish, recomputed from committed evidence each time it is checked.

    python -m verbalize.report.ledger verify     recompute every claim, check claims.json and the numbers in documents
    python -m verbalize.report.ledger assemble   write claims.json from the files of single claims
    python -m verbalize.report.ledger readme     assemble, then write the numbers into README and docs

Under `experiments/results/`: `claims/<id>.json`, one file per claim, written by the recipe or benchmark that measured
it (`write_claim`); `claims.json`, assembled from them; `artefacts/`, the evidence. Numbers are never passed in:
`write_claim` computes them from the artefact with the same estimator that `verify` uses, with named seeds, so the two
can only differ when a file was changed. Claims that a recipe listed together are judged together once all are written
(`judge_families`).
"""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.errors import InputError
from recsys.storage import read_json, write_json
from verbalize.report.artefacts import read_artefact
from verbalize.report.claims import Claim, Estimator, format_claim, format_target
from verbalize.report.estimators import Estimate, estimate
from verbalize.report.markers import check_markers, update_markers
from verbalize.report.primary import judge, judged
from verbalize.report.provenance import RESULTS, hardware, revision, today

CLAIMS = RESULTS / "claims"
ASSEMBLED = RESULTS / "claims.json"
_TOLERANCE = 2e-6  # numbers are stored with 6 decimals


@dataclass(frozen=True)
class Problem:
    """One thing that makes `verify` fail: where, and what."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def write_claim(
    root: Path | str,
    claim_id: str,
    statement: str,
    *,
    unit: str,
    estimator: Estimator,
    artefact: Path | str | None,
    command: str,
    target: float | None = None,
    direction: str = "higher",
    criterion: str = "interval",
    note: str | None = None,
    measured_on: str | None = None,
    family: Sequence[str] = (),
    shuffled: str | None = None,
) -> Claim:
    """Compute the claim from its artefact (a path under `root`), stamp it with hardware, revision and date, and write
    its file.

    `artefact` None records a claim that could not be measured; `note` then says why. `note` None keeps the note already
    in the file, unless that said why there was no measurement and now there is one. `measured_on` replaces this
    machine's description when another one made the artefact. A claim with a `family` is judged by `judge_families`,
    when the others are there.
    """
    root = Path(root)
    path = root / CLAIMS / f"{claim_id}.json"
    if note is None:
        known = load_claim(path) if path.exists() else None
        note = known.note if known is not None and (known.value is None) == (artefact is None) else ""
    stamps: dict[str, Any] = {
        "hardware": measured_on or hardware(),
        "revision": revision(root),
        "date": today(),
        "command": command,
    }
    place = None if artefact is None else _relative(root, artefact)
    claim = Claim(
        claim_id,
        statement,
        unit,
        estimator,
        target=target,
        direction=direction,
        criterion=criterion,
        artefact=place,
        note=note,
        family=tuple(family),
        shuffled=shuffled,
        **stamps,
        **_numbers(None if place is None else recompute_from(estimator, root / place)),
    )
    write_json(claim.to_json(), path)
    return claim


def recompute(claim: Claim, root: Path | str) -> Estimate:
    """Value, low, high, n, n_effective and seeds from the claim's artefact alone. Raises FileNotFoundError when it is
    missing.
    """
    if claim.artefact is None:
        raise InputError(
            f"claim {claim.id} without an artefact",
            "there is nothing to recompute it from",
            "run the recipe that writes it",
        )
    return recompute_from(claim.estimator, Path(root) / _relative(Path(root), claim.artefact))


def recompute_from(estimator: Estimator, path: Path) -> Estimate:
    """`recompute` for an estimator and a file."""
    return estimate(estimator.name, read_artefact(path), estimator.parameters)


def load_claim(path: Path) -> Claim:
    """Read one claim's file. Raises CorruptFileError when it is not one."""
    return Claim.from_json(read_json(path), str(path))


def load_claims(root: Path | str) -> dict[str, Claim]:
    """All claims by id, sorted, from single files. Raises InputError where a file is not named after its claim."""
    claims = {}
    for path in sorted((Path(root) / CLAIMS).glob("*.json")):
        claim = load_claim(path)
        if claim.id != path.stem:
            raise InputError(
                f"{path.name} holds claim {claim.id}",
                "a claim's file is named after its id",
                f"rename it to {claim.id}.json",
            )
        claims[claim.id] = claim
    return claims


def judge_families(root: Path | str) -> dict[str, Claim]:
    """Adjust the primary claims under `root` for each other and apply the shuffle; rewrites the files that change.

    Raises InputError where a family is not complete.
    """
    claims = load_claims(root)
    found = judged(claims, root)
    for name, claim in found.items():
        if claim != claims[name]:
            write_json(claim.to_json(), Path(root) / CLAIMS / f"{name}.json")
    return found


def assemble(root: Path | str) -> dict[str, Claim]:
    """Write claims.json from the single files."""
    claims = load_claims(root)
    write_json(_assembled(claims), Path(root) / ASSEMBLED)
    return claims


def verify(root: Path | str) -> list[Problem]:
    """Everything that disagrees: numbers with their artefacts, claims.json with the single files, documents with the
    ledger.

    Adjusted p-values and what survives a shuffle are recomputed too. A missed target is not a problem: it is listed
    (`listing`) and printed wherever the number is.
    """
    root = Path(root)
    try:
        claims = load_claims(root)
    except ValueError as error:
        return [Problem(str(CLAIMS), str(error))]
    problems = [Problem(claim.id, what) for claim in claims.values() for what in _disagreements(claim, root)]
    problems += _misjudged(claims, root)
    try:
        current = read_json(root / ASSEMBLED) if (root / ASSEMBLED).exists() else None
    except ValueError as error:
        problems.append(Problem(str(ASSEMBLED), str(error)))
    else:
        if current != _assembled(claims):
            problems.append(Problem(str(ASSEMBLED), "differs from the files of single claims; assemble it again"))
    for path, found in check_markers(root, claims).items():
        problems += [Problem(str(path.relative_to(root)), what) for what in found]
    return problems


def listing(claims: Mapping[str, Claim]) -> str:
    """Plain text, one claim a line, the missed ones marked and explained."""
    lines = []
    for claim in sorted(claims.values(), key=lambda c: c.id):
        mark = {"met": "met   ", "missed": "MISSED", "not measured": "  --  "}.get(claim.status, "      ")
        lines.append(
            f"{mark}  {claim.id:<40} {format_claim(claim).partition(' (target')[0]:<34} target {format_target(claim)}"
        )
        if claim.status == "missed":
            reasons = [*claim.objections, *([claim.note] if claim.note else [])]
            lines.append(f"        why: {'; '.join(reasons) or 'no reason recorded yet'}")
    missed = sum(c.status == "missed" for c in claims.values())
    return "\n".join([*lines, f"{len(claims)} claims, {missed} missed"])


def main(arguments: Sequence[str] | None = None, root: Path | str = ".") -> int:
    """The three commands above; returns the exit status (1 when `verify` finds problems, 2 for an unknown command)."""
    commands = list(sys.argv[1:] if arguments is None else arguments)
    if commands == ["verify"]:
        problems = verify(root)
        out = (
            [str(p) for p in problems]
            if problems
            else [listing(load_claims(root)), "every number agrees with its artefact"]
        )
    elif commands == ["assemble"]:
        problems, out = [], [f"{len(assemble(root))} claims in {ASSEMBLED}"]
    elif commands == ["readme"]:
        changed = update_markers(Path(root), assemble(root))
        problems, out = [], [f"wrote {path}" for path in changed] or ["documents agree already"]
    else:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    sys.stdout.write("\n".join(out) + "\n")
    return 1 if problems else 0


def _disagreements(claim: Claim, root: Path) -> list[str]:
    if claim.artefact is None:
        return [] if claim.value is None else ["has a value and no artefact"]
    try:
        found = _numbers(recompute(claim, root))
    except FileNotFoundError:
        return [f"its artefact {claim.artefact} is missing"]
    except ValueError as error:
        return [str(error)]
    stated = {name: getattr(claim, name) for name in found}
    return [
        f"{name} is {stated[name]}, its artefact gives {value}"
        for name, value in found.items()
        if not _equal(stated[name], value)
    ]


def _misjudged(claims: Mapping[str, Claim], root: Path) -> list[Problem]:
    try:
        found = judge(claims, root)
    except FileNotFoundError:  # a problem of its own claim already
        return []
    except ValueError as error:
        return [Problem(str(CLAIMS), str(error))]
    return [
        Problem(claim_id, f"{name} is {getattr(claims[claim_id], name)}, its family's artefacts give {value}")
        for claim_id, judgement in found.items()
        for name, value in dataclasses.asdict(judgement).items()
        if not _equal(getattr(claims[claim_id], name), value)
    ]


def _numbers(found: Estimate | None) -> dict[str, Any]:
    """The measured fields of a claim, rounded as they are stored."""
    if found is None:
        return {}
    fields = dataclasses.asdict(found)
    return {name: round(v, 6) if isinstance(v, float) else v for name, v in fields.items()}


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(a == b)


def _assembled(claims: Mapping[str, Claim]) -> dict[str, Any]:
    return {"claims": [claims[name].to_json() for name in sorted(claims)]}


def _relative(root: Path, path: Path | str) -> str:
    """`path` as text relative to `root`. Raises InputError when it lies outside."""
    path = Path(path)
    absolute = (path if path.is_absolute() else root / path).resolve()
    if not absolute.is_relative_to(root.resolve()):
        raise InputError(f"artefact {path}", "must lie inside the repository", f"write it under {RESULTS}")
    return absolute.relative_to(root.resolve()).as_posix()


if __name__ == "__main__":
    raise SystemExit(main())
