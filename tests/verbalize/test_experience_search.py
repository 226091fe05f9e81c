"""Filtered search against a slow reference: exact filters, exact results, the same one by one and batched."""

from datetime import timedelta

import numpy as np
import pytest
from experience_helpers import START, UNHURRIED, WIDTH, named_vectors, some_trajectories
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.seeding import rng
from verbalize.experience import search
from verbalize.experience.entries import Exclude, Experience
from verbalize.experience.index import GrowingMatrix, VectorIndex, product_search
from verbalize.experience.settings import IndexConfig
from verbalize.experience.table import EntryTable

FLAT, GRAPH = IndexConfig(kind="flat"), IndexConfig(kind="hnsw")


def table_of(entries: list[Experience], config: IndexConfig = FLAT) -> EntryTable:
    table = EntryTable(WIDTH, config)
    vectors = {view: named_vectors([e.view(view) for e in entries]) for view in ("key", "text")}
    table.append(entries, vectors)
    return table


def slow_search(
    table: EntryTable, query: np.ndarray, k: int, before: object, exclude: Exclude, kind: str | None
) -> list[str]:
    scored = []
    for row in table.row_of.values():
        entry = table.entries[row]
        hidden = before is not None and (entry.time is None or not entry.time < before)
        own = set(entry.users) & set(exclude.users) or set(entry.sources) & set(exclude.sources)
        if not hidden and not own and kind in (None, entry.kind):
            similar = round(float(table.vectors["key"].view[row].astype(np.float64) @ query.astype(np.float64)), 6)
            scored.append((-similar, int(table.ties[row]), entry.id))
    return [name for *_, name in sorted(scored)[:k]]


@UNHURRIED
@given(
    n=st.integers(1, 120),
    tasks=st.integers(1, 40),
    k=st.integers(0, 12),
    few=st.sampled_from([0, 2048]),
    removed=st.integers(0, 60),
    seed=st.integers(0, 10**6),
)
def test_results_equal_a_full_scan(n: int, tasks: int, k: int, few: int, removed: int, seed: int) -> None:
    """Keys repeat exactly (ties), many rows are hidden; with `few` 0 the index is asked first, else all compared."""
    table = table_of(some_trajectories(n, tasks, users=5))
    generator = rng("search", seed)
    table.remove([table.entries[row].id for row in generator.permutation(n)[: min(removed, n - 1)]])
    queries = named_vectors([f"task {i}" for i in range(5)] + ["elsewhere"])
    before = [None if i % 2 else START + timedelta(hours=int(generator.integers(0, n + 1))) for i in range(6)]
    exclude = [Exclude([f"u{generator.integers(0, 5)}"], [f"s{generator.integers(0, n)}"]) for _ in range(6)]
    default, search._FEW = search._FEW, few
    try:
        batched = table.search("key", queries, k, before, exclude, "trajectory")
        single = [
            table.search("key", queries[i : i + 1], k, [before[i]], [exclude[i]], "trajectory")[0] for i in range(6)
        ]
    finally:
        search._FEW = default
    for i, ((rows, scores), (alone, alone_scores)) in enumerate(zip(batched, single, strict=True)):
        expected = slow_search(table, queries[i], k, before[i], exclude[i], "trajectory")
        assert [table.entries[row].id for row in rows] == expected
        assert rows.tolist() == alone.tolist() and scores.tolist() == alone_scores.tolist()


def test_order_of_admission_does_not_show() -> None:
    entries = some_trajectories(60, tasks=3)
    shuffled = [entries[i] for i in rng("shuffled").permutation(60)]
    query = named_vectors(["task 1"])
    found = []
    for table in (table_of(entries), table_of(shuffled)):
        rows, _ = table.search("key", query, 10, [None], [Exclude()])[0]
        found.append([table.entries[row].id for row in rows])
    assert found[0] == found[1] and len(set(found[0])) == 10


