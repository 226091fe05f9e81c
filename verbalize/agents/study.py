"""Studies of agents: one YAML file each, whose `kind` names the module that carries it out.

The contract. The module of a kind offers

    Config      a frozen dataclass, filled strictly from the file (its keys but `kind`), with a field `name: str`; it
                and its module import without torch, so heavy imports stand inside `run`
    run         run(config, folder, progress, command) -> StudyResult. `folder` is the study's own, locked while it
                runs; whatever costs time is written there under keys of what it depends on, so that the same call
                resumes and a changed option repeats exactly what depends on it. `command` goes into the cards of
                adapters.
    claims_of   claims_of(config) -> the claims that a run of it has the evidence for: none from fewer than LEAST_GAMES
                games or LEAST_SEEDS seeds. So that nobody waits hours for a run that cannot be recorded. Left out by a
                kind that never claims anything: of it the facts alone are recorded.

A module knows neither the command line nor the ledger: what it publishes it returns as facts and as per-task values
with the claims computed from them; `run_study` and `record` here enter them, as recipes do.
"""

import importlib
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.errors import InputError
from recsys.locks import hold_lock
from recsys.storage import write_json, write_text
from verbalize.config import build, load_yaml, override, plain
from verbalize.pipeline import Progress, Silent

if TYPE_CHECKING:
    import polars as pl

    from verbalize.report.claims import Claim

KINDS = {
    "exprag": "verbalize.agents.exprag_study",
    "slea": "verbalize.agents.slea_study",
    "slea_verbalizer": "verbalize.agents.verbalizer_study",
}
"""Kind -> the module with its `Config` and `run`."""

FOLDER = "agents"
"""Below the folder of runs; a study lies in `<runs>/agents/<name>`."""

LEAST_GAMES, LEAST_SEEDS = 100, 3
"""No study claims anything from fewer test games, or from fewer trainings of an arm."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class StudyClaim:
    """A ledger entry: the mean value of arm `a` minus that of arm `b` over the same tasks."""

    id: str
    statement: str
    a: str
    b: str
    target: float | None = 0.0
    note: str | None = None


@dataclass(frozen=True)
class StudyResult:
    """What a study found: `facts` (plain JSON values), `text` for people, and what may be recorded.

    `values` has the columns example_id, user_id (both the task: tasks are what intervals resample), arm, seed, value;
    None, without claims, where nothing is to be recorded (difficulty measured on development tasks, say).
    """

    facts: Mapping[str, Any]
    text: str
    values: "pl.DataFrame | None" = None
    claims: tuple[StudyClaim, ...] = field(default=())


@dataclass(frozen=True)
class Study:
    """A file that has been read: what to do and who does it."""

    kind: str
    config: Any
    run: Callable[[Any, Path, Progress, str], StudyResult]
    claims_of: Callable[[Any], Sequence[StudyClaim]] | None

    @property
    def name(self) -> str:
        return str(self.config.name)


def load_study(path: Path | str, overrides: Sequence[str] = ()) -> Study:
    """Read a study file with `key=value` overrides. Raises InputError for an unknown kind, key or value."""
    values = override(load_yaml(path), overrides)
    kind = values.pop("kind", None)
    if kind not in KINDS:
        raise InputError(f"kind = {kind!r}", f"must be one of {', '.join(KINDS)}", f"set it in {path}")
    module = importlib.import_module(KINDS[kind])
    study = Study(kind, build(module.Config, values), module.run, getattr(module, "claims_of", None))
    if not _NAME.fullmatch(study.name):
        raise InputError(
            f"name = {study.name!r}", "names a folder: lower-case letters, digits, - and _", "choose another"
        )
    return study


def run_study(
    study: Study,
    runs: Path | str,
    command: str,
    progress: Progress | None = None,
    record_in: Path | None = None,
) -> tuple[StudyResult, Path]:
    """Carry out what is missing; write study.json, result.json and result.txt into the study's folder, which is
    returned too. `record_in` is the root of a repository that receives the facts, and whose ledger receives the claims
    and their evidence.

    Raises InputError when another process runs the same study, and, before anything is done, when a run of it would
    leave nothing to record.
    """
    from verbalize.report.ledger import RESULTS
    from verbalize.report.provenance import hardware, revision, today, versions

    if record_in is not None and study.claims_of is not None and not study.claims_of(study.config):
        raise InputError(
            f"study {study.name}",
            "has no claims to record in this form: they need test games, "
            f"{LEAST_GAMES} at least, and {LEAST_SEEDS} seeds",
            "run it in full, or without --record",
        )
    folder = Path(runs) / FOLDER / study.name
    remedy = "wait for it, or give another folder: --runs FOLDER"
    with hold_lock(folder, "a study", "another process is running this study", remedy):
        result = study.run(study.config, folder, progress or Silent(), command)
        provenance = {"revision": revision(), "hardware": hardware(), "date": today(), "versions": versions()}
        manifest = {"kind": study.kind, "config": plain(study.config), "command": command} | provenance
        write_json(manifest, folder / "study.json")
        write_json(result.facts, folder / "result.json")
        write_text(result.text + "\n", folder / "result.txt")
    if record_in is not None:
        write_json(manifest | {"facts": result.facts}, record_in / RESULTS / f"{study.name}.json")
        record(study.name, result, record_in, command)
    return result, folder


def record(name: str, result: StudyResult, root: Path, command: str) -> "list[Claim]":
    """Write the evidence and the claims, if there are any, into the ledger under `root`."""
    from verbalize.report.artefacts import values_table, write_artefact
    from verbalize.report.claims import Estimator
    from verbalize.report.ledger import RESULTS, assemble, write_claim

    if result.values is None:
        return []
    artefact = root / RESULTS / "artefacts" / f"{name}.successes.csv.gz"
    write_artefact(values_table(result.values, secrets.token_hex(16)), artefact)
    written = [
        write_claim(
            root,
            claim.id,
            claim.statement,
            unit="score difference",
            estimator=Estimator("mean_difference", {"a": claim.a, "b": claim.b}),
            artefact=artefact,
            command=command,
            target=claim.target,
            note=claim.note,
        )
        for claim in result.claims
    ]
    assemble(root)
    return written
