"""A writer killed at any moment loses and doubles nothing: real processes, really killed, then delivered again."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import store_batches as batches
from test_store import ALL, random_rows

from recsys.logs.store import Store
from recsys.logs.store.manifest import load

# Kills itself around the number-th rename or deletion: data files, then the manifest, are renamed into place.
CHILD = """
import os, pathlib, signal, sys
sys.path[:0] = [{tests!r}]
moment, number, operation = sys.argv[1], int(sys.argv[2]), sys.argv[3]
count = 0

def dying(real):
    def wrapper(*arguments, **options):
        global count
        count += 1
        if (moment, count) == ("before", number):
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **options)
        if (moment, count) == ("after", number):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapper

import store_batches as batches
from test_store import random_rows
from recsys.logs.store import Store
store = Store({store!r}, batches.Lengths())
if moment != "never":
    if operation == "collect":
        pathlib.Path.unlink = dying(pathlib.Path.unlink)
    else:
        os.replace = dying(os.replace)
if operation == "forget":
    store.forget(["u1"])
else:
    store.append(batches.raw(random_rows(21, 40)))
"""


def child(store: Path, *arguments: object) -> int:
    script = CHILD.format(tests=str(Path(__file__).parent), store=str(store))
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], env=environment, capture_output=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.create(tmp_path / "store", batches.Lengths(), 2)
    made.append(batches.raw(random_rows(20, 120), ALL))
    made.refresh(batches.config("matched"))
    return made


BEFORE = batches.everything([random_rows(20, 120)], ALL)
AFTER = batches.everything([random_rows(20, 120), random_rows(21, 40)], ALL)


@pytest.mark.parametrize(
    ("moment", "number"), [("before", 1), ("after", 1), ("after", 4), ("manifest", 0), ("after manifest", 0)]
)
def test_a_kill_around_any_rename_of_an_append(store: Store, moment: str, number: int) -> None:
    generation = load(store.root).generation
    if "manifest" in moment:  # the last rename: count those of the same append elsewhere
        number = _renames(store, lambda copy: copy.append(batches.raw(random_rows(21, 40))))
    assert child(store.root, "before" if moment in ("before", "manifest") else "after", number, "append") < 0
    committed = moment == "after manifest"
    assert load(store.root).generation == generation + committed
    batches.same(Store(store.root, batches.Lengths()), AFTER if committed else BEFORE)
    assert bool(_unnamed(store.root)) != committed
    again = Store(store.root, batches.Lengths())
    appended = again.append(batches.raw(random_rows(21, 40)))
    assert (appended.counts["events_new"] == 0) == committed
    batches.same(again, AFTER)
    assert not _unnamed(store.root)


def test_a_kill_in_the_middle_of_collecting(store: Store) -> None:
    store.append(batches.raw(random_rows(22, 20)))
    store.compact()
    store.append(batches.raw([(1, 2, 3, 4, "rating")]))  # the next writer has the files before compaction to collect
    assert child(store.root, "after", 1, "collect") < 0
    again = Store(store.root, batches.Lengths())
    again.append(batches.raw(random_rows(21, 40)))
    parts = [random_rows(20, 120), random_rows(22, 20), [(1, 2, 3, 4, "rating")], random_rows(21, 40)]
    batches.same(again, batches.everything(parts, ALL))  # type: ignore[arg-type]
    assert not _unnamed(store.root)


def test_a_kill_after_forgetting_committed_leaves_nothing_for_the_next_writer_to_keep(store: Store) -> None:
    number = _renames(store, lambda copy: copy.forget(["u1"]))
    assert child(store.root, "after", number, "forget") < 0
    assert Store(store.root).holds(["u1"])["events"] == 0 and _unnamed(store.root)
    Store(store.root, batches.Lengths()).append(batches.raw(random_rows(23, 5)))
    assert not _unnamed(store.root)
    assert not any(b"u1" in path.read_bytes() for path in store.root.rglob("*.parquet"))


def _renames(store: Store, operation: Callable[[Store], object]) -> int:
    """Renames of an operation: one per new file, and the manifest's."""
    copy = store.root.with_name("copy")
    shutil.copytree(store.root, copy)
    known = set(load(copy).files)
    operation(Store(copy, batches.Lengths()))
    return len(set(load(copy).files) - known) + 1


def _unnamed(root: Path) -> set[str]:
    """Files that the manifest neither names nor keeps for slow readers."""
    manifest = load(root)
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return found - {*manifest.files, *manifest.retired, "manifest.json", ".lock"}
