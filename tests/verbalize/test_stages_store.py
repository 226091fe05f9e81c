"""A recipe over a store: the examples of the whole log, a key that follows appends alone, refusals."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_run import MAPPING, recipe_values, write_log

from recsys.errors import InputError
from recsys.logs.sources import SourceConfig, open_source, read_log
from recsys.logs.store import Store
from recsys.logs.store.batches import read_batch
from recsys.storage import read_json, read_parquet
from verbalize.config import build
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.stages import data

PIECES = ((500, 1100), (1, 600), (1000, None))  # out of order, and every one overlaps another


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log, its mapping and its pieces."""
    folder = write_log(tmp_path / "log")
    lines = (folder / "events.csv").read_text().splitlines(keepends=True)
    for number, (first, last) in enumerate(PIECES):
        (tmp_path / f"{number}.csv").write_text(lines[0] + "".join(lines[first:last]))
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(MAPPING))
    return folder


def append(store: Store, folder: Path, *pieces: int) -> None:
    for piece in pieces:
        items = folder / "log" / "items.csv" if piece == pieces[0] else None
        store.append(read_batch(folder / f"{piece}.csv", folder / "mapping.yaml", items))


def recipe(folder: Path, **source: Any) -> Recipe:
    values = recipe_values(folder / "log", folder / "model", folder)
    return build(Recipe, values | ({"source": source} if source else {}))


def test_examples_of_a_store_are_those_of_the_whole_file(tmp_path: Path, log: Path) -> None:
    append(Store.create(tmp_path / "store", None, 3), tmp_path, 0, 1, 2)
    made = {}
    recipes = {"file": recipe(tmp_path), "store": recipe(tmp_path, kind="store", path=f"{tmp_path}/store")}
    for name, chosen in recipes.items():
        logs, examples = Context(tmp_path / name / "logs", {}), tmp_path / name / "examples"
        facts = data.run_logs(chosen, logs, data.logs_config(chosen))
        counts = data.run_examples(chosen, Context(examples, {"logs": logs.folder}))
        tables = [read_parquet(logs.folder / f"{table}.parquet") for table in ("events", "items")]
        tables += [read_parquet(examples / f"{table}.parquet") for table in ("examples", "slates")]
        made[name] = tables, counts, facts["events_kept"], read_json(logs.folder / "engaged.json")
    whole_log, stored = made["file"], made["store"]
    assert whole_log[1:] == stored[1:] and whole_log[1]["examples_train"] > 20
    for whole, appended in zip(whole_log[0], stored[0], strict=True):
        assert len(whole) and appended.equals(whole)


def test_the_key_follows_what_was_appended_and_nothing_else(tmp_path: Path, log: Path) -> None:
    store, chosen = Store.create(tmp_path / "store", None, 3), recipe(tmp_path, kind="store", path=f"{tmp_path}/store")
    append(store, tmp_path, 0)
    first = data.logs_config(chosen)
    append(store, tmp_path, 0)
    store.refresh(chosen.examples)
    assert store.reference() is not None and data.logs_config(chosen) == first
    append(store, tmp_path, 1)
    second = data.logs_config(chosen)
    assert second != first
    user = store.log().events["user_id"][0]
    store.forget([user])
    assert data.logs_config(chosen) != second and user not in read_log(chosen.source).events["user_id"]


def test_a_store_that_moves_on_between_key_and_reading_is_refused(tmp_path: Path, log: Path) -> None:
    store, chosen = Store.create(tmp_path / "store", None, 3), recipe(tmp_path, kind="store", path=f"{tmp_path}/store")
    append(store, tmp_path, 0)
    expected = data.logs_config(chosen)
    append(store, tmp_path, 2)
    with pytest.raises(InputError, match=r"changed between.*same command again"):
        data.run_logs(chosen, Context(tmp_path / "stage", {}), expected)
    assert not (tmp_path / "stage").exists()
    data.run_logs(chosen, Context(tmp_path / "stage", {}), data.logs_config(chosen))


def test_what_is_no_source_of_this_kind_is_refused(tmp_path: Path, log: Path) -> None:
    for path, message in (("", "names no store"), (str(tmp_path / "nowhere"), "holds no store")):
        with pytest.raises(InputError, match=message):
            data.logs_config(recipe(tmp_path, kind="store", path=path))
    Store.create(tmp_path / "store", None, 2)
    source = SourceConfig("store", str(tmp_path / "store"))
    with pytest.raises(InputError, match="no valid event yet"):
        read_log(source)
    with pytest.raises(InputError, match="call read_log"):
        open_source(source)
    for change in ({"mapping": "m.yaml"}, {"inline": MAPPING}, {"roll_up": True}):
        with pytest.raises(InputError, match="were read when they were appended"):
            read_log(dataclasses.replace(source, **change))
