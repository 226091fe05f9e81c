"""A stage's folder without somebody's rows, whole or untouched, and marked.

Why rows are taken out and the stage is not dropped: a dropped stage would be computed again from the source, which may
still hold the user, and what others' rows took hours to compute would go with one user. So the tables are written again
without the rows, and `done.json` keeps its configuration and facts (they tell of the day the stage finished), gets the
new sizes and hashes, and a count: `forgotten: {users, rows}`. Kept chunks of finished work (`parts/`) quote texts by
position and are deleted; an unfinished stage that holds such rows is dropped, since it would go on from them. A library
of experience is dropped as well: the same recipe builds it again in seconds, from a pool that no longer knows them.

A kill cannot leave a mixture: the new files and a plan (`.forget.json`) are written first, then the files are swapped,
then `done.json`; whoever finds a plan carries it out.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import polars as pl

from recsys.locks import hold_lock
from recsys.storage import file_hash, read_json, read_parquet, write_json, write_parquet
from verbalize.forget.rows import EXAMPLE, READABLE, Subject, rows_of, write_without
from verbalize.pipeline import DONE
from verbalize.recipe_sections import SHUFFLED
from verbalize.stages.experience import LIBRARY

PLAN = ".forget.json"
NEW = ".forget-"
PARTS = "parts"
TEXTS = "verbalizations.parquet"


@dataclass(frozen=True)
class Removed:
    """`rows` taken out of `place`; `how` tells where a file or folder went wholly."""

    place: str
    rows: int
    how: str = "rows removed"


def stage_folders(artefacts: Path) -> list[Path]:
    """`<stage>/<key>` below a store of artefacts, dependants first: whose an example id was is read from the examples
    table, so that table loses it last."""
    last = {"examples": 1, "logs": 2}
    stages = [path for path in artefacts.iterdir() if path.is_dir()] if artefacts.is_dir() else []
    folders = [path for stage in stages for path in stage.iterdir() if path.is_dir()]
    return sorted(folders, key=lambda path: (last.get(path.parent.name, 0), path))


def forget_in_stage(folder: Path, subject: Subject, dry_run: bool) -> list[Removed]:
    """Take the subject's rows out of a stage's folder; says what was (or would be) removed. Raises InputError while a
    run works there."""
    with _alone(folder):
        if not dry_run:
            _carry_out(folder)
        if lessons := _lessons(folder, subject):
            if not dry_run:
                _empty(folder)
            return [Removed(str(folder), lessons, "experience dropped: the same recipe builds it again without them")]
        held = {path: rows for path in _data_files(folder) if (rows := rows_of(path, subject))}
        others = _handed_on(folder, subject)
        if not held and others.is_empty():
            return []
        if not (folder / DONE).exists():
            if not dry_run:
                _empty(folder)
            return [Removed(str(folder), sum(held.values()), "unfinished stage dropped")]
        changed = {path: rows for path, rows in held.items() if PARTS not in path.relative_to(folder).parts}
        gone = [path for path in (folder / PARTS,) if path.exists()] + sorted(folder.rglob("aborted-*.pt"))
        removed = [Removed(str(path), rows) for path, rows in sorted(changed.items())]
        if len(others):
            changed.setdefault(folder / TEXTS, 0)
            removed.append(
                Removed(str(folder / TEXTS), len(others), "texts that shuffling gave to other users removed")
            )
        removed += [Removed(str(path), 0, "deleted: kept chunks quote texts by position") for path in gone]
        if not dry_run:
            _plan(folder, sorted(changed), gone, subject, others, sum(one.rows for one in removed))
            _carry_out(folder)
        return removed


def drop_stage(folder: Path, dry_run: bool) -> list[Removed]:
    """Drop a finished stage that the same command makes again in seconds: a report quotes whole histories."""
    if not (folder / DONE).exists():
        return []
    with _alone(folder):
        if not dry_run:
            _empty(folder)
    return [Removed(str(folder), 0, "dropped: the same recipe makes it again")]


def _plan(
    folder: Path, changed: list[Path], gone: list[Path], subject: Subject, others: pl.DataFrame, rows: int
) -> None:
    """Write the new files and what to do with them."""
    done: dict[str, Any] = read_json(folder / DONE)
    for path in changed:
        new = path.with_name(NEW + path.name)
        write_without(path, subject, new)
        if path == folder / TEXTS:
            write_parquet(read_parquet(new).join(others, on=others.columns, how="anti", maintain_order="left"), new)
        done["files"][str(path.relative_to(folder))] = {"bytes": new.stat().st_size, "sha256": file_hash(new)}
    for path in gone:
        done["files"].pop(str(path.relative_to(folder)), None)
    before = done.get("forgotten", {"users": 0, "rows": 0})
    done["forgotten"] = {"users": before["users"] + len(subject.users), "rows": before["rows"] + rows}
    plan = {
        "changed": [str(path.relative_to(folder)) for path in changed],
        "gone": [str(path.relative_to(folder)) for path in gone],
    }
    write_json({**plan, "done": done}, folder / PLAN)


def _carry_out(folder: Path) -> None:
    """Do what a plan says, from wherever a kill left it; without a plan, delete files that were written for one."""
    if not (folder / PLAN).exists():
        for path in folder.rglob(f"{NEW}*"):
            path.unlink()
        return
    plan = read_json(folder / PLAN)
    for name in plan["changed"]:
        new = (folder / name).with_name(NEW + Path(name).name)
        if new.exists():
            os.replace(new, folder / name)
    for name in plan["gone"]:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    write_json(plan["done"], folder / DONE)
    (folder / PLAN).unlink()


def _handed_on(folder: Path, subject: Subject) -> pl.DataFrame:
    """example_id and verbalizer of the shuffled control's texts that were written of the subject: they stand under
    other users' examples."""
    path = folder / TEXTS
    if not path.exists():
        return pl.DataFrame(schema={EXAMPLE: pl.String, "verbalizer": pl.String})
    texts = read_parquet(path)
    mine = texts.filter(subject.condition(texts.columns), pl.col("text") != "")["text"].unique()
    handed = pl.col("verbalizer").str.starts_with(SHUFFLED) & pl.col("text").is_in(mine.implode())
    return texts.filter(handed & ~subject.condition(texts.columns)).select(EXAMPLE, "verbalizer")


def _lessons(folder: Path, subject: Subject) -> int:
    """Records of a stage's library of experience that were made from them."""
    tables = [read_parquet(path) for path in sorted((folder / LIBRARY).rglob("*.parquet"))]
    theirs = pl.element().is_in(sorted(subject.users))
    return sum(int(table["users"].list.eval(theirs).list.any().sum()) for table in tables if "users" in table.columns)


def _data_files(folder: Path) -> list[Path]:
    """Files whose rows can be read, `done.json` apart."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix in READABLE]
    return [path for path in sorted(files) if path.name != DONE and not path.name.startswith(".")]


def _empty(folder: Path) -> None:
    """Delete what is in a stage's folder, `done.json` first: without it the stage counts as not begun."""
    (folder / DONE).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _alone(folder: Path) -> IO[str]:
    """The lock that a running stage holds. Raises InputError when it is taken."""
    return hold_lock(folder, "a stage", "a run is working in this folder", "wait for it, then forget")
