"""What is on disk: killed writers, damaged files, two writers, readers overtaken by a writer, compaction."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from experience_helpers import a_lesson, binary_batch, open_library, shown, some_trajectories

from recsys.errors import CorruptFileError, InputError
from verbalize.experience import snapshots
from verbalize.experience.content import read_content
from verbalize.experience.library import ExperienceLibrary
from verbalize.experience.settings import AdmissionConfig, ExperienceConfig

HERE = Path(__file__).parent

WRITER = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from experience_helpers import a_lesson, open_library, some_trajectories
import recsys.storage

target, count = sys.argv[3], 0
real = os.replace
def replace(source, destination):
    # Die in the middle of the second batch: before or after the n-th file is put in its place.
    global count
    if armed:
        count += 1
        if count == int(target):
            if sys.argv[4] == "after":
                real(source, destination)
            os.kill(os.getpid(), signal.SIGKILL)
    real(source, destination)
armed = False
recsys.storage.os.replace = replace

library = open_library(Path(sys.argv[1]))
entries = some_trajectories(40)
library.admit(entries[:20])
library.retrieve_steps(["hall", "cellar"], None, None)
library.commit()
armed = True
library.retrieve_steps(["attic"], None, None)
library.admit(entries[20:])
print("committed")
"""


@pytest.mark.parametrize(
    ("file", "moment"),
    [(1, "before"), (3, "before"), (5, "after"), (8, "before"), (8, "after"), (9, "before"), (9, "after")],
)
def test_a_writer_killed_at_any_file_loses_nothing_committed(tmp_path: Path, file: int, moment: str) -> None:
    """Eight files make this commit: three of records, two of clusters, state, version, manifest. There is no ninth."""
    folder = tmp_path / "library"
    arguments = [sys.executable, "-c", WRITER, str(folder), str(HERE), str(file), moment]
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=100, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    committed = file == 9 or (file == 8 and moment == "after")
    assert done.returncode == (0 if file == 9 else -signal.SIGKILL), done.stderr
    reader = open_library(folder, read_only=True)
    assert len(reader) == (40 if committed else 20) and reader.clusters == (3 if committed else 2)
    entries = some_trajectories(40)
    with open_library(folder) as library:  # the lock died with its holder
        left = {p.name for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
        assert left == expected_files(folder), "what the killed writer left is gone"
        assert library.entries() == entries[: len(reader)]
        library.admit(entries)
        assert library.entries() == entries
    assert open_library(folder, read_only=True).entries() == entries


def expected_files(folder: Path) -> set[str]:
    versions = [snapshots.read_version(folder, n) for n in snapshots.kept_versions(folder)]
    files = {f"{s.name}.{suffix}" for v in versions for s in v.segments() for suffix in s.files}
    return files | {f"{v.version:08d}.json" for v in versions} | {"manifest.json"}


def test_a_writer_killed_at_random_moments_never_leaves_half_a_batch(tmp_path: Path) -> None:
    script = """
        import sys
        sys.path.insert(0, sys.argv[2])
        from pathlib import Path
        from experience_helpers import open_library, some_trajectories
        library = open_library(Path(sys.argv[1]))
        entries = some_trajectories(4000)
        print("ready", flush=True)
        for start in range(len(library), 4000, 10):
            library.admit(entries[start : start + 10])
    """
    folder, entries, size = tmp_path / "library", some_trajectories(4000), 0
    for pause in (0.0, 0.004, 0.011):
        arguments = [sys.executable, "-c", textwrap.dedent(script), str(folder), str(HERE)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout and writer.stdout.readline() == "ready\n"
            start, deadline = snapshots.current_version(folder), time.monotonic() + 60
            while snapshots.current_version(folder) < start + 3 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(pause)
            writer.send_signal(signal.SIGKILL)
        reader = open_library(folder, read_only=True)
        assert len(reader) >= size + 30 and len(reader) % 10 == 0
        assert reader.entries() == entries[: len(reader)]
        size = len(reader)


def filled(folder: Path, **config: object) -> None:
    with open_library(folder, ExperienceConfig(**config)) as library:  # type: ignore[arg-type]
        library.admit(some_trajectories(10))
        library.retrieve_steps(["hall"], None, None)
        library.admit([a_lesson("x")])


def test_every_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    filled(tmp_path)
    current = snapshots.read_version(tmp_path)
    needed = {f"{s.name}.{suffix}" for s in current.segments() for suffix in s.files} | {f"{current.version:08d}.json"}
    paths = [p for p in tmp_path.rglob("*") if p.name in needed]
    assert len(paths) == len(needed) > 8
    for path in paths:
        data = path.read_bytes()
        middle = len(data) // 2
        for damaged in (data[:-1], data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :], b""):
            path.write_bytes(damaged)
            with pytest.raises(CorruptFileError, match=path.name):
                open_library(tmp_path, read_only=True)
        path.unlink()
        with pytest.raises(CorruptFileError, match=f"{path.name}: is missing"):
            open_library(tmp_path, read_only=True)
        path.write_bytes(data)
    assert len(open_library(tmp_path, read_only=True)) == 11


@pytest.mark.parametrize(
    "damage", [('"version": ', '"version": 9'), ('"sha256": "', '"sha256": "0'), ("{", ""), ("t", "")]
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, damage: tuple[str, str]) -> None:
    filled(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace(*damage, 1))
    with pytest.raises(CorruptFileError):
        open_library(tmp_path, read_only=True)


def test_making_a_library_never_deletes_what_lies_there(tmp_path: Path) -> None:
    filled(tmp_path / "library")
    (tmp_path / "library" / "manifest.json").unlink()
    with pytest.raises(CorruptFileError, match="is missing, but the library's other files are there"):
        open_library(tmp_path / "library")
    (tmp_path / "mine" / "segments").mkdir(parents=True)
    (tmp_path / "mine" / "segments" / "thesis.txt").write_text("x")
    with pytest.raises(CorruptFileError):
        open_library(tmp_path / "mine")
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"not empty: it holds 'notes.txt'"):
        open_library(tmp_path / "mine")
    assert (tmp_path / "mine" / "segments" / "thesis.txt").read_text() == "x"


