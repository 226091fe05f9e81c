"""What a benchmark leaves: its figures, its raw timings as evidence and, from a standard run, its claim in the ledger.

Nothing here is timed. Imports are inside the functions, so that a process that measures an arm's memory holds the arm.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "results"


def parser_of(description: str | None, repeats: int | None) -> argparse.ArgumentParser:
    """The options that every benchmark has: --out and, where it measures times (`repeats`: how often), --repeats."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--out", type=Path, default=RESULTS, help="anywhere else: files only, no claim is entered")
    return parser


def processes(
    script: str, arms: Sequence[str], folder: Path, repeats: int, shown: Sequence[str]
) -> list[dict[str, Any]]:
    """One record per run: each a fresh process `script --arm ARM --data folder` that leaves folder/ARM.json.

    Arms alternate, so that load falls on all of them. `shown` are the fields to print. Ends the benchmark when the
    runs' digests differ; the records come without them.
    """
    runs: list[dict[str, Any]] = []
    for repeat in range(repeats):
        for arm in sorted(arms, reverse=bool(repeat % 2)):
            subprocess.run([sys.executable, script, "--arm", arm, "--data", str(folder)], check=True)
            report = json.loads((folder / f"{arm}.json").read_text())
            runs.append({"arm": arm, "repeat": repeat, **report})
            say(f"{repeat} {arm}: {report['seconds']:.2f} s, " + ", ".join(f"{name} {report[name]}" for name in shown))
    if len({json.dumps(run["digest"]) for run in runs}) != 1:
        raise SystemExit(f"the arms disagree: {[(run['arm'], run['digest']) for run in runs[: len(arms)]]}")
    return [{name: value for name, value in run.items() if name != "digest"} for run in runs]


def record(
    name: str,
    out: Path,
    evidence: "pl.DataFrame",
    settings: Mapping[str, Any],
    packages: tuple[str, ...],
    figures: Mapping[str, Any],
    suffix: str = ".csv",
) -> Path:
    """Write out/name.json (settings, surroundings, figures) and out/artefacts/name.csv, or .csv.gz for thousands of
    rows; the path of the latter."""
    from recsys.storage import write_json
    from verbalize.report.artefacts import write_artefact
    from verbalize.report.provenance import hardware, versions

    surroundings = {"versions": versions(packages), "hardware": hardware(), "load_average": os.getloadavg()[0]}
    write_json({"benchmark": name, "settings": dict(settings), **surroundings, **figures}, out / f"{name}.json")
    artefact = out / "artefacts" / f"{name}{suffix}"
    write_artefact(evidence, artefact)
    return artefact


def enter(out: Path, claim_id: str, statement: str, **settings: Any) -> None:
    """Enter a claim, with the settings of `write_claim`, in the ledger; only for a run that wrote to `RESULTS`."""
    from verbalize.report.claims import format_claim
    from verbalize.report.ledger import assemble, write_claim

    if out.resolve() != RESULTS:
        return
    claim = write_claim(ROOT, claim_id, statement, **settings)
    assemble(ROOT)
    say(f"{claim.id} {format_claim(claim)}")


def ratio(slow: str, fast: str) -> dict[str, Any]:
    """The settings of a claim on the time of one arm over that of another."""
    from verbalize.report.claims import Estimator

    return {"unit": "ratio", "estimator": Estimator("ratio_of_times", {"slow": slow, "fast": fast})}


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
