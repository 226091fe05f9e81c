"""Logs at scale: raw events to examples and candidate texts, by us, in pandas and in DuckDB; and 100 million events.

Run:  python experiments/benchmarks/logs_at_scale.py [--events 10000000] [--repeats 3]
      python experiments/benchmarks/logs_at_scale.py --events 100000000 --arms bucketed --repeats 1
      python experiments/benchmarks/logs_at_scale.py --events 200000 --out DIR      (a trial: writes no claims)

The log is the project's simulator's (`logs_simulated`), delivered as real logs are: in no order, with ties, repeats and
unknown items. Arms, all from its Parquet files to Parquet files:

  ours, pandas, duckdb   the same steps: clean, de-duplicate, order; targets (finished plays, in window, enough
                         history, discovery by series, at most 4 a user by seeded hash) with the popularity of
                         their item before their day; four candidate texts (TEMPLATES) of the last 50 events before each
  in_memory              ours, whole: also `matched` slates of 10 and the examples table under its contract
  bucketed               the same in bounded memory (`recsys.logs.buckets`), 4 million events a bucket

Drawing negatives is left out of the comparison: it is the same seeded numpy code whoever calls it, and it is in the
times of `in_memory` and `bucketed`. Each run is a fresh process, arms alternate, each library has its own default of
threads. Timed: reading, all steps, writing; not the start of Python and its imports. Peak memory is the process's
high-water mark; `steps`, where an arm names them, is where its time went.
The outputs of the three must be equal, and those of `in_memory` and `bucketed`; texts of the five must agree too.

Every run leaves WORK/SIZE/runs/ARM-REPEAT.json and is not repeated while that file is there: after a kill the same
command goes on. Delete WORK/SIZE/runs to measure again. Writes logs_at_scale_SIZE.json, artefacts/logs_*.csv, and the
claims that the arms which ran support.
"""

import argparse
import importlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars as pl
from recording import RESULTS, ROOT, enter, ratio, say

ARMS = {
    "ours": ("logs_ours", "same_steps"),
    "pandas": ("logs_pandas", "same_steps"),
    "duckdb": ("logs_duckdb", "same_steps"),
    "in_memory": ("logs_ours", "in_memory"),
    "bucketed": ("logs_ours", "bucketed"),
}
SIDE_BY_SIDE = ("ours", "pandas", "duckdb")


def run_arm(arm: str, data: Path, report: Path) -> None:
    """One run in this process; its report is written last."""
    module, function = ARMS[arm]
    work = getattr(importlib.import_module(module), function)
    out = Path(tempfile.mkdtemp(prefix=f"{arm}-", dir=data))
    try:
        start = time.perf_counter()
        steps = work(data, out)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        result = {"arm": arm, "seconds": seconds, "peak_gb": peak, "steps": steps, **digests(out)}
    finally:
        shutil.rmtree(out)
    temporary = report.with_suffix(".part")
    temporary.write_text(json.dumps(result))
    temporary.replace(report)


def digests(out: Path) -> dict[str, Any]:
    """Digests of what an arm wrote that do not depend on the order of rows or on how they were spread over files."""
    from logs_digests import table_digest, unordered_digest
    from logs_ours import TEMPLATES

    texts, examples = pl.scan_parquet(out / "texts*.parquet"), sorted(out.glob("examples*.parquet"))
    found: dict[str, Any] = {"texts": unordered_digest(texts, ["example_id", *TEMPLATES])}
    found["examples"] = texts.select(pl.len()).collect().item()
    if examples:
        found["whole"] = unordered_digest(
            pl.scan_parquet(examples), ["example_id", "user_id", "target_item_id", "split", "slate"]
        )
    else:
        table = texts.drop(TEMPLATES).sort("example_id").collect()
        found["targets"] = table_digest(table.with_columns(pl.col("past", "popularity").cast(pl.Int64)))
    return found