@pytest.mark.parametrize("file", [1, 2, 3])
def test_a_writer_killed_while_making_the_library_leaves_a_place_for_one(tmp_path: Path, file: int) -> None:
    script = WRITER.replace("armed = False", "armed = True")
    arguments = [sys.executable, "-c", script, str(tmp_path / "library"), str(HERE), str(file), "before"]
    assert subprocess.run(arguments, capture_output=True, timeout=100).returncode == -signal.SIGKILL
    with open_library(tmp_path / "library") as library:
        assert len(library) == 0 and len(library.admit(some_trajectories(3)).ids) == 3


def test_an_earlier_version_opens_when_the_current_one_is_damaged(tmp_path: Path) -> None:
    filled(tmp_path)
    version = snapshots.current_version(tmp_path)
    (tmp_path / "segments" / f"state-{version:08d}.json").write_text("{}")
    assert len(open_library(tmp_path, read_only=True, version=version - 1)) == 10


def test_one_writer_at_a_time_and_readers_beside_it(tmp_path: Path) -> None:
    filled(tmp_path)
    with open_library(tmp_path):
        script = """if True:
            import sys
            sys.path.insert(0, sys.argv[2])
            from pathlib import Path
            from experience_helpers import open_library
            print(len(open_library(Path(sys.argv[1]), read_only=True)))
            open_library(Path(sys.argv[1]))
        """
        arguments = [sys.executable, "-c", script, str(tmp_path), str(HERE)]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=100)
        assert done.stdout == "11\n" and "another process is writing this library" in done.stderr
    open_library(tmp_path).close()


def test_a_reader_overtaken_while_opening_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer rewrites and deletes every file after the reader has read the manifest."""
    filled(tmp_path)
    writer = open_library(tmp_path, ExperienceConfig(keep_versions=1))
    overtaken = []

    def slow(*arguments: object) -> object:
        if not overtaken:
            overtaken.append(writer.forget("u1"))
        return read_content(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("verbalize.experience.reading.read_content", slow)
    reader = open_library(tmp_path, read_only=True)
    assert overtaken == [3] and len(reader) == 8 and reader.version == writer.version
    writer.close()


def test_old_versions_and_their_files_are_deleted(tmp_path: Path) -> None:
    entries = some_trajectories(12)
    with open_library(tmp_path, ExperienceConfig(keep_versions=3)) as library:
        for entry in entries:
            library.admit([entry])
        assert snapshots.kept_versions(tmp_path) == [library.version - 2, library.version - 1, library.version]
        assert {p.name for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"} == expected_files(tmp_path)
        assert len(open_library(tmp_path, read_only=True, version=library.version - 2)) == 10


@pytest.mark.parametrize("config", [{"compact_segments": 3}, {"compact_dead": 0.01}, {}])
def test_compaction_changes_files_and_nothing_else(tmp_path: Path, config: dict[str, float]) -> None:
    settings = ExperienceConfig(admission=AdmissionConfig(strategies=3), **config)  # type: ignore[arg-type]
    with (
        open_library(tmp_path, settings) as library,
        open_library(tmp_path / "twin", ExperienceConfig(admission=AdmissionConfig(strategies=3))) as twin,
    ):
        for batch in range(5):
            for each in (library, twin):
                each.admit(some_trajectories(40)[8 * batch : 8 * batch + 8])
                each.retrieve_steps([f"place {batch}"], None, None)
                each.evolve(
                    binary_batch(),
                    lambda *_, n=batch: [a_lesson(f"l{n}-{i}", observation=f"place {n}") for i in range(2)],
                )
        assert library.entries() == twin.entries() and shown(library) == shown(twin)
        assert library.retrieve_steps(["place 4"], None, None) == twin.retrieve_steps(["place 4"], None, None)
        assert [library.usage(e.id) for e in library.entries("lesson")] == [
            twin.usage(e.id) for e in twin.entries("lesson")
        ]
        segments = len(snapshots.read_version(tmp_path).entries)
        assert segments <= 3 if config else segments == 10
    with ExperienceLibrary.open(tmp_path, settings, read_only=True) as again:
        assert again.entries() == library.entries()


def test_a_commit_writes_what_is_new_only(tmp_path: Path) -> None:
    with open_library(tmp_path) as library:
        library.admit(some_trajectories(2000))
        before = {p: p.stat().st_mtime_ns for p in (tmp_path / "segments").iterdir()}
        library.admit([a_lesson("one more")])
        added = [p for p in (tmp_path / "segments").iterdir() if p not in before]
        assert sum(p.stat().st_size for p in added) < 10_000
        assert all(p.stat().st_mtime_ns == moment for p, moment in before.items())
