"""The order of forgetting: find the users' examples, say what learned from them, remove, look whether any is left."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from recsys.errors import InputError
from recsys.logs.store import Store
from recsys.storage import read_json, read_parquet, write_json
from verbalize.forget.adapters import Trained, trained_on
from verbalize.forget.exports import Export, delete_exports, exports_left
from verbalize.forget.keepers import Keeper
from verbalize.forget.rows import EXAMPLE, READABLE, USER, Subject, rows_of, write_without
from verbalize.forget.scan import Found, scan
from verbalize.forget.stages import Removed, drop_stage, forget_in_stage, stage_folders
from verbalize.forget.studies import forget_in_studies, studies_that_trained
from verbalize.pipeline import STORE

REPORT = ("report.html", "report.txt")
RECORD = "forgotten.json"
"""In a folder of runs: per forgetting the day, how many users, the adapters that learned from them and the folders
outside that exports went to; no ids. Written before anything is removed, since the rows that tell which these are go
with the rest."""


@dataclass(frozen=True)
class Forgotten:
    """What was (in a dry run: would be) removed where, which adapters learned from the users, what a scan of every file
    found afterwards (in a dry run: finds now), and the exports outside that a person has to delete."""

    removed: tuple[Removed, ...]
    adapters: tuple[Trained, ...]
    found: Found
    exports: tuple[Export, ...] = ()


def forget(
    users: Sequence[str],
    stores: Sequence[Path] = (),
    runs: Sequence[Path] = (),
    keepers: Sequence[Keeper] = (),
    dry_run: bool = False,
) -> Forgotten:
    """Remove users everywhere below the given folders. Doing it again after an interruption finishes it.

    Raises InputError for a folder that is not what it is said to be, or is being written to.
    """
    if not users:
        raise InputError("users: (nobody)", "somebody is to be forgotten", "name at least one user id")
    for folder in runs:
        if not (folder / STORE).is_dir():
            raise InputError(str(folder), f"holds no {STORE}", "name a folder of runs: --runs FOLDER")
    opened = [Store(path) for path in stores]
    folders = [*stores, *runs, *(keeper.folder for keeper in keepers)]
    subject = Subject(frozenset(users), frozenset(_examples_of(set(users), opened, runs)))
    adapters: list[Trained] = []
    exports: list[Export] = []
    touched = {folder: _touched(folder, subject) for folder in runs}
    for folder in runs:
        learned = trained_on(folder, subject) + studies_that_trained(folder, subject)
        sent = exports_left(folder, _runs_with(folder, touched[folder]))
        adapters += learned
        exports += sent
        if (learned or sent) and not dry_run:
            _record(folder / RECORD, learned, sent, len(users))
    removed = [one for folder in runs for one in forget_in_studies(folder, subject, dry_run)]
    removed += [one for folder in runs for one in _from_runs(folder, touched[folder], subject, dry_run)]
    for keeper in keepers:
        count = keeper.holds(users) if dry_run else keeper.forget(users)
        removed += [Removed(str(keeper.folder), count, "records removed")] if count else []
    for store in opened:
        held = store.holds(users) if dry_run else store.forget(users)
        removed += [Removed(f"{store.root} ({table})", rows) for table, rows in held.items() if rows]
    return Forgotten(tuple(removed), tuple(adapters), scan(folders, subject), tuple(exports))


def _examples_of(users: set[str], stores: Iterable[Store], runs: Iterable[Path]) -> set[str]:
    """Ids of the users' examples, from every table that names both."""
    tables = [store.examples().select(USER, EXAMPLE) for store in stores]
    for folder in runs:
        for path in sorted((folder / STORE).rglob("*.parquet")):
            if {USER, EXAMPLE} <= set(pl.read_parquet_schema(path)):
                tables.append(read_parquet(path).select(USER, EXAMPLE))
    return {
        example for table in tables for example in table.filter(pl.col(USER).is_in(sorted(users)))[EXAMPLE].unique()
    }


def _from_runs(runs: Path, touched: dict[Path, list[Removed]], subject: Subject, dry_run: bool) -> list[Removed]:
    """Exports and reports first, then what names the user only through an example, then every stage: what is found by a
    later table goes before it, so that a killed forgetting still finds all of it when it is done again."""
    if not touched:
        return _from_loose_files(runs, subject, dry_run)
    removed = list(delete_exports(runs, _runs_with(runs, touched), dry_run))
    removed += _drop_reports(runs, touched, dry_run) + _from_loose_files(runs, subject, dry_run)
    for folder in stage_folders(runs / STORE):
        removed += touched.get(folder, []) if dry_run else forget_in_stage(folder, subject, dry_run=False)
    return removed


def _touched(runs: Path, subject: Subject) -> dict[Path, list[Removed]]:
    """The folders of stages that hold the subject, each with what would be removed."""
    planned = {folder: forget_in_stage(folder, subject, dry_run=True) for folder in stage_folders(runs / STORE)}
    return {folder: removed for folder, removed in planned.items() if removed}


def _runs_with(runs: Path, touched: Collection[Path]) -> list[Path]:
    """The folders of the runs that used one of these stages."""
    return [path.parent for path in sorted(runs.glob("*/manifest.json")) if _stages_of(path) & _keys(touched)]


def _stages_of(manifest: Path) -> set[tuple[str, str]]:
    return {(name, facts["key"]) for name, facts in read_json(manifest)["stages"].items()}


def _keys(folders: Collection[Path]) -> set[tuple[str, str]]:
    return {(folder.parent.name, folder.name) for folder in folders}


def _drop_reports(runs: Path, touched: Collection[Path], dry_run: bool) -> list[Removed]:
    """The reports of the runs that used one of these stages, and those that no manifest names."""
    removed: list[Removed] = []
    clean = set()
    for path in sorted(runs.glob("*/manifest.json")):
        stages = _stages_of(path)
        if stages & _keys(touched):
            removed += _delete([path.parent / name for name in REPORT], dry_run)
        else:
            clean |= {key for name, key in stages if name == "report"}
    for folder in sorted((runs / STORE / "report").glob("*")):
        removed += drop_stage(folder, dry_run) if folder.name not in clean else []
    return removed


def _from_loose_files(runs: Path, subject: Subject, dry_run: bool) -> list[Removed]:
    """Out of tables and lists that lie beside the store of artefacts, such as a run's own."""
    removed = []
    for path in sorted(runs.rglob("*")):
        if path.suffix not in READABLE or not path.is_file() or runs / STORE in path.parents:
            continue
        if rows := rows_of(path, subject):
            if not dry_run:
                write_without(path, subject, path)
            removed.append(Removed(str(path), rows))
    return removed


def _record(path: Path, learned: Sequence[Trained], sent: Sequence[Export], users: int) -> None:
    known = read_json(path) if path.exists() else []
    entry = {"users": users, "adapters": [asdict(one) for one in learned], "exports": [one.folder for one in sent]}
    write_json([*known, {"day": datetime.now(UTC).date().isoformat(), **entry}], path)


def _delete(paths: Iterable[Path], dry_run: bool) -> list[Removed]:
    present = [path for path in paths if path.exists()]
    for path in present:
        if not dry_run:
            path.unlink()
    return [
        Removed(str(path), 0, "deleted: a report quotes histories; the same recipe makes it again") for path in present
    ]
