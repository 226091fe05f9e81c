"""Texts straight from a log equal the texts of its histories, for every template, hostile catalogues and any spans."""

import numpy as np
import polars as pl
import pytest
from verbalizers_frames import HOSTILE

from recsys.errors import InputError
from recsys.logs.engaged import EngagedConfig
from recsys.logs.events import canonicalise
from recsys.logs.examples import ExamplesConfig, build_examples
from recsys.logs.history import histories
from recsys.logs.slates import SlateConfig
from recsys.logs.tables import Log, RawLog
from recsys.simulator.config import SimulatorConfig
from recsys.simulator.source import read
from verbalize.verbalizers.base import verbalizer_inputs
from verbalize.verbalizers.log_texts import example_texts, span_texts
from verbalize.verbalizers.templates import TEMPLATES, candidate_texts

NAMES = list(TEMPLATES)


@pytest.fixture(scope="module")
def log() -> Log:
    """A simulated log whose catalogue is hostile, with ratings, missing years and an event type that needs care."""
    raw = read("", vars(SimulatorConfig(users=60, days=40, works=80)))
    assert raw.items is not None
    place = pl.int_range(pl.len())
    hostile = pl.Series([title or "-" for title in HOSTILE])
    items = raw.items.with_columns(
        title=pl.when(place % 3 == 0).then(pl.lit(hostile).implode().list.get(place % len(hostile))).otherwise("title"),
        year=pl.when(place % 5 > 0).then("year"),
        genres=pl.when(place % 7 > 0).then("genres").otherwise(pl.lit(["War, again", "<b>"])),
    )
    events = raw.events.with_columns(
        rating=pl.when(pl.col("completion") > 0.9).then(pl.col("completion") * 5),
        event_type=pl.when(pl.col("event_type") == "preview").then(pl.lit("pre;view -> (x)")).otherwise("event_type"),
    )
    return canonicalise(RawLog(events, items, engaged=EngagedConfig(completion_at_least=0.5)))


def test_spans_anywhere_equal_their_histories(log: Log) -> None:
    generator = np.random.default_rng(0)
    starts = generator.integers(len(log.events) - 40, size=300)
    lengths = generator.integers(1, 40, size=300)
    made = histories(pl.Series(starts), pl.Series(lengths), log.events, log.items, log.codes.items)
    inputs = pl.DataFrame({"history": made}).with_columns(example_id=pl.lit("e"), cutoff_time=None)
    expected = candidate_texts(inputs, NAMES)
    assert expected["concatenation"].str.contains("Pre,View").any() and expected["titles"].str.contains("›").any()
    found = span_texts(log, starts, lengths, NAMES)
    assert found.columns == NAMES
    for name in NAMES:
        assert found[name].to_list() == expected[name].to_list(), name


def test_examples_equal_their_histories_in_batches(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verbalize.verbalizers.log_texts._BATCH_TARGETS", 7)
    examples, _ = build_examples(log, ExamplesConfig(history_max=12, slate=SlateConfig("uniform", 4)))
    assert len(examples) > 20
    names = ["recent_10", "profile", "concatenation", "titles_metadata"]
    assert example_texts(log, examples, names).equals(candidate_texts(verbalizer_inputs(examples), names))
    nobody = example_texts(log, examples.clear(), names)
    assert nobody.is_empty() and nobody.schema == dict.fromkeys(names, pl.String)


def test_refusals(log: Log) -> None:
    examples, _ = build_examples(log, ExamplesConfig(history_max=12, slate=SlateConfig("uniform", 4)))
    late = Log(log.events.filter(pl.col("event_time") > examples["cutoff_time"].min()), log.items)
    with pytest.raises(InputError, match="more events than the log holds"):
        example_texts(late, examples, ["titles"])
    with pytest.raises(InputError, match="not a known template"):
        span_texts(log, np.array([0]), np.array([2]), ["haiku"])
