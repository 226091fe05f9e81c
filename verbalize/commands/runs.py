"""`verbalize runs`: local runs and sweeps, and how two runs differ."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `runs [list | compare A B ...]`."""
    about = "list local runs and sweeps, or compare runs: configurations, metrics, training, time"
    runs = commands.add_parser("runs", help=about, description=about)
    runs.add_argument("action", nargs="?", choices=["list", "compare"], default="list")
    runs.add_argument("names", nargs="*", metavar="RUN", help="names of runs, for compare")
    runs.add_argument("--runs", default="runs", help="folder of runs (default: runs)")
    runs.add_argument("--json", action="store_true", help="print JSON")
    runs.set_defaults(call=_runs)


def _runs(options: argparse.Namespace) -> int:
    from recsys.errors import InputError
    from verbalize.inventory import compare_runs, list_runs, list_sweeps

    folder = Path(options.runs)
    if not folder.is_dir():
        raise InputError(str(folder), "is no folder of runs", "give one by --runs, or run a recipe first")
    if options.action == "list":
        if options.names:
            raise InputError(f"runs list {' '.join(options.names)}", "lists all runs", "compare takes names")
        found: dict[str, Any] = {"runs": list_runs(folder), "sweeps": list_sweeps(folder)}
        print(json.dumps(found, indent=2) if options.json else _listing(found))
    else:
        found = compare_runs(folder, options.names)
        print(json.dumps(found, indent=2) if options.json else _comparison(found))
    return 0


def _listing(found: Mapping[str, Any]) -> str:
    lines = [_columns([("run", 24), ("status", 11), ("stages", 7), ("seconds", 9), ("split", 11), ("Recall@1", 0)])]
    for run in found["runs"]:
        best = sorted(run.get("recall@1", {}).items(), key=lambda pair: -pair[1])
        learned = [pair for pair in best if pair[0].startswith("learned /")]
        shown = ", ".join(f"{arm} {value:.3f}" for arm, value in dict([*learned, *best[:2]]).items())
        seconds = "" if run["seconds"] is None else f"{run['seconds']:,.0f}"
        cells = [(run["name"], 24), (run["status"], 11), (str(len(run["stages"])), 7), (seconds, 9)]
        lines.append(_columns([*cells, (run.get("split", ""), 11), (shown, 0)]))
    if not found["runs"]:
        lines.append("no runs yet")
    for sweep in found["sweeps"]:
        counts = ", ".join(f"{number} {state}" for state, number in sweep["counts"].items())
        best = sweep["best"]
        shown = "" if best is None else f"; best {sweep['objective'][0]} {best['value']:.4f} with {best['params']}"
        lines.append(f"sweep {sweep['name']}: {counts}{shown}")
    return "\n".join(lines)


def _comparison(found: Mapping[str, Any]) -> str:
    names: Sequence[str] = found["runs"]
    lines = [_columns([("configuration", 40), *((name, 24) for name in names)])]
    for key, values in found["configuration"].items():
        lines.append(_columns([(key, 40), *((json.dumps(values[name]), 24) for name in names)]))
    lines += ["", _columns([("Recall@1 (MRR)", 40), *((name, 24) for name in names)])]
    for arm, by_run in found["metrics"].items():
        cells = [
            f"{by_run[name]['recall@1']:.3f} ({by_run[name]['mrr']:.3f})" if name in by_run else "" for name in names
        ]
        lines.append(_columns([(arm, 40), *((cell, 24) for cell in cells)]))
    rewards = dict.fromkeys(
        key for name in names for key in found["training"][name] if key.endswith("validation/reward")
    )
    for key in rewards:
        cells = [f"{found['training'][name][key]:.4f}" if key in found["training"][name] else "" for name in names]
        lines.append(_columns([(f"last {key}", 40), *((cell, 24) for cell in cells)]))
    totals = [f"{sum(found['seconds'][name].values()):,.0f}" for name in names]
    lines.append(_columns([("seconds of all stages", 40), *((total, 24) for total in totals)]))
    return "\n".join(lines)


def _columns(cells: Sequence[tuple[str, int]]) -> str:
    return "  ".join(text.ljust(width) for text, width in cells).rstrip()