def test_a_large_index_is_asked_and_its_answer_completed() -> None:
    """5,000 rows, more than are compared directly: filters hide the nearest hundreds, a cutoff hides nearly all."""
    n = 5000
    entries = some_trajectories(n, tasks=n, users=2)
    vectors = rng("many").normal(size=(n, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for config, exact in ((FLAT, True), (GRAPH, False)):
        table = EntryTable(WIDTH, config)
        table.append(entries, {"key": vectors, "text": vectors})
        queries = vectors[[5, 6, 7, 8]]
        nearest = [entries[row].sources[0] for row in np.argsort(-(vectors @ queries[1]))[:700]]
        exclude = [Exclude(), Exclude(sources=nearest), Exclude(["u0"]), Exclude()]
        before = [None, None, None, START + timedelta(hours=30)]
        hits = 0
        for i, (rows, _) in enumerate(table.search("key", queries, 10, before, exclude)):
            ids = [table.entries[row].id for row in rows]
            expected = slow_search(table, queries[i], 10, before[i], exclude[i], None)
            assert len(ids) == 10 and all(slow_allowed(table.entries[row], before[i], exclude[i]) for row in rows)
            assert ids == expected or not exact
            hits += len(set(ids) & set(expected))
        assert hits >= (40 if exact else 34)


def slow_allowed(entry: Experience, before: object, exclude: Exclude) -> bool:
    early = before is None or (entry.time is not None and entry.time < before)
    return bool(early and not set(entry.users) & set(exclude.users) and not set(entry.sources) & set(exclude.sources))


def test_an_index_grows_into_a_graph_and_finds_what_was_there_before() -> None:
    vectors = rng("grow").normal(size=(300, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = VectorIndex(WIDTH, IndexConfig(hnsw_above=200))
    index.add(vectors[:150])
    assert index.exact
    index.add(vectors[150:])
    assert not index.exact and len(index) == 300
    assert index.search(vectors, 1)[1][:, 0].tolist() == list(range(300))
    twin = VectorIndex(WIDTH, IndexConfig(hnsw_above=200))
    twin.add(vectors[:150])
    twin.add(vectors[150:])
    np.testing.assert_array_equal(index.search(vectors, 5)[1], twin.search(vectors, 5)[1])


@UNHURRIED
@given(st.lists(st.integers(0, 9), max_size=12))
def test_a_growing_matrix_is_the_concatenation(sizes: list[int]) -> None:
    matrix, parts = GrowingMatrix(2, np.int64), [np.zeros((0, 2), np.int64)]
    for place, size in enumerate(sizes):
        parts.append(np.full((size, 2), place))
        matrix.append(parts[-1])
    np.testing.assert_array_equal(matrix.view, np.concatenate(parts))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (63, 5), (64 * 40, 39), (64 * 40 + 7, 12), (3000, 3000)])
def test_a_product_finds_what_a_faiss_search_finds(n: int, m: int) -> None:
    import faiss

    vectors = rng("product", n).normal(size=(n, WIDTH)).astype(np.float32)
    queries = rng("product queries", n).normal(size=(9, WIDTH)).astype(np.float32)
    reference = faiss.IndexFlatIP(WIDTH)
    reference.add(vectors)
    scores, rows = product_search(vectors, queries, m)
    expected, expected_rows = reference.search(queries, m)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert (rows == expected_rows).mean() > 0.99, "only rows closer than rounding may change places"


def test_a_missing_gpu_is_named_only_when_it_was_asked_for() -> None:
    import faiss

    if getattr(faiss, "get_num_gpus", int)() and hasattr(faiss, "StandardGpuResources"):
        index = VectorIndex(2, IndexConfig(device="gpu"))
        index.add(np.eye(2, dtype=np.float32))
        assert index.search(np.eye(2, dtype=np.float32), 1)[1][:, 0].tolist() == [0, 1]
    else:
        with pytest.raises(InputError, match="sees no GPU"):
            VectorIndex(2, IndexConfig(device="gpu"))


def test_exclusions_given_as_a_plain_string_are_refused() -> None:
    with pytest.raises(InputError, match=r"give \['u1'\]"):
        Exclude(users="u1")
