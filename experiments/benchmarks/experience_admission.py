"""Admitting 10,000 experiences to a library of 100,000: growing it against indexing everything again.

Run:  OMP_NUM_THREADS=2 python experiments/benchmarks/experience_admission.py [--entries 100000] [--new 10000]
                                                                              [--repeats 5] [--out experiments/results]

Vectors are given, so embedding, equal in both arms, is not timed. Each repeat admits another block of new records:

  incremental   library.admit(block): one new segment on disk, rows added to the indexes in memory
  reindex_all   a fresh library of all records so far: every file written, both indexes built

At its default size the first repeat passes 100,000 rows, where a growing index turns once from exact to HNSW and pays
for all rows. Both are timed up to the first answer from each of the two views, and the answers of both must be the
same. Writes experience_admission.json and artefacts/experience_admission.csv (raw seconds, for the ledger).
"""

import os
import tempfile
import time

import numpy as np
from experience_retrieval import WIDTH, some_entries, some_vectors
from recording import enter, parser_of, ratio, record, say

from verbalize.experience.entries import VIEWS, Experience
from verbalize.experience.library import ExperienceLibrary
from verbalize.report.artefacts import timings_table


def embed(texts: object) -> np.ndarray:
    """Only asked for the width of a new library."""
    return np.eye(1, WIDTH, dtype=np.float32)


def admit_and_ask(
    library: ExperienceLibrary, entries: list[Experience], vectors: np.ndarray, queries: np.ndarray
) -> list[list[str]]:
    library.admit(entries, dict.fromkeys(VIEWS, vectors))
    found = [library.retrieve(queries, 5, None, None, view=view) for view in VIEWS]
    return [[hit.entry.id for hit in hits] for answers in found for hits in answers]


def measure(n: int, new: int, repeats: int) -> dict[str, list[float]]:
    """Seconds by arm. Each repeat starts from all records of the repeats before; arms alternate in going first."""
    entries, vectors = some_entries(n + new * repeats), some_vectors("admission", n + new * repeats)
    queries = some_vectors("admission queries", 8)
    seconds: dict[str, list[float]] = {"incremental": [], "reindex_all": []}
    with tempfile.TemporaryDirectory() as folder, ExperienceLibrary.open(folder, embedder=embed) as library:
        admit_and_ask(library, entries[:n], vectors[:n], queries)  # the indexes exist, as in a running training
        for repeat in range(repeats):
            done = n + new * repeat
            answers = {}
            for arm in sorted(seconds, reverse=bool(repeat % 2)):
                start = time.perf_counter()
                if arm == "incremental":
                    block = slice(done, done + new)
                    answers[arm] = admit_and_ask(library, entries[block], vectors[block], queries)
                else:
                    with (
                        tempfile.TemporaryDirectory() as other,
                        ExperienceLibrary.open(other, embedder=embed) as fresh,
                    ):
                        answers[arm] = admit_and_ask(fresh, entries[: done + new], vectors[: done + new], queries)
                        stop = time.perf_counter()
                seconds[arm].append((stop if arm == "reindex_all" else time.perf_counter()) - start)
            if answers["incremental"] != answers["reindex_all"]:
                raise SystemExit(f"the grown and the fresh library disagree in repeat {repeat}")
    return seconds


def main() -> None:
    parser = parser_of(__doc__, repeats=5)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--new", type=int, default=10_000)
    options = parser.parse_args()
    seconds = measure(options.entries, options.new, options.repeats)
    medians = {arm: float(np.median(values)) for arm, values in seconds.items()}
    artefact = record(
        "experience_admission",
        options.out,
        timings_table(seconds),
        settings={
            "entries": options.entries,
            "new": options.new,
            "repeats": options.repeats,
            "width": WIDTH,
            "omp_threads": os.environ.get("OMP_NUM_THREADS", "default"),
        },
        packages=("faiss-cpu", "numpy", "polars"),
        figures={"median_seconds": medians},
    )
    for arm, value in medians.items():
        say(f"{arm:16} {value:8.3f} s")
    enter(
        options.out,
        "bench.admission",
        f"Admitting {options.new:,} experiences to a library of {options.entries:,}, up to the first answer: time "
        "of indexing everything again over growing the library",
        **ratio("reindex_all", "incremental"),
        artefact=artefact,
        command="OMP_NUM_THREADS=2 python experiments/benchmarks/experience_admission.py",
        target=1.0,
    )


if __name__ == "__main__":
    main()