def measure(arms: list[str], data: Path, repeats: int) -> list[dict[str, Any]]:
    """Reports of every arm and repeat, running those that are not there yet."""
    (data / "runs").mkdir(exist_ok=True)
    runs = []
    for repeat in range(repeats):
        for arm in arms if repeat % 2 == 0 else arms[::-1]:
            report = data / "runs" / f"{arm}-{repeat}.json"
            if not report.exists():
                command = [sys.executable, __file__, "--run", arm, "--data", str(data), "--report", str(report)]
                subprocess.run(command, check=True)
            run = json.loads(report.read_text()) | {"repeat": repeat}
            say(f"{repeat} {arm:10} {run['seconds']:8.2f} s  {run['peak_gb']:6.2f} GB  {run['texts']}")
            runs.append(run)
    for name in ("texts", "targets", "whole"):
        different = {run[name] for run in runs if name in run}
        if len(different) > 1:
            raise SystemExit(f"the arms disagree on {name}: {[(run['arm'], run.get(name)) for run in runs]}")
    return runs


def record(events: int, runs: list[dict[str, Any]]) -> None:
    """Claims from what ran, with their evidence."""
    from verbalize.report.artefacts import peaks_table, timings_table, write_artefact
    from verbalize.report.claims import Estimator

    ran = {run["arm"] for run in runs}
    size = f"{events // 1_000_000}m"
    command = f"python experiments/benchmarks/logs_at_scale.py --events {events}"
    seconds = {arm: [run["seconds"] for run in runs if run["arm"] == arm] for arm in ran}
    timings = RESULTS / "artefacts" / f"logs_{size}.csv"
    write_artefact(timings_table(seconds), timings)
    claims: list[tuple[str, str, dict[str, Any]]] = []
    for other in ("pandas", "duckdb"):
        if {"ours", other} <= ran:
            settings = {"target": 2.0 if other == "pandas" else 1.0, "artefact": timings, **ratio(other, "ours")}
            statement = (
                f"Simulated log to targets, popularity and four candidate texts, {events:,} events: time of {other} "
                "over ours"
            )
            claims.append((f"bench.logs_vs_{other}", statement, settings))
    if "in_memory" in ran:
        settings = {"unit": "seconds", "target": 60.0, "direction": "lower", "artefact": timings}
        settings["estimator"] = Estimator("seconds", {"arm": "in_memory"})
        statement = (
            f"Simulated log to examples with slates of 10 and four candidate texts, {events:,} events, files to files"
        )
        claims.append((f"bench.logs_{size}_seconds", statement, settings))
    if "bucketed" in ran:
        peaks = RESULTS / "artefacts" / f"logs_{size}_peaks.csv"
        write_artefact(peaks_table({"bucketed": [run["peak_gb"] for run in runs if run["arm"] == "bucketed"]}), peaks)
        settings = {"unit": "gigabytes", "target": 12.0, "direction": "lower", "artefact": peaks}
        settings["estimator"] = Estimator("peak", {"arm": "bucketed"})
        statement = f"The same steps, simulated log, by buckets of users, {events:,} events: peak resident memory"
        claims.append((f"bench.logs_{size}_peak_gb", statement, settings))
    for claim_id, statement, settings in claims:
        enter(RESULTS, claim_id, statement, command=command, criterion="value", **settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=["ours", "pandas", "duckdb", "in_memory"])
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "logs_simulated", help="data and finished runs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--run", choices=list(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_arm(options.run, options.data, options.report)
        return
    from logs_simulated import generate

    from recsys.storage import write_json
    from verbalize.report.provenance import hardware, versions

    data = options.work / str(options.events)
    # In a process of its own: a child's high-water mark begins at what its parent holds when it starts it.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(generate, options.events, data).result()
    for left in data.glob("*-*/"):  # outputs of a run that was killed
        shutil.rmtree(left)
    runs = measure(list(dict.fromkeys(options.arms)), data, options.repeats)
    medians = {arm: statistics.median(run["seconds"] for run in runs if run["arm"] == arm) for arm in options.arms}
    summary = {
        "benchmark": "logs_at_scale",
        "events": options.events,
        "threads": pl.thread_pool_size(),
        "versions": versions(("polars", "pandas", "duckdb", "numpy", "pyarrow")),
        "hardware": hardware(),
        "load_average": os.getloadavg()[0],
        "median_seconds": medians,
        "runs": [
            {name: run.get(name) for name in ("arm", "repeat", "seconds", "peak_gb", "examples", "steps")}
            for run in runs
        ],
    }
    write_json(summary, options.out / f"logs_at_scale_{options.events}.json")
    if options.out == RESULTS:
        record(options.events, runs)


if __name__ == "__main__":
    main()
