"""Our arms of the log benchmarks: the library's own functions, nothing else."""

import time
from pathlib import Path

import numpy as np
import polars as pl

from recsys.logs.batches import passing_of
from recsys.logs.buckets import canonicalise_bucketed
from recsys.logs.coded import DAY_US
from recsys.logs.engaged import EngagedConfig
from recsys.logs.events import canonicalise
from recsys.logs.examples import ExamplesConfig, bucket_examples, build_examples, choose_targets
from recsys.logs.partitioned import global_statistics
from recsys.logs.popularity import popularity
from recsys.logs.slates import SlateConfig
from recsys.logs.splits import SplitConfig
from recsys.logs.tables import Log, RawLog
from recsys.simulator.generate import ENGAGED_COMPLETION
from verbalize.verbalizers.log_texts import example_texts, span_texts

CONFIG = ExamplesConfig(
    engaged=EngagedConfig(completion_at_least=ENGAGED_COMPLETION),
    history_min=5,
    history_max=50,
    split=SplitConfig(0.3, 0.1, 0.6, "2024-02-15", "2024-03-01"),
    targets_per_user=4,
    slate=SlateConfig("matched", 10),
)
TEMPLATES = ("titles", "titles_metadata", "concatenation", "recent_10")
ORDERED = "read, clean, de-duplicate, order"


def popularity_before(log: Log, targets: pl.DataFrame) -> pl.Series:
    """Events of each target's item before the target's day."""
    codes = log.items.select("item_id").with_row_index("code")
    item = targets.join(codes, on="item_id", how="left", maintain_order="left")["code"].to_numpy()
    day = targets["event_time"].dt.epoch("us").to_numpy() // DAY_US
    order = np.argsort(day, kind="stable")
    days, first = np.unique(day[order], return_index=True)
    found = np.empty(len(day), np.int64)
    touched = popularity(log.codes, len(log.items))
    for (_, counts), rows in zip(touched.before(days), np.split(order, first[1:]), strict=True):
        found[rows] = counts[item[rows]]
    return pl.Series("popularity", found)


class Laps:
    """Wall seconds of the steps of one run, summed by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = round(self.seconds.get(step, 0.0) + now - self._last, 3)
        self._last = now


def same_steps(folder: Path, out: Path) -> dict[str, float]:
    """What the other arms do: targets with popularity, and their candidate texts. Returns seconds per step."""
    lap = Laps()
    log = canonicalise(_raw(folder))
    lap(ORDERED)
    targets, _ = choose_targets(log, CONFIG)
    lap("targets")
    kept = targets.select("example_id", "user_id", "item_id", "event_time", "split", "past")
    kept = kept.with_columns(popularity_before(log, targets))
    lap("popularity")
    lengths = targets["past"].clip(0, CONFIG.history_max).to_numpy()
    kept = kept.hstack(span_texts(log, targets["past_end"].to_numpy() - lengths, lengths, TEMPLATES))
    lap("texts")
    kept.write_parquet(out / "texts.parquet")
    lap("writing")
    return lap.seconds


def in_memory(folder: Path, out: Path) -> dict[str, float]:
    """Examples with their slates, and candidate texts, in one piece. Returns seconds per step."""
    lap = Laps()
    log = canonicalise(_raw(folder))
    lap(ORDERED)
    examples, _ = build_examples(log, CONFIG)
    lap("examples")
    _write(log, examples, out, 0, lap)
    return lap.seconds


def bucketed(folder: Path, out: Path) -> dict[str, float]:
    """The same in bounded memory. Returns seconds per step."""
    lap = Laps()
    log = canonicalise_bucketed(passing_of(_raw(folder)), out / "log")
    lap(ORDERED)
    statistics = global_statistics(log, CONFIG)
    for number, bucket in enumerate(log.buckets):
        held = log.bucket(bucket)
        examples, _ = bucket_examples(held, statistics, CONFIG)
        lap("examples")
        _write(held, examples, out, number, lap)
    return lap.seconds


def _write(log: Log, examples: pl.DataFrame, out: Path, number: int, lap: Laps) -> None:
    texts = example_texts(log, examples, TEMPLATES)
    lap("texts")
    examples.write_parquet(out / f"examples-{number:04d}.parquet")
    examples.select("example_id").hstack(texts).write_parquet(out / f"texts-{number:04d}.parquet")
    lap("writing")


def _raw(folder: Path) -> RawLog:
    return RawLog(pl.scan_parquet(folder / "events"), pl.read_parquet(folder / "items.parquet"))
