"""The store equals the whole pipeline over everything delivered, whatever the order, repetition and size of batches."""

import dataclasses
import itertools
import tempfile
import threading
from pathlib import Path

import logs_factory as factory
import numpy as np
import polars as pl
import pytest
import store_batches as batches
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ContractError, CorruptFileError, InputError
from recsys.logs.events import canonicalise
from recsys.logs.examples import build_examples
from recsys.logs.store import Store, tables
from recsys.logs.store import examples as examples_module
from recsys.logs.store.manifest import load
from recsys.logs.tables import RawLog

ALL = batches.items_of(list(range(factory.ITEMS)))
TYPES = ("rating", "rating", "click")
ROW = st.tuples(
    st.integers(0, 5), st.integers(0, 40), st.integers(0, factory.HOURS), st.integers(1, 5), st.sampled_from(TYPES)
)
STEP = st.one_of(
    st.tuples(st.just("append"), st.lists(ROW, max_size=25), st.none() | st.integers(0, 3)),
    st.tuples(st.just("again"), st.integers(0, 9), st.none()),
    st.tuples(st.just("compact"), st.just(0), st.none()),
    st.tuples(st.just("refresh"), st.sampled_from(["uniform", "popularity", "matched"]), st.integers(0, 3)),
)


def random_rows(seed: int, count: int, low: int = 0, high: int = factory.HOURS, users: int = 6) -> list[batches.Row]:
    generator = np.random.default_rng(seed)
    columns = [
        generator.integers(*span, count) for span in ((0, users), (0, factory.ITEMS), (low, high), (1, 6), (0, 3))
    ]
    return [(*map(int, row[:4]), TYPES[row[4]]) for row in zip(*columns, strict=True)]


def latest(deliveries: list[pl.DataFrame]) -> pl.DataFrame:
    """Of each item its row in the latest delivery; a row that was delivered before does not count again."""
    rows: dict[str, dict[str, object]] = {}
    seen = set()
    for table in deliveries:
        for row in table.iter_rows(named=True):
            if repr(row) not in seen:
                seen.add(repr(row))
                rows[str(row["item_id"])] = row
    found = pl.DataFrame(list(rows.values()), schema=ALL.schema).sort("item_id")
    return canonicalise(
        RawLog(batches.events_of([(0, int(found["item_id"][0][1:]), 70, 1, "rating")]).lazy(), found)
    ).items


