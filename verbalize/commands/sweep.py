"""`verbalize sweep`: search the keys of a recipe on validation users; `--final` opens test once."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from verbalize.commands.console import Console

if TYPE_CHECKING:
    from verbalize.sweeps.settings import Sweep

ABOUT = "search the keys of a recipe on validation users; the same command resumes and joins others"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `sweep`."""
    sweep = commands.add_parser("sweep", help=ABOUT, description=ABOUT)
    sweep.add_argument("sweep", help="a sweep file, e.g. experiments/sweeps/collaborative.yaml")
    sweep.add_argument(
        "overrides", nargs="*", metavar="key=value", help="keys of the sweep file, e.g. budget.trials=50"
    )
    sweep.add_argument("--workers", type=int, default=1, metavar="N", help="processes on this machine (default: 1)")
    sweep.add_argument(
        "--storage",
        metavar="URL",
        help="postgresql://user@host/db, the same on every machine; default: a local journal",
    )
    sweep.add_argument("--runs", default="runs", help="folder of runs and shared stage artefacts (default: runs)")
    sweep.add_argument("--check", action="store_true", help="check the space against the recipe and stop")
    sweep.add_argument(
        "--final", action="store_true", help="retrain the best with fresh seeds, compare with the default on test users"
    )
    sweep.add_argument("--trial", type=int, metavar="N", help="with --final: this trial instead of the best")
    sweep.add_argument("--record", action="store_true", help="with --final: enter the claim into experiments/results")
    sweep.add_argument("--json", action="store_true", help="print the result as JSON and no progress")
    sweep.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)  # one of the processes of --workers
    sweep.set_defaults(call=_sweep)


def _sweep(options: argparse.Namespace) -> int:
    from recsys.errors import InputError
    from verbalize.sweeps.settings import load_sweep
    from verbalize.sweeps.space import check_space

    if options.workers < 1:
        raise InputError(f"--workers {options.workers}", "must be at least 1", "give the number of processes")
    if (options.trial is not None or options.record) and not options.final:
        raise InputError("--trial or --record", "belong to the comparison on test users", "add --final")
    sweep = load_sweep(options.sweep, options.overrides)
    check_space(sweep)
    if options.check:
        print(f"{options.sweep}: {len(sweep.config.space)} parameters, every end and 64 draws build a recipe")
        return 0
    notice = sweep.recipe().tracking.notice
    if notice and not options.worker and not options.json:
        print(notice, flush=True)
    return _final(options, sweep) if options.final else _search(options, sweep)


def _search(options: argparse.Namespace, sweep: "Sweep") -> int:
    from verbalize.sweeps.results import text, write_results
    from verbalize.sweeps.storage import folder_of_sweep, open_study
    from verbalize.sweeps.worker import most_trials, work

    study = open_study(sweep, options.runs, options.storage)
    if options.workers > 1:
        ended = _spawn(options)
    else:
        progress = None if options.worker or options.json else Console()
        out = sys.stderr if options.json else sys.stdout
        work(sweep, study, options.runs, _command(options), progress, lambda line: print(line, file=out, flush=True))
        ended = 0
    if options.worker:
        return 0
    found = write_results(sweep, study, options.runs)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"\n{text(found)}\n\n{folder_of_sweep(options.runs, found['sweep'])}")
    done = sum(found["counts"].get(state, 0) for state in ("complete", "pruned", "failed"))
    if ended and done < most_trials(sweep):
        print("verbalize: workers ended early; nothing is lost, the same command resumes", file=sys.stderr)
        return 1
    return 0


def _final(options: argparse.Namespace, sweep: "Sweep") -> int:
    from verbalize.sweeps.final import final, text
    from verbalize.sweeps.storage import open_study

    study = open_study(sweep, options.runs, options.storage, create=False)
    record = Path.cwd() if options.record else None
    progress = None if options.json else Console()
    found = final(sweep, study, options.runs, _command(options), progress, options.trial, record)
    print(json.dumps(found, indent=2) if options.json else f"\n{text(found)}")
    return 0


def _spawn(options: argparse.Namespace) -> int:
    """Run the workers as processes of their own; returns how many ended with an error. Ctrl-C reaches them all."""
    import os
    import subprocess

    words = [
        sys.executable,
        "-m",
        "verbalize.cli",
        "sweep",
        options.sweep,
        *options.overrides,
        "--worker",
        "--runs",
        options.runs,
    ]
    words += ["--storage", options.storage] if options.storage else []
    words += ["--json"] if options.json else []
    threads = max(1, (os.cpu_count() or 1) // options.workers)
    environment = {"OMP_NUM_THREADS": str(threads), "POLARS_MAX_THREADS": str(threads)} | os.environ
    workers = [subprocess.Popen(words, env=environment) for _ in range(options.workers)]
    return sum(worker.wait() != 0 for worker in workers)


def _command(options: argparse.Namespace) -> str:
    words = ["verbalize", "sweep", options.sweep, *options.overrides]
    return " ".join([*words, *(["--final"] if options.final else []), *(["--record"] if options.record else [])])
