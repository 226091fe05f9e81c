"""The library as its users meet it: what is retrieved, what outlives a restart, who may write, what is forgotten."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from experience_helpers import START, a_lesson, binary_batch, named_vectors, open_library, shown, some_trajectories

from recsys.errors import InputError
from verbalize.experience.entries import Exclude, Experience, from_frame, lesson, to_frame, trajectory
from verbalize.experience.evolution import Episode
from verbalize.experience.library import ExperienceLibrary
from verbalize.experience.settings import AdmissionConfig, ClusterConfig, ExperienceConfig


def test_records_survive_the_way_to_a_table_and_back() -> None:
    entries = [*some_trajectories(6), a_lesson("wait", users=["a", "b"], time=START)]
    assert from_frame(to_frame(entries)) == entries
    assert entries[0].messages[1] == {"role": "assistant", "content": "go 0"}
    later = entries[0].time.astimezone(None) if entries[0].time else None
    assert replace(entries[0], time=later, id="") == replace(entries[0], id=""), "one moment is one record"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: a_lesson("x", zone="advice"), "zone 'advice'"),
        (lambda: a_lesson(" "), "neither may be empty"),
        (lambda: a_lesson("x", score=float("nan")), "score nan"),
        (lambda: a_lesson("x", time=datetime(2024, 1, 1)), "no time zone"),
        (lambda: trajectory("t", [{"role": "tool", "content": "x"}], 1, True, source="s"), "a message has a role"),
        (lambda: trajectory("t", [{"role": "system", "content": "x"}], 1, True, source="s"), "no user or assistant"),
    ],
)
def test_bad_records_are_refused(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


def test_a_query_never_sees_its_own_user_its_own_trajectory_or_what_is_not_earlier(tmp_path: Path) -> None:
    entries = some_trajectories(60)
    with open_library(tmp_path) as library:
        library.admit(entries)
        own = Exclude(users=["u1"], sources=["s3", "s6"])
        cutoff = START + timedelta(hours=30)
        seen = [h.entry for h in library.retrieve(["task 1"], 99, cutoff, own)[0]]
        expected = {
            e.id for i, e in enumerate(entries) if i % 3 != 1 and i not in (3, 6) and e.time is not None and i < 30
        }
        assert {e.id for e in seen} == expected and len(seen) == len(expected)
        assert len(shown(library)) == 50, "k bounds the answer"
        each = library.retrieve(["task 1", "task 2"], 3, [None, cutoff], [own, None])
        assert each == [library.retrieve(["task 1"], 3, None, own)[0], library.retrieve(["task 2"], 3, cutoff, None)[0]]
        with pytest.raises(InputError, match="2 values for 1 queries"):
            library.retrieve(["task 1"], 3, [None, None], None)
        with pytest.raises(InputError, match="no time zone"):
            library.retrieve(["task 1"], 3, datetime(2024, 1, 1), None)


def test_both_views_and_kinds_are_searched_apart(tmp_path: Path) -> None:
    with open_library(tmp_path) as library:
        library.admit([*some_trajectories(8), a_lesson("wait", observation="task 1")])
        whole = "room 5\ngo 1"
        assert library.retrieve([whole], 1, None, None, view="text")[0][0].entry.sources == ("s5",)
        assert library.retrieve(["task 1"], 9, None, None, kind="lesson")[0][0].entry.text == "wait"
        assert library.retrieve(["task 1"], 9, None, None, zone="warning") == [[]]
        with pytest.raises(InputError, match="view 'texts'"):
            library.retrieve(["task 1"], 1, None, None, view="texts")
        vectors = named_vectors(["task 1"])
        assert library.retrieve(vectors, 3, None, None) == library.retrieve(["task 1"], 3, None, None)
        with pytest.raises(InputError, match="normalise the rows"):
            library.retrieve(2 * vectors, 3, None, None)


def test_admitting_again_changes_nothing(tmp_path: Path) -> None:
    entries = some_trajectories(10)
    with open_library(tmp_path) as library:
        assert len(library.admit(entries[:6] + entries[:2]).ids) == 6
        version = library.version
        assert library.admit(entries[:6]).known == 6
        assert library.version == version and len(library) == 6
        given = {v: named_vectors([e.view(v) for e in entries]) for v in ("key", "text")}
        assert library.admit(entries, given).ids == tuple(e.id for e in entries[6:])
        assert shown(library, k=3) == [h.entry.id for h in library.retrieve(["task 1"], 3, None, None)[0]]


def five_lessons(batch: int) -> list[Experience]:
    return [a_lesson(f"lesson {batch}-{i}", observation=f"place {i}") for i in range(5)]


@pytest.mark.parametrize(("rule", "still_admits"), [("paper", False), ("value", True)])
def test_a_full_library_goes_on_evolving_by_the_remedy_only(tmp_path: Path, rule: str, still_admits: bool) -> None:
    config = ExperienceConfig(admission=AdmissionConfig(rule=rule, strategies=10))  # type: ignore[arg-type]
    with open_library(tmp_path, config) as library:
        for batch in range(6):
            useful = library.entries()[0].id if batch else ""
            report = library.evolve(binary_batch(frozenset({useful} - {""})), lambda *_, n=batch: five_lessons(n))
            assert report.lessons == len(library) <= 10 and report.epoch == batch
        assert (report.admitted, report.evicted) == ((5, 5) if still_admits else (0, 0))
        assert "lesson 0-0" in {e.text for e in library.entries()}, "used in successes only, so it stays by either rule"
        assert library.usage(library.entries()[0].id).credit > 2
        state = [library.usage(e.id) for e in library.entries()], library.entries(), library.epoch
    with open_library(tmp_path, config) as again:
        assert ([again.usage(e.id) for e in again.entries()], again.entries(), again.epoch) == state


def test_evolution_sees_the_best_and_the_worst_and_counts_every_candidate(tmp_path: Path) -> None:
    calls = []

    def extract(best: object, worst: object) -> list[Experience]:
        calls.append((best, worst))
        repeats = [a_lesson("go ~ 1"), a_lesson("go ~ 1", observation="elsewhere")]
        return [a_lesson("go"), *repeats, *(a_lesson(f"no {i}", "warning", 0.0) for i in range(9))]

    with open_library(tmp_path) as library:
        report = library.evolve(binary_batch(), extract)
        assert [[e.score for e in side] for side in calls[0]] == [[1.0] * 4, [0.0] * 4]
        assert (report.extracted, report.over_limit, report.repeats, report.admitted) == (12, 4, 2, 6)
        again = library.evolve(binary_batch(), extract)
        assert (again.known, again.repeats, again.admitted) == (6, 2, 0)
        with pytest.raises(InputError, match="evolution admits lessons"):
            library.evolve(binary_batch(), lambda *_: some_trajectories(1))
        assert library.evolve([Episode("a", 1.0)], extract).extracted == 0, "no contrast, nothing to extract"
        assert not library.gate(4) and not library.gate(5)


def test_a_step_is_shown_its_clusters_lessons(tmp_path: Path) -> None:
    config = ExperienceConfig(clusters=ClusterConfig(delta=0.85))
    with open_library(tmp_path, config) as library:
        first = library.retrieve_steps(["hall", "hall ~ 1", "cellar"], None, None)
        assert [s.cluster for s in first] == [0, 0, 1] and not any(s.ids for s in first)
        here = [a_lesson(f"s{i}", score=i / 4, observation="hall ~ 2") for i in range(4)]
        library.admit([*here, a_lesson("w", "warning", 0.0, observation="hall"), a_lesson("far", observation="attic")])
        step = library.retrieve_steps(["hall ~ 3"], None, None)[0]
        assert step.cluster == 0 and [h.entry.text for h in step.strategies] == ["s3", "s2"]
        assert [h.entry.text for h in step.warnings] == ["w"]
        own = Exclude(sources=["source of s3"])
        assert [h.entry.text for h in library.retrieve_steps(["hall"], None, own)[0].strategies] == ["s2", "s1"]
        # "attic" has no cluster yet: its lesson comes by similarity, and is then in the new cluster's pool.
        assert [h.entry.text for h in library.retrieve_steps(["attic ~ 1"], None, None)[0].strategies] == ["far"]
        assert library.clusters == 3
        library.commit()
    with open_library(tmp_path, config, read_only=True) as reader:
        step = reader.retrieve_steps(["attic ~ 1", "garden"], None, None)
        assert [s.cluster for s in step] == [2, -1] and step[0].strategies[0].entry.text == "far"
        assert reader.clusters == 3, "reading founds nothing"


def test_a_step_with_a_cutoff_depends_on_nothing_later(tmp_path: Path) -> None:
    early = [a_lesson(f"early {i}", observation=f"hall ~ {i}", time=START, score=0.5) for i in range(3)]
    late = [a_lesson(f"late {i}", observation="hall", time=START + timedelta(days=2)) for i in range(3)]
    cutoff, found = START + timedelta(days=1), []
    for name, entries, walks in (("a", early, []), ("b", early + late, ["hall", "hall ~ 9", "hall ~ 1"])):
        with open_library(tmp_path / name) as library:
            library.admit(entries)
            library.retrieve_steps(walks, None, None)  # founds clusters and links, from any time
            step = library.retrieve_steps(["hall ~ 9"], cutoff, None)[0]
            found.append((step.strategies, step.warnings))
    assert found[0] == found[1] and len(found[0][0]) == 2


def test_a_step_with_a_cutoff_does_not_consult_a_cluster_that_a_later_observation_founded(tmp_path: Path) -> None:
    """Lesson 7 is near "hall" and not near "hall ~ 4": only the pool of a cluster around "hall" would show it there."""
    config, found = ExperienceConfig(clusters=ClusterConfig(delta=0.94)), []
    for name, walks in (("a", []), ("b", ["hall"])):
        with open_library(tmp_path / name, config) as library:
            library.retrieve_steps(walks, None, None)
            library.admit([a_lesson(f"at {i}", observation=f"hall ~ {i}", time=START) for i in (4, 7)])
            found.append(library.retrieve_steps(["hall ~ 4"], START + timedelta(days=1), None)[0].strategies)
    assert [hit.entry.text for hit in found[0]] == ["at 4"] and found[0] == found[1]


def test_reading_keeps_its_snapshot_and_refuses_every_change(tmp_path: Path) -> None:
    entries = some_trajectories(30)
    with open_library(tmp_path) as library:
        library.admit(entries[:10])
        reader = open_library(tmp_path, read_only=True)
        library.admit(entries[10:20])
        library.evolve(binary_batch(), lambda *_: five_lessons(0))
        assert len(reader) == 10 and len(shown(reader)) == 10
        for change in (
            lambda: reader.admit(entries[20:]),
            lambda: reader.evolve(binary_batch(), lambda *_: five_lessons(1)),
            lambda: reader.forget("u1"),
            lambda: reader.rollback(1),
            reader.commit,
        ):
            with pytest.raises(InputError, match="open for reading only"):
                change()
        before = sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
        reader.refresh()
        assert len(reader) == 25 and shown(reader) == shown(library) and reader.entries() == library.entries()
        assert before == sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
        old = open_library(tmp_path, read_only=True, version=2)
        old.refresh()
        assert len(old) == 10
    with pytest.raises(InputError, match="only the current version can be written"):
        open_library(tmp_path, version=2)
    with pytest.raises(InputError, match="is not kept; kept are"):
        open_library(tmp_path, read_only=True, version=77)
    with pytest.raises(InputError, match="holds no experience library"):
        open_library(tmp_path / "nowhere", read_only=True)


def test_rolling_back_continues_from_an_older_version(tmp_path: Path) -> None:
    entries = some_trajectories(20)
    with open_library(tmp_path) as library:
        library.admit(entries[:10])
        kept, content = library.version, library.entries()
        library.evolve(binary_batch(), lambda *_: five_lessons(0))
        library.admit(entries[10:])
        library.rollback(kept)
        assert library.entries() == content and library.epoch == 0 and library.version == kept + 3
        library.admit(entries[15:])
    with open_library(tmp_path) as again:
        assert again.entries() == content + entries[15:]


def test_forgetting_leaves_no_trace_in_memory_or_in_any_file(tmp_path: Path) -> None:
    secret = "unmistakable-user-text"
    with open_library(tmp_path, ExperienceConfig(admission=AdmissionConfig(strategies=1))) as library:
        library.admit(some_trajectories(9))
        chat = [{"role": "user", "content": secret}, {"role": "assistant", "content": "x"}]
        library.admit([trajectory(f"{secret} task", chat, 1.0, True, source="s", user=secret)])
        shared = lesson(f"{secret} place", "mixed", "pattern", "strategy", 1.0, sources=["s"], users=[secret, "u1"])
        library.evolve(binary_batch(), lambda *_: [shared])
        library.evolve(binary_batch(), lambda *_: [a_lesson("newer")])  # evicts the shared one: a masked row remains
        library.retrieve_steps([f"{secret} place", "a room"], None, Exclude(users=[secret]))
        library.retrieve_steps(["a room"], None, Exclude(users=["u1"]))
        library.commit()
        assert files_with(tmp_path, secret), "the check below can fail"
        assert library.forget(secret) == 1 and library.forget("nobody") == 0
        assert not files_with(tmp_path, secret)
        assert len(library) == 10 and library.clusters == 0
        assert all(secret not in e.users for e in library.entries())
        kept = library.version
        with pytest.raises(InputError, match="not kept"):
            library.rollback(2)
    with open_library(tmp_path) as again:
        assert again.version == kept and len(again) == 10


def files_with(folder: Path, text: str) -> list[str]:
    """Files that hold the text once Parquet is read (it compresses)."""
    import polars as pl

    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            data = str(pl.read_parquet(path).to_dicts()) if path.suffix == ".parquet" else str(path.read_bytes())
            found += [path.name] if text in data else []
    return found


def test_another_embedding_model_is_refused(tmp_path: Path) -> None:
    open_library(tmp_path).close()
    with pytest.raises(InputError, match="the library was made with 'minilm'"):
        open_library(tmp_path, ExperienceConfig(embedding="other"))
    with pytest.raises(InputError, match=r"must be \(1, 16\)"):
        library = ExperienceLibrary.open(tmp_path, embedder=lambda texts: np.eye(3, dtype=np.float32)[: len(texts)])
        library.admit([a_lesson("x")])


def test_texts_are_embedded_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def counting(texts: object) -> np.ndarray:
        asked.extend(texts)  # type: ignore[arg-type]
        return named_vectors(texts)  # type: ignore[arg-type]

    with ExperienceLibrary.open(tmp_path, embedder=counting) as library:
        library.admit(some_trajectories(20))
        for _ in range(3):
            library.retrieve(["task 1", "task 1", "new"], 2, None, None)
    assert len(asked) == len(set(asked)) == 1 + 7 + 20 + 1


@pytest.mark.real_model
def test_the_real_encoder_retrieves_by_meaning(tmp_path: Path) -> None:
    texts = {
        "put a clean mug on the shelf": "mug",
        "find two keys and open the safe": "safe",
        "water the plants": "plants",
    }
    with ExperienceLibrary.open(tmp_path) as library:
        library.admit(
            [trajectory(t, [{"role": "assistant", "content": t}], 1.0, True, source=s) for t, s in texts.items()]
        )
        queries = ["wash a cup and place it on the rack", "unlock the strongbox"]
        found = library.retrieve(queries, 1, None, None)
        assert [hits[0].entry.sources[0] for hits in found] == ["mug", "safe"]
        assert [library.retrieve([q], 1, None, None)[0][0].entry for q in queries] == [h[0].entry for h in found]
