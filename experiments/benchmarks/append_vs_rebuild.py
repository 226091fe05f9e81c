"""Appending 1% new events to a store against building the store again: events, examples and candidate texts.

Run:  python experiments/benchmarks/append_vs_rebuild.py [--events 10000000] [--repeats 5] [--out experiments/results]

Both arms end in the same store, and their events, examples and texts must be equal:

  append    a store that holds the first 99% of the events (in time) with their examples and texts; add the last 1%
  rebuild   an empty store; deliver everything at once, then make all examples and texts under the same reference

The log is that of the log pipeline's benchmark with users who come in visits: heavy-tailed activity, Zipf-like items,
about twelve events a visit. `--late` moves that share of the new events to random earlier moments (late deliveries).
Each run is a fresh process that opens its files cold to Python (not to the disk's cache); arms alternate, so that load
falls on both. The append runs on a fresh copy of the first store. Not timed: interpreter start, copying, comparison.
Timed: everything from the delivered Parquet files to the committed generation, checksums and flushes included.

Writes append_vs_rebuild.json (settings, counts, where the time goes) and artefacts/append_vs_rebuild.csv.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from recording import enter, parser_of, processes, ratio, record, say

ARMS = ("append", "rebuild")
NEW_SHARE = 0.01
TEXTS = ("titles", "titles_metadata", "profile_recent", "recent_5_metadata", "liked_metadata", "top_genre_metadata")
SPLIT = ("60%", "70%")


def generate(n_events: int, late: float, folder: Path) -> None:
    """first.parquet (99%, in time), new.parquet (1%), items.parquet."""
    from recsys.seeding import rng

    generator = rng("append-vs-rebuild", n_events, late)
    n_users, n_items = max(n_events // 100, 10), min(20_000, max(n_events // 100, 200))
    n_visits = max(n_events // 12, 1)
    activity = generator.pareto(1.5, n_users) + 0.3
    visitor = generator.choice(n_users, n_visits, p=activity / activity.sum())
    begun = generator.integers(0, 365 * 24 * 60, n_visits)
    visit = generator.integers(0, n_visits, n_events)
    weights = 1 / (10 + np.arange(n_items)) ** 0.9
    minutes = begun[visit] + generator.integers(0, 240, n_events)
    order = np.argsort(minutes, kind="stable")
    users, minutes = visitor[visit][order], minutes[order]
    new = int(n_events * (1 - NEW_SHARE))
    moved = new + np.flatnonzero(generator.random(n_events - new) < late)
    minutes[moved] = generator.integers(0, minutes[new], len(moved))
    events = pl.DataFrame(
        {
            "user_id": pl.Series(users).cast(pl.String).str.zfill(8),
            "item_id": pl.Series(generator.choice(n_items, n_events, p=weights / weights.sum())).cast(pl.String),
            "event_time": pl.Series((1_672_531_200 + 60 * minutes) * 1_000_000).cast(pl.Datetime("us", "UTC")),
            "rating": generator.integers(1, 11, n_events) / 2,
        }
    ).with_columns(pl.lit("rating").alias("event_type"))
    events[:new].write_parquet(folder / "first.parquet")
    events[new:].write_parquet(folder / "new.parquet")
    number = np.arange(n_items)
    genres = np.array(["Drama", "Comedy", "Action", "Crime", "War", "Musical"])
    pl.DataFrame(
        {
            "item_id": pl.Series(number).cast(pl.String),
            "title": [f"The Title of Number {n}" for n in number],
            "year": pl.Series(1930 + number % 90, dtype=pl.Int32),
            "genres": [[genres[n % 6], genres[(n // 6 + 1) % 6]] for n in number],
            "parent_id": [f"series-{n // 3}" if n % 10 < 3 else None for n in number],
        }
    ).write_parquet(folder / "items.parquet")


def prepare(folder: Path) -> None:
    """The store of the first 99%, whose reference both arms use."""
    from recsys.logs.engaged import EngagedConfig
    from recsys.logs.examples import ExamplesConfig
    from recsys.logs.slates import SlateConfig
    from recsys.logs.splits import SplitConfig
    from recsys.logs.store import Store
    from recsys.logs.tables import RawLog

    config = ExamplesConfig(
        engaged=EngagedConfig(rating_at_least=4.0),
        history_max=50,
        split=SplitConfig(0.3, 0.1, 0.6, *SPLIT),
        targets_per_user=10,
        slate=SlateConfig("matched", 10),
    )
    store = Store.create(folder / "store", writer())
    store.append(RawLog(pl.scan_parquet(folder / "first.parquet"), pl.read_parquet(folder / "items.parquet")))
    store.refresh(config)
    store.compact()


def writer() -> Any:
    from verbalize.candidate_texts import CandidateTexts

    return CandidateTexts(TEXTS)


def run_arm(arm: str, folder: Path) -> None:
    """One timed run in this process; the report goes to FOLDER/ARM.json."""
    from recsys.logs.store import Store
    from recsys.logs.tables import RawLog

    reference = Store(folder / "store").reference()
    place = folder / arm
    shutil.rmtree(place, ignore_errors=True)
    if arm == "append":
        shutil.copytree(folder / "store", place)
    texts = writer()
    begun = time.perf_counter()
    if arm == "append":
        store = Store(place, texts)
        counts = store.append(RawLog(pl.scan_parquet(folder / "new.parquet"), None)).counts
        stages = {"append": time.perf_counter() - begun}
    else:
        store = Store.create(place, texts)
        delivered = pl.scan_parquet([folder / "first.parquet", folder / "new.parquet"])
        counts = store.append(RawLog(delivered, pl.read_parquet(folder / "items.parquet"))).counts
        stages = {"deliver": time.perf_counter() - begun}
        assert reference is not None
        store.rebuild(reference)
        stages["examples and texts"] = time.perf_counter() - begun - stages["deliver"]
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    tables = {"events": store.log().events, "examples": store.examples(), "texts": store.texts()}
    report = {
        "seconds": seconds,
        "stages": stages,
        "peak_rss_gb": peak,
        "counts": counts,
        "rows": {name: len(table) for name, table in tables.items()},
        "digest": {name: digest(table) for name, table in tables.items()},
    }
    (folder / f"{arm}.json").write_text(json.dumps(report))


def digest(table: pl.DataFrame) -> str:
    """Equal for equal rows in equal order."""
    total = 0
    for place, name in enumerate(table.columns):
        column = table[name].struct.json_encode() if isinstance(table[name].dtype, pl.Struct) else table[name]
        values = column.hash(seed=place).to_numpy() if not _nested(column) else _hash_lists(column, place)
        total ^= int((values * np.arange(1, 2 * len(values), 2, dtype=np.uint64)).sum(dtype=np.uint64))
    return f"{len(table)} rows, {total:016x}"


def _nested(column: pl.Series) -> bool:
    return isinstance(column.dtype, pl.List)


def _hash_lists(column: pl.Series, seed: int) -> np.ndarray:
    """One hash per list, from its elements as text."""
    flat = pl.DataFrame({"row": np.arange(len(column)), "value": column}).explode("value")
    if isinstance(flat.schema["value"], pl.Struct):
        fields = [pl.col("value").struct.field(f) for f in flat["value"].struct.fields]
        kinds = flat["value"].struct.schema
        texts = [
            (field.list.join("|") if isinstance(kinds[name], pl.List) else field.cast(pl.String)).fill_null("")
            for field, name in zip(fields, kinds, strict=True)
        ]
        flat = flat.with_columns(pl.concat_str(texts, separator="\x1f").alias("value"))
    rows = flat.group_by("row", maintain_order=True).agg(pl.col("value").str.join("\x1e"))
    return rows["value"].hash(seed=seed).to_numpy()


def main() -> None:
    from verbalize.report.artefacts import timings_table

    parser = parser_of(__doc__, repeats=5)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--late", type=float, default=0.01, help="share of the new events that come late")
    parser.add_argument("--arm", choices=[*ARMS, "prepare"], help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        prepare(arguments.data) if arguments.arm == "prepare" else run_arm(arguments.arm, arguments.data)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(arguments.events, arguments.late, folder)
        subprocess.run([sys.executable, __file__, "--arm", "prepare", "--data", str(folder)], check=True)
        runs = processes(__file__, ARMS, folder, arguments.repeats, shown=("rows", "counts"))
    seconds = {arm: [run["seconds"] for run in runs if run["arm"] == arm] for arm in ARMS}
    times = statistics.median(seconds["rebuild"]) / statistics.median(seconds["append"])
    artefact = record(
        "append_vs_rebuild",
        arguments.out,
        timings_table(seconds),
        settings={
            "events": arguments.events,
            "new_share": NEW_SHARE,
            "late": arguments.late,
            "repeats": arguments.repeats,
            "texts": list(TEXTS),
            "polars_threads": pl.thread_pool_size(),
        },
        packages=("polars", "numpy", "pyarrow"),
        figures={"runs": runs, "ratio_of_medians": times},
    )
    say(f"rebuild / append: {times:.2f}")
    enter(
        arguments.out,
        "bench.append_vs_rebuild",
        f"Adding 1% new events to a store of {arguments.events:,}, {arguments.late:.0%} of them late, with "
        "examples and candidate texts: time of a rebuild over ours",
        **ratio("rebuild", "append"),
        artefact=artefact,
        command=f"python experiments/benchmarks/append_vs_rebuild.py --events {arguments.events}",
        target=20.0,
        criterion="value",
    )


if __name__ == "__main__":
    main()
