"""The log pipeline against the same steps written well in pandas: raw events to targets and their histories.

Run:  python experiments/benchmarks/log_pipeline.py [--events 10000000] [--repeats 5] [--out experiments/results]

Both arms start from the same two Parquet files, already in memory, and do the same steps:

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
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

RESULTS = Path(__file__).parents[1] / "results"
TARGETS_PER_USER, HISTORY_MIN, HISTORY_MAX, ENGAGED = 4, 5, 50, 4.0
SHARES, UNTIL = (0.3, 0.1, 0.6), ("2023-07-01", "2023-09-01")
KEPT = ["user_id", "item_id", "event_time", "split", "is_discovery", "past", "popularity"]
SHOWN = ["item_id", "title", "year", "genres", "event_time", "event_type", "rating"]


def generate(n_events: int, folder: Path) -> None:
    """Seeded synthetic log: 100 events a user on average (heavy tail), Zipf-like items, minutes as times (ties), 0.5%
    repeats."""
    from recsys.seeding import rng

    generator = rng("log-pipeline", n_events)
    n_users, n_items = max(n_events // 100, 10), min(20_000, max(n_events // 100, 200))
    activity = generator.pareto(1.5, n_users) + 0.3
    users = generator.choice(n_users, n_events, p=activity / activity.sum())
    weights = 1 / (10 + np.arange(n_items)) ** 0.9
    items = generator.choice(
        int(n_items * 1.01),
        n_events,
        p=np.append(weights, np.full(int(n_items * 1.01) - n_items, weights[-1]))
        / (weights.sum() + weights[-1] * (int(n_items * 1.01) - n_items)),
    )
    start = 1_672_531_200  # 2023-01-01
    seconds = start + 60 * generator.integers(0, 365 * 24 * 60, n_events)
    events = pl.DataFrame(
        {"user": users, "item": items, "seconds": seconds, "rating": generator.integers(1, 11, n_events) / 2}
    )
    repeats = events[generator.choice(n_events, n_events // 200, replace=False)]
    events = pl.concat([events, repeats])[generator.permutation(n_events + len(repeats))]
    time_column = pl.from_epoch("seconds", time_unit="s").dt.cast_time_unit("us").dt.replace_time_zone("UTC")
    events.select(
        ("user-" + pl.col("user").cast(pl.String)).alias("user_id"),
        ("item-" + pl.col("item").cast(pl.String)).alias("item_id"),
        time_column.alias("event_time"),
        pl.lit("rating").alias("event_type"),
        "rating",
    ).write_parquet(folder / "events.parquet")
    number = np.arange(n_items)
    genres = np.array(["Drama", "Comedy", "Action", "Crime", "War", "Musical"])
    pl.DataFrame(
        {
            "item_id": [f"item-{n}" for n in number],
            "title": [f"The Title of Number {n}" for n in number],
            "year": pl.Series(1930 + number % 90, dtype=pl.Int32),
            "genres": [[genres[n % 6], genres[(n // 6 + 1) % 6]] for n in number],
            "parent_id": [f"series-{n // 3}" if n % 10 < 3 else None for n in number],
        }
    ).write_parquet(folder / "items.parquet")


def ours(folder: Path, stage: Callable[[str], None]) -> tuple[pl.DataFrame, pl.DataFrame]:
    from recsys.logs.engaged import EngagedConfig
    from recsys.logs.events import canonicalise
    from recsys.logs.examples import ExamplesConfig, choose_targets
    from recsys.logs.history import histories
    from recsys.logs.popularity import daily_counts
    from recsys.logs.splits import SplitConfig
    from recsys.logs.tables import RawLog

    events, items = pl.read_parquet(folder / "events.parquet"), pl.read_parquet(folder / "items.parquet")
    config = ExamplesConfig(
        engaged=EngagedConfig(rating_at_least=ENGAGED),
        history_min=HISTORY_MIN,
        history_max=HISTORY_MAX,
        split=SplitConfig(*SHARES, *UNTIL),
        targets_per_user=TARGETS_PER_USER,
    )
    stage("start")
    log = canonicalise(RawLog(events.lazy(), items))
    stage("canonicalise")
    targets, _ = choose_targets(log, config)
    stage("targets")
    lengths = targets["past"].clip(0, HISTORY_MAX)
    shown = histories(targets["past_end"] - lengths, lengths, log.events, log.items)
    stage("histories")
    place = targets.select(pl.col("event_time").dt.epoch("d").alias("day"), "item_id").join(
        log.items.select("item_id").with_row_index("code"), on="item_id", how="left", maintain_order="left"
    )
    day, code = place["day"].to_numpy(), place["code"].to_numpy()
    order = np.argsort(day, kind="stable")
    days, first = np.unique(day[order], return_index=True)
    popularity = np.empty(len(day), np.int64)
    for (_, counts), rows in zip(daily_counts(log.events, log.items, days), np.split(order, first[1:]), strict=True):
        popularity[rows] = counts[code[rows]]
    stage("popularity")
    targets = targets.with_columns(pl.Series("popularity", popularity))
    flat = pl.DataFrame({"target": np.arange(len(targets)), "shown": shown}).explode("shown").unnest("shown")
    return targets.select(KEPT), flat.select("target", *SHOWN)


def theirs(folder: Path, stage: Callable[[str], None]) -> tuple[pl.DataFrame, pl.DataFrame]:
    import pandas as pd

    from recsys.seeding import stable_hash, unit_hash

    events, items = pd.read_parquet(folder / "events.parquet"), pd.read_parquet(folder / "items.parquet")
    stage("start")
    # canonicalise: ids are cleaned and ranked once per distinct value, everything after works on integers
    item_index = pd.Index(items["item_id"].str.replace(r"[\x00-\x1f\x7f-\x9f\s]+", " ", regex=True).str.strip())
    rank = np.argsort(np.argsort(item_index.to_numpy()))
    user_raw, users = pd.factorize(events["user_id"])
    users = pd.Index(users).str.replace(r"[\x00-\x1f\x7f-\x9f\s]+", " ", regex=True).str.strip()
    user_rank, users = pd.factorize(users, sort=True)
    item_raw, item_ids = pd.factorize(events["item_id"])
    known = item_index.get_indexer(
        pd.Index(item_ids).str.replace(r"[\x00-\x1f\x7f-\x9f\s]+", " ", regex=True).str.strip()
    )
    item = np.where(known < 0, -1, rank[known])[item_raw]
    frame = pd.DataFrame(
        {
            "user": user_rank[user_raw].astype(np.int32),
            "time": events["event_time"].astype("int64").to_numpy(),
            "item": item.astype(np.int32),
            "rating": events["rating"].to_numpy(),
            "type": pd.factorize(events["event_type"])[0].astype(np.int8),
        }
    )
    types = pd.factorize(events["event_type"])[1]
    if str(events["event_time"].dtype).startswith("datetime64[ns"):
        frame["time"] //= 1000
    frame = frame[frame["item"] >= 0]
    frame = frame.iloc[np.lexsort((frame["rating"], frame["type"], frame["item"], frame["time"], frame["user"]))]
    user, moment, item, kind = (frame[name].to_numpy() for name in ("user", "time", "item", "type"))
    same = (user[1:] == user[:-1]) & (moment[1:] == moment[:-1]) & (item[1:] == item[:-1]) & (kind[1:] == kind[:-1])
    frame = frame[np.append(True, ~same)].reset_index(drop=True)
    user, moment, item = (frame[name].to_numpy() for name in ("user", "time", "item"))
    tied = (user[1:] == user[:-1]) & (moment[1:] == moment[:-1])
    _ = int((np.append(False, tied) | np.append(tied, False)).sum())
    stage("canonicalise")
    # targets
    row = np.arange(len(frame))
    new_user = np.append(True, user[1:] != user[:-1])
    new_time = np.append(True, ~tied)
    past_end = np.maximum.accumulate(np.where(new_time, row, 0))
    past = past_end - np.maximum.accumulate(np.where(new_user, row, 0))
    edges = np.cumsum(SHARES)
    split_of = np.searchsorted(edges, np.array([unit_hash("split", name) for name in users]), side="right")
    first, second = (int(pd.Timestamp(text, tz="UTC").timestamp() * 1e6) for text in UNTIL)
    split = split_of[user]
    inside = (
        ((split == 0) & (moment < first))
        | ((split == 1) & (moment >= first) & (moment < second))
        | ((split == 2) & (moment >= second))
    )
    again = np.append(False, tied & (item[1:] == item[:-1]))
    keep = (frame["rating"].to_numpy() >= ENGAGED) & ~again & inside & (past >= HISTORY_MIN)
    ordered = items.iloc[np.argsort(rank)].reset_index(drop=True)
    series, _ = pd.factorize(ordered["parent_id"].fillna(ordered["item_id"]))
    touch = user.astype(np.int64) * (series.max() + 1) + series[item]
    targets = pd.DataFrame(
        {
            "row": row[keep],
            "user": user[keep],
            "item": item[keep],
            "time": moment[keep],
            "past": past[keep],
            "past_end": past_end[keep],
            "split": split[keep],
            "touch": touch[keep],
        }
    )
    relevant = np.isin(touch, targets["touch"].unique(), kind="sort")
    first_touch = pd.Series(moment[relevant], index=touch[relevant])
    first_touch = first_touch[~first_touch.index.duplicated(keep="first")]  # rows are in time order within a user
    targets = targets[first_touch.reindex(targets["touch"]).to_numpy() >= targets["time"].to_numpy()].copy()
    user_hash = np.array([stable_hash("user_id", name) for name in users], np.uint64)
    item_hash = np.array([stable_hash("item_id", name) for name in ordered["item_id"]], np.uint64)
    hashes = mix(
        mix(mix(user_hash[targets["user"]]) ^ item_hash[targets["item"]]) ^ targets["time"].to_numpy().astype(np.uint64)
    )
    targets["order"] = mix(hashes ^ np.uint64(stable_hash("targets", 0)))
    capped = targets.sort_values(["user", "order"])
    targets = capped[capped.groupby("user").cumcount() < TARGETS_PER_USER].sort_values("row").reset_index(drop=True)
    stage("targets")
    # histories, as a long table
    lengths = np.minimum(targets["past"].to_numpy(), HISTORY_MAX)
    starts = targets["past_end"].to_numpy() - lengths
    ends = np.cumsum(lengths)
    rows = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths) + np.repeat(starts, lengths)
    shown = frame.take(rows)
    details = ordered[["item_id", "title", "year", "genres"]].take(shown["item"]).reset_index(drop=True)
    flat = pd.DataFrame({"target": np.repeat(np.arange(len(targets)), lengths)}).join(details)
    flat["event_time"] = pd.to_datetime(shown["time"].to_numpy(), unit="us", utc=True)
    flat["event_type"], flat["rating"] = types[shown["type"].to_numpy()], shown["rating"].to_numpy()
    stage("histories")
    # popularity: cumulative events of an item by day, looked up just before the target's day
    n_days = 100_000
    key, count = np.unique(item.astype(np.int64) * n_days + moment // 86_400_000_000, return_counts=True)
    running = np.append(0, np.cumsum(count))
    base = targets["item"].to_numpy().astype(np.int64) * n_days
    day = targets["time"].to_numpy() // 86_400_000_000
    targets["popularity"] = running[np.searchsorted(key, base + day)] - running[np.searchsorted(key, base)]
    stage("popularity")
    kept = pl.DataFrame(
        {
            "user_id": users.to_numpy()[targets["user"]].astype(str),
            "item_id": ordered["item_id"].to_numpy()[targets["item"]].astype(str),
            "event_time": pl.Series(targets["time"].to_numpy()).cast(pl.Datetime("us", "UTC")),
            "split": np.array(["train", "validation", "test", ""])[targets["split"]],
            "is_discovery": True,
            "past": targets["past"].to_numpy(),
            "popularity": targets["popularity"].to_numpy(),
        }
    )
    return kept, pl.from_pandas(flat)


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser, as in recsys.logs.examples."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


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


def table_digest(table: pl.DataFrame) -> str:
    """Equal for equal values in equal order, whatever library made them."""
    lists = [pl.col(name).list.join("\x1f") for name, dtype in table.schema.items() if isinstance(dtype, pl.List)]
    times = [pl.col(name).dt.epoch("us") for name, dtype in table.schema.items() if isinstance(dtype, pl.Datetime)]
    plain = table.with_columns(*lists, *times).select(pl.all().cast(pl.String))
    total = np.uint64(0)
    for place, name in enumerate(plain.columns):
        values = plain[name].hash(seed=place).to_numpy()
        weights = np.arange(1, 2 * len(values), 2, dtype=np.uint64)  # odd: order matters
        total ^= (values * weights).sum(dtype=np.uint64)
    return f"{len(plain)} rows, {int(total):016x}"


def main() -> None:
    from recsys.storage import write_json
    from verbalize.report.artefacts import timings_table, write_artefact
    from verbalize.report.claims import Estimator, format_claim
    from verbalize.report.ledger import assemble, write_claim
    from verbalize.report.provenance import hardware, versions

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--arm", choices=list(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        run_arm(arguments.arm, arguments.data)
        return
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(arguments.events, folder)
        for repeat in range(arguments.repeats):
            for arm in sorted(ARMS, reverse=bool(repeat % 2)):
                subprocess.run([sys.executable, __file__, "--arm", arm, "--data", str(folder)], check=True)
                report = json.loads((folder / f"{arm}.json").read_text())
                runs.append({"arm": arm, "repeat": repeat, **report})
                sys.stdout.write(
                    f"{repeat} {arm}: {report['seconds']:.2f} s, {report['peak_rss_gb']:.2f} GiB, {report['digest']}\n"
                )
    if len({json.dumps(run["digest"]) for run in runs}) != 1:
        raise SystemExit(f"the arms disagree: {[(run['arm'], run['digest']) for run in runs[:2]]}")
    seconds = {arm: [run["seconds"] for run in runs if run["arm"] == arm] for arm in ARMS}
    ratio = statistics.median(seconds["pandas"]) / statistics.median(seconds["polars"])
    settings = {
        "events": arguments.events,
        "repeats": arguments.repeats,
        "history_max": HISTORY_MAX,
        "targets_per_user": TARGETS_PER_USER,
        "polars_threads": pl.thread_pool_size(),
        "versions": versions(("polars", "pandas", "numpy", "pyarrow")),
    }
    for run in runs:
        run.pop("digest")
    write_json(
        {
            "benchmark": "log_pipeline",
            "settings": settings,
            "hardware": hardware(),
            "load_average": os.getloadavg()[0],
            "runs": runs,
            "ratio_of_medians": ratio,
        },
        arguments.out / "log_pipeline.json",
    )
    artefact = arguments.out / "artefacts" / "log_pipeline.csv"
    write_artefact(timings_table(seconds), artefact)
    sys.stdout.write(f"pandas / polars: {ratio:.2f}\n")
    if arguments.out == RESULTS:
        root = Path(__file__).parents[2]
        claim = write_claim(
            root,
            "bench.log_pipeline_vs_pandas",
            f"Log to histories, splits and popularity snapshots, {arguments.events:,} events: time of pandas over ours",
            unit="ratio",
            estimator=Estimator("ratio_of_times", {"slow": "pandas", "fast": "polars"}),
            artefact=artefact,
            command=f"python experiments/benchmarks/log_pipeline.py --events {arguments.events}",
            target=2.0,
            criterion="value",
        )
        assemble(root)
        sys.stdout.write(f"{claim.id} {format_claim(claim)}\n")


if __name__ == "__main__":
    main()
