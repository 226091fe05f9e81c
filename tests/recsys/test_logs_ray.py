"""Local Ray with two CPUs gives byte-identical tables, and passes errors on as they are."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import logs_factory as factory
import numpy as np
import polars as pl
import pytest

from recsys.errors import InputError
from recsys.logs.batches import passing_of
from recsys.logs.bucketed_log import BucketedLog
from recsys.logs.buckets import canonicalise_bucketed
from recsys.logs.examples import build_examples
from recsys.logs.partitioned import write_tables
from recsys.logs.ray_engine import RayRun
from recsys.logs.slates import SlateConfig, draw_slates
from recsys.logs.splits import SplitConfig
from recsys.logs.tables import Log, RawLog
from recsys.storage import file_hash, write_parquet

SPLIT = SplitConfig(train=0.4, validation=0.3, test=0.3, train_until="55%", validate_until="75%")


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[RayRun]:
    if importlib.util.find_spec("ray") is None:
        if os.environ.get("VERBALIZE_REQUIRE_SERVICES") == "1":
            pytest.fail("ray not installed, and VERBALIZE_REQUIRE_SERVICES=1 requires it")
        pytest.skip("ray not installed (pip install 'verbalize[ray]')")
    with RayRun(cpus=2) as run:
        yield run


def rows() -> list[tuple[int, int, int, int]]:
    return [
        (user + 10 * group, item, hour, rating)
        for group in range(3)
        for user, item, hour, rating in factory.random_rows(np.random.default_rng(group), 150)
    ]


def canonicalised(folder: Path, run: RayRun) -> tuple[Log, BucketedLog]:
    """The same log whole and in several buckets, the latter made by Ray."""
    log = factory.make_log(rows())
    raw = RawLog(factory.events_frame(rows()).lazy(), factory.catalogue(), {}, log.engaged)
    bucketed = canonicalise_bucketed(passing_of(raw), folder, run, bucket_events=80, batch_rows=100)
    assert bucketed.counts == log.counts and len(bucketed.buckets) > 3
    assert pl.concat([bucketed.bucket(bucket).events for bucket in bucketed.buckets]).equals(log.events)
    return log, bucketed


def test_tables_are_byte_identical(two_cpus: RayRun, tmp_path: Path) -> None:
    assert two_cpus.parallelism == 2 and two_cpus.tasks == 8
    log, bucketed = canonicalised(tmp_path / "log", two_cpus)
    for policy in ("matched", "popularity"):
        config = factory.small_config(policy, split=SPLIT, targets_per_user=5)
        whole, counts = build_examples(log, config)
        slates = draw_slates(whole.filter(pl.col("split") != "test"), log, config.slate, 2, config.seed)
        assert write_tables(bucketed, config, 2, tmp_path / policy, run=two_cpus) == counts
        for name, expected in (("examples", whole), ("slates", slates)):
            write_parquet(expected.rechunk(), tmp_path / f"{name}.parquet")
            assert file_hash(tmp_path / policy / f"{name}.parquet") == file_hash(tmp_path / f"{name}.parquet")


def test_a_refusal_in_a_task_is_the_callers(two_cpus: RayRun, tmp_path: Path) -> None:
    config = factory.small_config(slate=SlateConfig(policy="uniform", size=70))
    _, bucketed = canonicalised(tmp_path / "log", two_cpus)
    with pytest.raises(InputError, match="a slate of 70 needs 69 negatives") as caught:
        write_tables(bucketed, config, 1, tmp_path, run=two_cpus)
    assert type(caught.value) is InputError
