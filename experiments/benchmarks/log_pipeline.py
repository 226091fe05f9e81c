"""The log pipeline against the same steps written well in pandas: raw events to targets and their histories.

Run:  python experiments/benchmarks/log_pipeline.py [--events 10000000] [--repeats 5] [--out experiments/results]

Both arms start from the same Parquet files (`logs_ratings`), already in memory, and do the same steps:

  canonicalise   clean ids, drop events of unknown items and exact duplicates, order by user, time, item, count ties
  targets        engaged, in their user's split and window, enough history, discovery over the whole log by series,
                 at most 4 a user by seeded hash
  histories      the last 50 events strictly before each target, with title, year, genres, time, type, rating
  popularity     events of the target's item before the target's day

The pandas arm works on integer codes, sorts once, replaces group-wise functions by shifts and searches, and leaves the
histories as a long table (ours nests them as lists of structs, which is more work). Each run is a fresh process; arms
alternate, so that load falls on both. The outputs of the two arms must be equal, row by row. Not timed: reading,
interpreter start, comparison. Peak memory is the process's high-water mark, reading included.

Writes log_pipeline.json (settings, stages, memory) and artefacts/log_pipeline.csv (raw seconds, for the ledger).
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from logs_digests import table_digest
from logs_ours import popularity_before
from logs_ratings import generate
from recording import enter, parser_of, processes, ratio, record, say

from recsys.logs.engaged import EngagedConfig
from recsys.logs.examples import ExamplesConfig
from recsys.logs.splits import SplitConfig

CONFIG = ExamplesConfig(
    engaged=EngagedConfig(rating_at_least=4.0),
    history_min=5,
    history_max=50,
    split=SplitConfig(0.3, 0.1, 0.6, "2023-07-01", "2023-09-01"),
    targets_per_user=4,
)

KEPT = ["user_id", "item_id", "event_time", "split", "is_discovery", "past", "popularity"]
SHOWN = ["item_id", "title", "year", "genres", "event_time", "event_type", "rating"]


def ours(folder: Path, stage: Callable[[str], None]) -> tuple[pl.DataFrame, pl.DataFrame]:
    from recsys.logs.events import canonicalise
    from recsys.logs.examples import choose_targets
    from recsys.logs.history import histories
    from recsys.logs.tables import RawLog

    events, items = pl.read_parquet(folder / "events"), pl.read_parquet(folder / "items.parquet")
    stage("start")
    log = canonicalise(RawLog(events.lazy(), items))
    stage("canonicalise")
    targets, _ = choose_targets(log, CONFIG)
    stage("targets")
    lengths = targets["past"].clip(0, CONFIG.history_max)
    shown = histories(targets["past_end"] - lengths, lengths, log.events, log.items, log.codes.items)
    stage("histories")
    targets = targets.with_columns(popularity_before(log, targets))
    stage("popularity")
    flat = pl.DataFrame({"target": np.arange(len(targets)), "shown": shown}).explode("shown").unnest("shown")
    return targets.select(KEPT), flat.select("target", *SHOWN)


def theirs(folder: Path, stage: Callable[[str], None]) -> tuple[pl.DataFrame, pl.DataFrame]:
    import logs_pandas
    import pandas as pd

    events, items = pd.read_parquet(folder / "events"), pd.read_parquet(folder / "items.parquet")
    stage("start")
    work = logs_pandas.Work(events, items, CONFIG)
    work.canonicalise()
    stage("canonicalise")
    work.choose()
    stage("targets")
    flat = work.histories()
    stage("histories")
    work.count_popularity()
    stage("popularity")
    return work.table().select(KEPT), pl.from_pandas(flat)


ARMS = {"polars": ours, "pandas": theirs}


def run_arm(arm: str, folder: Path) -> None:
    """One timed run in this process; the report goes to FOLDER/ARM.json, the outputs beside it."""
    stages: list[tuple[str, float]] = []
    targets, flat = ARMS[arm](folder, lambda name: stages.append((name, time.perf_counter())))
    seconds = {name: now - stages[place][1] for place, (name, now) in enumerate(stages[1:])}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    digest = {
        "targets": table_digest(targets.with_columns(pl.col("past").cast(pl.Int64))),
        "histories": table_digest(flat),
    }
    report = {
        "seconds": stages[-1][1] - stages[0][1],
        "stages": seconds,
        "peak_rss_gb": peak,
        "digest": digest,
        "targets": len(targets),
        "history_rows": len(flat),
    }
    (folder / f"{arm}.json").write_text(json.dumps(report))


def main() -> None:
    from verbalize.report.artefacts import timings_table

    parser = parser_of(__doc__, repeats=5)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--arm", choices=list(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        run_arm(arguments.arm, arguments.data)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(arguments.events, folder)
        runs = processes(__file__, list(ARMS), folder, arguments.repeats, shown=("peak_rss_gb", "digest"))
    seconds = {arm: [run["seconds"] for run in runs if run["arm"] == arm] for arm in ARMS}
    times = statistics.median(seconds["pandas"]) / statistics.median(seconds["polars"])
    artefact = record(
        "log_pipeline",
        arguments.out,
        timings_table(seconds),
        settings={
            "events": arguments.events,
            "repeats": arguments.repeats,
            "history_max": CONFIG.history_max,
            "targets_per_user": CONFIG.targets_per_user,
            "polars_threads": pl.thread_pool_size(),
        },
        packages=("polars", "pandas", "numpy", "pyarrow"),
        figures={"runs": runs, "ratio_of_medians": times},
    )
    say(f"pandas / polars: {times:.2f}")
    enter(
        arguments.out,
        "bench.log_pipeline_vs_pandas",
        f"Log to histories, splits and popularity snapshots, {arguments.events:,} events: time of pandas over ours",
        **ratio("pandas", "polars"),
        artefact=artefact,
        command=f"python experiments/benchmarks/log_pipeline.py --events {arguments.events}",
        target=2.0,
        criterion="value",
    )


if __name__ == "__main__":
    main()
