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
from recsys.logs.examples import ExamplesConfig, build_examples, choose_targets
from recsys.logs.history import histories
from recsys.logs.partitioned import examples_by_bucket
from recsys.logs.popularity import popularity
from recsys.logs.slates import SlateConfig
from recsys.logs.splits import SplitConfig
from recsys.logs.tables import Log, RawLog
from verbalize.verbalizers.base import verbalizer_inputs
from verbalize.verbalizers.templates import candidate_texts

CONFIG = ExamplesConfig(
    engaged=EngagedConfig(rating_at_least=4.0),
    history_min=5,
    history_max=50,
    split=SplitConfig(0.3, 0.1, 0.6, "2023-07-01", "2023-09-01"),
    targets_per_user=4,
    slate=SlateConfig("matched", 10),
)
TEMPLATES = ("titles", "titles_metadata", "concatenation", "recent_10")


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
    """Wall seconds of the steps of one run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step], self._last = round(now - self._last, 3), now


def same_steps(folder: Path, out: Path) -> dict[str, float]:
    """What the other arms do: targets with popularity, and their candidate texts. Returns seconds per step."""
    lap = Laps()
    log = canonicalise(_raw(folder))
    lap("read, clean, de-duplicate, order")
    targets, _ = choose_targets(log, CONFIG)
    lap("targets")
    lengths = targets["past"].clip(0, CONFIG.history_max)
    inputs = targets.select(
        "example_id",
        pl.col("event_time").alias("cutoff_time"),
        histories(targets["past_end"] - lengths, lengths, log.events, log.items, log.codes.items).alias("history"),
    )
    lap("histories")
    kept = targets.select("example_id", "user_id", "item_id", "event_time", "split", "past")
    kept = kept.with_columns(popularity_before(log, targets))
    lap("popularity")
    kept = kept.hstack(candidate_texts(inputs, TEMPLATES))
    lap("texts")
    kept.write_parquet(out / "texts.parquet")
    lap("writing")
    return lap.seconds


def in_memory(folder: Path, out: Path) -> None:
    """Examples with their slates, and candidate texts, in one piece."""
    examples, _ = build_examples(canonicalise(_raw(folder)), CONFIG)
    _write(examples, out, 0)


def bucketed(folder: Path, out: Path) -> None:
    """The same in bounded memory."""
    log = canonicalise_bucketed(passing_of(_raw(folder)), out / "log")
    for number, (examples, _) in enumerate(examples_by_bucket(log, CONFIG)):
        _write(examples, out, number)


def _write(examples: pl.DataFrame, out: Path, number: int) -> None:
    texts = candidate_texts(verbalizer_inputs(examples), TEMPLATES)
    examples.write_parquet(out / f"examples-{number:04d}.parquet")
    examples.select("example_id").hstack(texts).write_parquet(out / f"texts-{number:04d}.parquet")


def _raw(folder: Path) -> RawLog:
    return RawLog(pl.scan_parquet(folder / "events"), pl.read_parquet(folder / "items.parquet"))