@given(st.lists(ROW, min_size=30, max_size=80), st.lists(STEP, min_size=1, max_size=6), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_any_interleaving_of_batches_equals_a_full_rebuild(
    first: list[batches.Row], steps: list[tuple[str, object, int | None]], buckets: int
) -> None:
    known = batches.items_of(list(range(0, factory.ITEMS, 2)))  # the odd items are described later, or never
    with tempfile.TemporaryDirectory() as name:
        store = Store.create(Path(name) / "store", batches.Lengths(), buckets)
        delivered, tables_ = [first], [known]
        store.append(batches.raw(first, known))
        for kind, what, number in steps:
            if kind == "append":
                items = None if number is None else batches.items_of([*range(number, 30, 7), 40 + number], number)
                store.append(batches.raw(what, items))  # type: ignore[arg-type]
                delivered.append(what)  # type: ignore[arg-type]
                tables_ += [] if items is None else [items]
            elif kind == "again":
                place = int(what) % len(delivered)  # type: ignore[call-overload]
                before = store.append(batches.raw([])).generation
                again = store.append(batches.raw(delivered[place] + delivered[place][:3], tables_[0]))
                assert (again.generation, again.counts["events_new"], again.counts["users_touched"]) == (before, 0, 0)
            elif kind == "compact":
                store.compact()
            elif not batches.everything(delivered, latest(tables_)).events.is_empty():
                try:
                    store.refresh(batches.config(str(what), targets_per_user=number))
                except InputError as error:  # the log at hand may be too short for its split
                    assert "before the second" in error.rule
            batches.same(store, batches.everything(delivered, latest(tables_)))


@pytest.mark.parametrize("policy", ["uniform", "popularity", "matched"])
def test_after_a_refresh_the_store_is_the_ordinary_pipeline(tmp_path: Path, policy: str) -> None:
    config = batches.config(policy, targets_per_user=3)
    config = dataclasses.replace(
        config, split=dataclasses.replace(config.split, train_until="60%", validate_until="70%")
    )
    store = Store.create(tmp_path / "store", batches.Lengths(), 3)
    parts = [random_rows(seed, 90) for seed in range(3)]
    for part in parts:
        store.append(batches.raw(part, ALL))
    store.refresh(config)
    log = batches.everything(parts, ALL)
    assert store.examples().equals(build_examples(log, config)[0])
    assert store.log().events.equals(log.events) and store.log().engaged == batches.ENGAGED


def test_only_touched_users_and_only_what_a_change_reaches_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.create(tmp_path / "store", batches.Lengths(), 2)
    store.append(batches.raw(random_rows(1, 400, users=20), ALL))
    store.refresh(batches.config("matched"))
    before = store.examples()
    user = before.filter(pl.col("split") == "test")["user_id"][0]
    number = int(user[1:])
    made: list[pl.DataFrame] = []
    monkeypatch.setattr(batches.Lengths, "write", _recording(batches.Lengths.write, made))
    appended = store.append(batches.raw([(number, 7, factory.HOURS, 5, "rating")]))
    assert appended.counts["users_touched"] == 1
    again = pl.concat(made)
    assert set(again["user_id"]) == {user}
    assert again.filter(pl.col("cutoff_time") < factory.hour(factory.HOURS)).is_empty()
    untouched = before.filter(pl.col("user_id") != user)
    assert store.examples().filter(pl.col("user_id") != user).equals(untouched)
    late = store.append(batches.raw([(number, 8, 0, 5, "rating")]))  # before everything: all of the user's examples
    assert late.counts["examples_written"] >= before.filter(pl.col("user_id") == user).height > 0


def _recording(write, made):  # type: ignore[no-untyped-def]
    def wrapper(self, examples):  # type: ignore[no-untyped-def]
        made.append(examples)
        return write(self, examples)

    return wrapper


def test_the_property_notices_a_change_that_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With examples after a late event left as they were, the store no longer equals a rebuild."""
    store = Store.create(tmp_path / "store", batches.Lengths(), 2)
    first, late = random_rows(2, 200), random_rows(3, 20, 0, 10)
    store.append(batches.raw(first, ALL))
    store.refresh(batches.config())
    real = examples_module.reached
    shifted = lambda targets, known, since: real(  # noqa: E731
        targets, known, since.with_columns(pl.col("since") + pl.duration(days=90))
    )
    monkeypatch.setattr("recsys.logs.store.store.reached", shifted)
    store.append(batches.raw(late))
    with pytest.raises(AssertionError):
        batches.same(store, batches.everything([first, late], ALL))


def test_titles_carried_by_events_are_dated_by_their_first_event_also_when_it_comes_late(tmp_path: Path) -> None:
    rows = random_rows(4, 150)
    titled = batches.events_of(rows).join(ALL.drop("available_from"), on="item_id", how="left")
    titled = titled.with_columns(pl.when(pl.col("rating") > 1).then("title").alias("title"))
    parts = [titled[60:], titled[:20], titled[20:60]]
    store = Store.create(tmp_path / "store", batches.Lengths(), 3)
    for number, part in enumerate(parts):
        store.append(RawLog(part.lazy(), None, {}, batches.ENGAGED))
        log = canonicalise(RawLog(pl.concat(parts[: number + 1]).lazy(), None))
        if number == 0:
            store.refresh(batches.config(history_min=8, history_max=9))
        batches.same(store, log)
    with pytest.raises(InputError, match="items carry titles"):
        store.append(batches.raw(rows, ALL))


def test_a_bad_batch_leaves_no_trace(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", None, 2)
    store.append(batches.raw(random_rows(5, 30), ALL))
    before = sorted(path.name for path in (tmp_path / "store").rglob("*"))
    bad = batches.events_of(random_rows(6, 10)).with_columns(rating=pl.lit(float("nan")))
    with pytest.raises(ContractError, match=r"rating.*NaN"):
        store.append(RawLog(bad.lazy(), None))
    with pytest.raises(ContractError, match="event_time"):
        store.append(RawLog(bad.with_columns(pl.col("event_time").dt.epoch("s")).lazy(), None))
    with pytest.raises(InputError, match=r"lacks \['user_id'\]"):
        store.append(RawLog(bad.drop("user_id").lazy(), None))
    with pytest.raises(ContractError, match="year"):
        store.append(batches.raw([], ALL.with_columns(pl.lit(99, pl.Int32).alias("year"))))
    assert sorted(path.name for path in (tmp_path / "store").rglob("*")) == before


def test_readers_go_on_while_a_writer_commits(tmp_path: Path) -> None:
    """A reader that started before two commits gets one whole generation, never a mixture and never an error."""
    store = Store.create(tmp_path / "store", batches.Lengths(), 3)
    parts = [random_rows(seed, 30) for seed in range(6)]
    store.append(batches.raw(parts[0], ALL))
    expected = [batches.everything(parts[: number + 1], ALL).events for number in range(len(parts))]
    seen, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(Store(tmp_path / "store").log().events)

    reader = threading.Thread(target=read)
    reader.start()
    for part in parts[1:]:
        store.append(batches.raw(part))
        store.compact()
    stop.set()
    reader.join()
    assert seen and all(any(found.equals(one) for one in expected) for found in seen)


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    from recsys.logs.store.manifest import alone

    store = Store.create(tmp_path / "store", None, 2)
    store.append(batches.raw(random_rows(7, 30), ALL))
    with alone(tmp_path / "store"):
        with pytest.raises(InputError, match="another process is writing"):
            store.append(batches.raw(random_rows(8, 5)))
        assert len(store.log().events) > 0
    assert store.append(batches.raw(random_rows(8, 5))).counts["events_new"] > 0


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    root = tmp_path / "store"
    Store.create(root, None, 2).append(batches.raw(random_rows(9, 60), ALL))
    assert Store(root).verify() == len(load(root).files)
    path = root / next(iter(load(root).of("events")))
    content = path.read_bytes()
    path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    with pytest.raises(CorruptFileError, match=rf"{path.name}.*differs.*backup"):
        Store(root).log()
    with pytest.raises(CorruptFileError, match=path.name):
        Store(root).append(batches.raw([(user, 1, 3, 5, "rating") for user in range(6)]))
    path.unlink()
    with pytest.raises(CorruptFileError, match=rf"{path.name}.*missing"):
        Store(root).log()
    (root / "manifest.json").write_text("{}")
    with pytest.raises(CorruptFileError, match=r"manifest\.json"):
        Store(root)
    with pytest.raises(InputError, match="holds no store"):
        Store(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="something else"):
        Store.create(tmp_path / "other")


def test_a_bucket_is_cut_into_files_of_whole_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS_PER_FILE", 20)
    rows = random_rows(10, 300)
    store = Store.create(tmp_path / "store", None, 2)
    store.append(batches.raw(rows, ALL))
    files = load(tmp_path / "store").of("events")
    assert len(files) > 4
    for bucket in (0, 1):
        spans = sorted((f.first_day, f.last_day) for f in files.values() if f.bucket == bucket)
        assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))
    assert store.log().events.equals(batches.everything([rows], ALL).events)


def test_compaction_shrinks_the_store_and_changes_nothing(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", batches.Lengths(), 2)
    parts = [random_rows(seed, 40) for seed in range(5)]
    store.append(batches.raw(parts[0], ALL))
    store.refresh(batches.config())
    for part in parts[1:]:
        store.append(batches.raw(part))
    assert store.compact() > 0
    batches.same(store, batches.everything(parts, ALL))
    assert all(len(load(store.root).of(kind, 0)) == 1 for kind in ("events", "examples", "texts"))
    assert store.compact() == 0


def test_forgetting_removes_every_byte_and_refuses_a_second_delivery(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = Store.create(root, batches.Lengths(), 2)
    rows = [(row[0] + 900, *row[1:]) for row in random_rows(11, 200)]
    store.append(batches.raw(rows, ALL))
    store.refresh(batches.config())
    store.append(batches.raw([(903, 5, 71, 5, "rating")]))
    held = store.holds([" u903"])
    assert held == store.forget(["u903"]) and min(held.values()) > 0
    assert store.holds(["u903"]) == {"events": 0, "examples": 0, "texts": 0}
    for path in root.rglob("*"):
        if path.suffix == ".parquet" and "user_id" in (frame := pl.read_parquet(path)).columns:
            assert "u903" not in frame["user_id"]
        assert not path.is_file() or b"u903" not in path.read_bytes()
    again = store.append(batches.raw(rows))
    assert again.counts["events_of_forgotten_users_dropped"] > 0 and again.counts["events_new"] == 0
    others = [row for row in rows if row[0] != 903]
    log = batches.everything([others], ALL)
    assert store.log().events.equals(log.events)
    examples, _ = batches.full_rebuild(log, store.reference())  # type: ignore[arg-type]
    assert store.examples().equals(examples)


def test_what_a_store_cannot_keep_is_refused(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", batches.Lengths(), 2)
    with pytest.raises(InputError, match="no valid event yet"):
        store.refresh(batches.config())
    store.append(RawLog(batches.events_of(random_rows(12, 80)).lazy(), ALL))
    with pytest.raises(InputError, match="cannot be kept up to date"):
        store.refresh(batches.config("retrieved"))
    with pytest.raises(InputError, match="engaged"):
        store.refresh(dataclasses.replace(batches.config(), engaged=None))
    store.refresh(batches.config())
    with pytest.raises(InputError, match="is not the one of the store's reference"):
        Store(tmp_path / "store").append(batches.raw(random_rows(13, 5)))
