"""Retrieval from the experience library: one call for all rollouts of a step against one call per rollout.

Run:  OMP_NUM_THREADS=2 python experiments/benchmarks/experience_retrieval.py [--entries 100000] [--rollouts 128]
                                                                              [--repeats 10] [--out experiments/results]

A library of trajectories with given unit vectors (clustered, 384 wide, exact index); a query per rollout, each with its
own cutoff and its own user and trajectory excluded, so every query's filter differs. Arms:

  batched           library.retrieve(all queries)
  one_by_one        library.retrieve([query]) for each
  text_batched      the same from texts, MiniLM included (new texts each time, none is cached); for the record, no claim
  text_one_by_one

The answers to given vectors must be the same records in the same order with the same similarities, or the run fails. A
text embedded in another batch differs in its last bits, so for texts the best record is compared. Arms alternate in a
random order. Writes experience_retrieval.json and artefacts/experience_retrieval.csv (raw seconds, for the ledger).
"""

import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
from recording import enter, parser_of, ratio, record, say

from recsys.seeding import rng
from verbalize.experience.entries import Exclude, Experience, Hit, trajectory
from verbalize.experience.library import ExperienceLibrary
from verbalize.report.artefacts import timings_table

WIDTH, K, START = 384, 4, datetime(2024, 1, 1, tzinfo=UTC)
TARGET = 10.0
Answers = list[list[Hit]]


def some_entries(n: int) -> list[Experience]:
    """Trajectories of n / 20 users, one an hour."""
    chat = [{"role": "user", "content": "You are in a hall."}, {"role": "assistant", "content": "go north"}]
    return [
        trajectory(
            f"task {i}",
            chat,
            float(i % 2),
            bool(i % 2),
            source=f"s{i}",
            user=f"u{i % max(1, n // 20)}",
            time=START + timedelta(hours=i),
        )
        for i in range(n)
    ]


def some_vectors(name: str, n: int) -> np.ndarray:
    """(n, WIDTH) unit vectors around 200 centres, as sentence embeddings of tasks are: near neighbours exist."""
    generator = rng("experience-benchmark", name, n)
    centres = rng("experience-benchmark", "centres").normal(size=(200, WIDTH))
    vectors = centres[generator.integers(0, 200, n)] + 0.7 * generator.normal(size=(n, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def fill(library: ExperienceLibrary, n: int) -> None:
    keys = some_vectors("keys", n)
    library.admit(some_entries(n), {"key": keys, "text": keys})


def measure(library: ExperienceLibrary, entries: int, rollouts: int, repeats: int) -> dict[str, list[float]]:
    """Seconds by arm; repeat −1 warms up and is not recorded."""
    users = max(1, entries // 20)
    seconds: dict[str, list[float]] = {}
    for repeat in range(-1, repeats):
        generator = rng("experience-benchmark", "repeat", repeat)
        queries = some_vectors(f"queries {repeat}", rollouts)
        before = [START + timedelta(hours=int(h)) for h in generator.integers(entries // 2, entries, rollouts)]
        exclude = [
            Exclude([f"u{user}"], [f"s{source}"])
            for user, source in zip(
                generator.integers(0, users, rollouts), generator.integers(0, entries, rollouts), strict=True
            )
        ]

        def together(asked: list[str] | np.ndarray, before: list = before, exclude: list = exclude) -> Answers:
            return library.retrieve(asked, K, before, exclude)

        def apart(asked: list[str] | np.ndarray, before: list = before, exclude: list = exclude) -> Answers:
            each = [asked[i : i + 1] for i in range(len(asked))]
            return [library.retrieve(q, K, before[i], exclude[i])[0] for i, q in enumerate(each)]

        arms: dict[str, tuple[Callable[..., Answers], list[str] | np.ndarray]] = {
            "batched": (together, queries),
            "one_by_one": (apart, queries),
            "text_batched": (together, [f"put object {i} of visit {repeat} into the safe" for i in range(rollouts)]),
            "text_one_by_one": (apart, [f"put thing {i} of visit {repeat} into the safe" for i in range(rollouts)]),
        }
        answers: dict[str, Answers] = {}
        for arm in rng("experience-order", repeat).permutation(list(arms)):
            ask, asked = arms[arm]
            start = time.perf_counter()
            answers[arm] = ask(asked)
            if repeat >= 0:
                seconds.setdefault(str(arm), []).append(time.perf_counter() - start)
        if answers["batched"] != answers["one_by_one"]:
            raise SystemExit(f"batched and single retrieval disagree in repeat {repeat}")
    return seconds


def main() -> None:
    parser = parser_of(__doc__, repeats=10)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--rollouts", type=int, default=128)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        ExperienceLibrary.open(folder) as library,
    ):
        fill(library, options.entries)
        seconds = measure(library, options.entries, options.rollouts, options.repeats)
    medians = {arm: float(np.median(values)) for arm, values in seconds.items()}
    artefact = record(
        "experience_retrieval",
        options.out,
        timings_table(seconds),
        settings={
            "entries": options.entries,
            "rollouts": options.rollouts,
            "repeats": options.repeats,
            "k": K,
            "width": WIDTH,
            "omp_threads": os.environ.get("OMP_NUM_THREADS", "default"),
        },
        packages=("faiss-cpu", "numpy", "torch"),
        figures={
            "median_seconds": medians,
            "ratio_with_embedding": medians["text_one_by_one"] / medians["text_batched"],
        },
    )
    for arm, value in medians.items():
        say(f"{arm:16} {value:8.4f} s")
    enter(
        options.out,
        "bench.retrieval_batched",
        f"Retrieving {K} of {options.entries:,} experiences for {options.rollouts} rollouts, exact and filtered: "
        "time of one call each over one call for all",
        **ratio("one_by_one", "batched"),
        artefact=artefact,
        command="OMP_NUM_THREADS=2 python experiments/benchmarks/experience_retrieval.py",
        target=TARGET,
        criterion="value",
    )


if __name__ == "__main__":
    main()
