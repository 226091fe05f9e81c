"""`verbalize data forget`: remove users everywhere, and say where they cannot be removed."""

import argparse
from pathlib import Path
from typing import Any


def add(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `data forget`."""
    command = actions.add_parser(
        "forget",
        help="remove users from stores, stage artefacts and experience; name the adapters that learned from them",
        description="Remove users from stores, runs and experience libraries, then look through every file whether "
        "their ids still stand anywhere. Source logs, trained weights and exports outside the runs are not changed: "
        "adapters and exports are named. Exit code 1 when something remains.",
    )
    command.add_argument("--user", action="append", required=True, metavar="ID", help="may be given several times")
    command.add_argument("--store", action="append", default=[], metavar="FOLDER", help="a store of `data append`")
    command.add_argument("--runs", action="append", default=[], metavar="FOLDER", help="a folder of runs")
    command.add_argument("--library", action="append", default=[], metavar="FOLDER", help="an experience library")
    command.add_argument("--dry-run", action="store_true", help="list what would go; change nothing")
    command.set_defaults(call=_forget)


def _forget(options: argparse.Namespace) -> int:
    from recsys.errors import InputError
    from verbalize.forget import LibraryKeeper, forget

    if not (options.store or options.runs or options.library):
        raise InputError("no folder", "there is nowhere to forget", "give --store, --runs or --library")
    keepers = [LibraryKeeper(path) for path in options.library]
    stores, runs = ([Path(path) for path in paths] for paths in (options.store, options.runs))
    report = forget(options.user, stores, runs, keepers, options.dry_run)
    _print(report, options.dry_run)
    remains = bool(report.found.remaining) or any(export.present for export in report.exports)
    return int(remains and not options.dry_run)


def _print(report: Any, dry_run: bool) -> None:
    print("would be removed:" if dry_run else "removed:")
    for one in report.removed:
        print(f"  {one.rows:>8,}  {one.place}  ({one.how})")
    if not report.removed:
        print("  nothing: no row names them")
    if report.adapters:
        print("adapters that learned from them (weights cannot forget; train again without them):")
        for one in report.adapters:
            print(f"  {one.adapter}: {one.why}; used by {', '.join(one.runs) or 'no run'}")
    if report.exports:
        print("exports of runs with them, which quote histories; they must be deleted by you:")
        for export in report.exports:
            there = f"{export.present} files" if export.present else "no longer there; wherever it was moved or sent"
            print(f"  {export.folder}: {there}")
    places = report.found.remaining
    print(f"their ids now stand in {sum(places.values()):,} values of these folders{':' if places else ''}")
    for place, count in sorted(places.items()):
        print(f"  {count:>8,}  {place}")
    if report.found.elsewhere:
        print("equal texts under other names (item ids, titles): not theirs unless you know better")
        for place, count in sorted(report.found.elsewhere.items()):
            print(f"  {count:>8,}  {place}")
    if report.found.unread:
        kinds = ", ".join(f"{suffix} {count}" for suffix, count in sorted(report.found.unread.items()))
        print(f"not looked into: {kinds}")
