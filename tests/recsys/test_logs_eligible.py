"""What competes with a target in the whole catalogue: by definition, at least what slates draw from, nothing later."""

import datetime as dt
from typing import Any

import logs_factory as factory
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.logs.eligible import Eligible
from recsys.logs.examples import build_examples
from recsys.logs.pools import Past
from recsys.logs.tables import Log


def dated(generator: np.random.Generator) -> pl.DataFrame:
    """The catalogue in random order; a third of the items appear at some hour of the log."""
    hours = [
        int(generator.integers(factory.HOURS)) if generator.random() < 0.33 else None for _ in range(factory.ITEMS)
    ]
    since = [None if moment is None else factory.hour(moment) for moment in hours]
    items = factory.catalogue().with_columns(available_from=pl.Series(since, dtype=pl.Datetime("us", "UTC")))
    return items[generator.permutation(len(items)).tolist()]


def random_log(seed: int, derived: bool) -> tuple[list[tuple[int, int, int, int]], Log, pl.DataFrame]:
    generator = np.random.default_rng(seed)
    rows = factory.random_rows(generator, 260 if derived else 120)
    log = factory.make_log(rows, None if derived else dated(generator), derived)
    examples, _ = build_examples(log, factory.small_config(history_min=8 if derived else 1, history_max=9))
    return rows, log, examples


def competing(examples: pl.DataFrame, log: Log, example_id: str) -> set[str]:
    eligible = Eligible(examples, log)
    (excluded,) = eligible.excluded([example_id])
    allowed = eligible.allowed(eligible.row_of[example_id])
    assert set(np.flatnonzero(~allowed).tolist()) == set(excluded.tolist())
    return {item for item, counts in zip(eligible.item_ids, allowed, strict=True) if counts}


def slowly(example: dict[str, Any], log: Log) -> set[str]:
    """The definition, row by row."""
    touched = {
        event["item_id"]
        for event in log.events.iter_rows(named=True)
        if event["user_id"] == example["user_id"] and event["event_time"] < example["cutoff_time"]
    }
    return {
        item["item_id"]
        for item in log.items.iter_rows(named=True)
        if item["item_id"] not in touched
        and (item["available_from"] is None or item["available_from"] < example["cutoff_time"])
    } | {example["target_item_id"]}


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=25, deadline=None)
def test_what_competes_is_what_was_available_and_untouched_and_the_target(seed: int, derived: bool) -> None:
    _, log, examples = random_log(seed, derived)
    for example in examples.head(4).iter_rows(named=True):
        found = competing(examples, log, example["example_id"])
        assert found == slowly(example, log)
        assert set(example["slate"]) <= found


def changed_by_the_future(seed: int, derived: bool) -> int:
    """How many of three examples of a random log meet other candidates once their future is rewritten."""
    rows, log, examples = random_log(seed, derived)
    generator = np.random.default_rng(seed + 1)
    differing = 0
    for place in generator.choice(len(examples), min(3, len(examples)), replace=False):
        example = examples[int(place)]
        (cutoff,), (user,), (item,) = (example[name] for name in ("cutoff_time", "user_id", "target_item_id"))
        moment = round((cutoff - factory.START) / dt.timedelta(hours=1))
        rewritten = factory.rewrite_future(rows, moment, (int(user[1:]), int(item[1:])), generator)
        later = factory.make_log(rewritten, None if derived else log.items, derived)
        differing += competing(example, later, example["example_id"][0]) != competing(
            examples, log, example["example_id"][0]
        )
    return differing


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=25, deadline=None)
def test_nothing_later_decides_who_competes(seed: int, derived: bool) -> None:
    assert changed_by_the_future(seed, derived) == 0


def test_the_property_notices_candidates_cleared_of_what_the_user_touches_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = Past.spans_before

    def lifelong(self: Past, users: pl.Series, cutoffs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return honest(self, users, np.full(len(cutoffs), np.iinfo(np.int64).max))

    monkeypatch.setattr(Past, "spans_before", lifelong)
    assert sum(changed_by_the_future(seed, False) for seed in range(6)) > 0


def test_a_foreign_target_and_a_foreign_example_are_refused() -> None:
    _, log, examples = random_log(0, False)
    with pytest.raises(InputError, match="target 'elsewhere'"):
        Eligible(examples.with_columns(target_item_id=pl.lit("elsewhere")), log)
    with pytest.raises(InputError, match="example 'nobody'"):
        Eligible(examples, log).excluded(["nobody"])
