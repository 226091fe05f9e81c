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
from recsys.logs.buckets import canonicalise_bucketed
from recsys.logs.examples import build_examples
from recsys.logs.partitioned import build_examples_bucketed, example_tables
from recsys.logs.ray_engine import RayRun
from recsys.logs.slates import SlateConfig, draw_slates
from recsys.logs.splits import SplitConfig
from recsys.logs.tables import RawLog
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


def assert_same_bytes(found: pl.DataFrame, expected: pl.DataFrame, folder: Path) -> None:
    write_parquet(found, folder / "found.parquet")
    write_parquet(expected.rechunk(), folder / "expected.parquet")
    assert file_hash(folder / "found.parquet") == file_hash(folder / "expected.parquet")


def test_tables_are_byte_identical(two_cpus: RayRun, tmp_path: Path) -> None:
    assert two_cpus.parallelism == 2
    log = factory.make_log(rows())
    config = factory.small_config("matched", split=SPLIT, targets_per_user=5)
    whole, expected_counts = build_examples(log, config)
    expected_slates = draw_slates(whole.filter(pl.col("split") != "test"), log, config.slate, 2, config.seed)
    examples, slates, counts = example_tables(log, config, 2, two_cpus, buckets=5)
    assert_same_bytes(examples, whole, tmp_path)
    assert_same_bytes(slates, expected_slates, tmp_path)
    assert counts == expected_counts


def test_buckets_on_disk_pass_through_ray(two_cpus: RayRun, tmp_path: Path) -> None:
    log = factory.make_log(rows())
    config = factory.small_config("popularity", split=SPLIT)
    raw = RawLog(factory.events_frame(rows()).lazy(), factory.catalogue(), {}, log.engaged)
    bucketed = canonicalise_bucketed(raw, tmp_path / "log", 4, run=two_cpus, batch_rows=100)
    assert bucketed.counts == log.counts
    examples, counts = build_examples_bucketed(bucketed, config, run=two_cpus)
    whole, expected_counts = build_examples(log, config)
    assert_same_bytes(examples, whole, tmp_path)
    assert counts == expected_counts


def test_a_refusal_in_a_task_is_the_callers(two_cpus: RayRun) -> None:
    config = factory.small_config(slate=SlateConfig(policy="uniform", size=70))
    with pytest.raises(InputError, match="a slate of 70 needs 69 negatives") as caught:
        example_tables(factory.make_log(rows()), config, 1, two_cpus, buckets=3)
    assert type(caught.value) is InputError
