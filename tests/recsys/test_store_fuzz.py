"""A batch that a store refuses leaves it untouched to the byte; the good batch afterwards is as if nothing had been."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import foreign_tables as foreign
import polars as pl
import pytest
import store_batches as batches
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_store import ALL, random_rows

from recsys.errors import InputError
from recsys.logs.store import Store
from recsys.logs.store.batches import read_batch
from recsys.logs.store.manifest import load
from recsys.logs.tables import RawLog

FIRST, GOOD = random_rows(31, 60), random_rows(32, 25)


class Failing(batches.Lengths):
    """A writer of texts that fails once a batch's events are written already."""

    def __init__(self) -> None:
        self.fails = False

    def write(self, examples: pl.DataFrame) -> pl.DataFrame:
        if self.fails:
            raise InputError("texts", "cannot be written", "try again")
        return super().write(examples)


def contents(root: Path) -> dict[str, bytes]:
    """Every file of a store but its lock."""
    return {path.as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def made(folder: str, refreshed: bool, writer: batches.Lengths | None = None) -> Store:
    store = Store.create(Path(folder) / "store", writer or batches.Lengths(), 2)
    store.append(batches.raw(FIRST, ALL))
    if refreshed:
        store.refresh(batches.config())
    return store


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A store before and after its first reference, to be copied."""
    return {refreshed: made(str(tmp_path_factory.mktemp("base")), refreshed).root for refreshed in (False, True)}


def copied(base: Path, folder: str) -> Store:
    return Store(shutil.copytree(base, Path(folder) / "store"), batches.Lengths())


def refused(store: Store, raw: RawLog) -> bool:
    """Whether the store refuses a batch; where it does, nothing of the store has changed."""
    before, generation = contents(store.root), load(store.root).generation
    try:
        store.append(raw)
    except InputError as refusal:
        foreign.complete(refusal)
        assert contents(store.root) == before and load(store.root).generation == generation
        return True
    return False


EVENTS = ("user_id", "item_id", "event_time", "event_type", "rating", "surface")
ITEMS = ("item_id", "title", "year", "genres", "available_from")


@st.composite
def spoilt(draw: st.DrawFn, good: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """A good table with one column gone, of another type, or holding anything."""
    name = draw(st.sampled_from(names))
    if draw(st.integers(0, 4)) == 0:
        return good.drop(name)
    few = draw(foreign.column(3, draw(st.integers(0, 3)) == 0))
    return good.with_columns(few.gather([row % 3 for row in range(len(good))]).alias(name))


@foreign.fuzz(30)
@given(spoilt(batches.events_of(GOOD), EVENTS), st.booleans())
def test_events_that_break_a_contract_leave_the_store_untouched(
    bases: dict[bool, Path], events: pl.DataFrame, refreshed: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = copied(bases[refreshed], folder)
        if refused(store, RawLog(events.lazy(), None, {}, batches.ENGAGED)):
            store.append(batches.raw(GOOD))
            batches.same(store, batches.everything([FIRST, GOOD], ALL))


@foreign.fuzz(30)
@given(spoilt(batches.items_of([1, 2, 3]), ITEMS))
def test_items_that_break_a_contract_leave_the_store_untouched(bases: dict[bool, Path], items: pl.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = copied(bases[False], folder)
        if refused(store, batches.raw(GOOD, items)):
            store.append(batches.raw(GOOD))
            batches.same(store, batches.everything([FIRST, GOOD], ALL))


MAPPING: Mapping[str, Any] = foreign.mapping("events", "")


@foreign.fuzz(40)
@given(foreign.typed_tables())
def test_files_of_any_types_are_appended_or_refused(frame: pl.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mapping.yaml").write_text(yaml.safe_dump(MAPPING))
        store = Store.create(Path(folder) / "store", buckets=1)
        good = {name: [value] for name, value in foreign.TYPICAL.items()}
        for name, table in (("good", pl.DataFrame(good)), ("odd", frame)):
            table.write_parquet(Path(folder) / f"{name}.parquet")
        try:
            odd = read_batch(Path(folder) / "odd.parquet", Path(folder) / "mapping.yaml")
        except InputError as refusal:
            foreign.complete(refusal)
        else:
            refused(store, odd)
        store.append(read_batch(Path(folder) / "good.parquet", Path(folder) / "mapping.yaml"))
        assert "u1" in store.log().events["user_id"].to_list()


def test_what_fails_after_files_were_written_takes_them_back(tmp_path: Path) -> None:
    writer = Failing()
    store = made(str(tmp_path), True, writer)
    writer.fails = True
    with pytest.raises(InputError, match="cannot be written"):
        before = contents(store.root)
        store.append(batches.raw(GOOD))
    assert contents(store.root) == before
    writer.fails = False
    store.append(batches.raw(GOOD))
    batches.same(store, batches.everything([FIRST, GOOD], ALL))


def test_items_without_titles_are_refused_by_the_column(tmp_path: Path) -> None:
    store = made(str(tmp_path), False)
    with pytest.raises(InputError, match=r"column 'title'.*is missing"):
        store.append(batches.raw(GOOD, ALL.drop("title")))
