"""From a recommender, examples and texts to the decisions table: every number of a report is computed from that
table alone.

A ranking needs one score per candidate. Where scores depend on the text and the candidate only (recommenders that
offer `score_texts`), each distinct text of a chunk is scored once, against the union of the candidates it meets
over all slates. Work is cut into chunks of examples; `decide_in_chunks` leaves one Parquet part per chunk, so an
interrupted evaluation goes on where it stopped and ends in the same bytes.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl

from recsys import contracts
from recsys.errors import InputError
from recsys.metrics import target_ranks
from recsys.recommenders.base import Query, Recommender
from recsys.recommenders.collaborative import history_item_ids
from recsys.storage import read_json, read_parquet, write_json, write_parquet

Progress = Callable[[int, int], None]


@runtime_checkable
class TextScorer(Protocol):
    """A recommender whose score of a candidate depends on the text and that candidate alone."""

    def score_texts(self, texts: Sequence[str], candidate_lists: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """B texts and B lists of item ids (C_b,) -> B float64 arrays (C_b,)."""
        ...


def decide(
    recommender: Recommender,
    examples: pl.DataFrame,
    texts: Sequence[str],
    *,
    verbalizer: str,
    seed: int = 0,
    slates: pl.DataFrame | None = None,
    progress: Progress | None = None,
    chunk_size: int = 64,
) -> pl.DataFrame:
    """Rank the slates of `examples` from `texts` (one per row); the result obeys the decisions contract.

    `seed` is the arm's training seed. `slates` (example_id, slate_index, slate, target_index) replaces the
    examples' own slate by M redraws each. Ties are broken by (example, slate) and so alike in every arm.
    `progress(done, total)` counts examples. Raises InputError when texts and examples, or slates and examples, do
    not match.
    """
    jobs = _jobs(examples, texts, slates)
    parts = []
    for start in range(0, examples.height, chunk_size):
        parts.append(
            _decide_chunk(recommender, jobs, range(start, min(start + chunk_size, examples.height)), verbalizer, seed)
        )
        if progress:
            progress(min(start + chunk_size, examples.height), examples.height)
    return contracts.check(pl.concat(parts) if parts else contracts.empty("decisions"), "decisions")


def decide_in_chunks(
    recommender: Recommender,
    examples: pl.DataFrame,
    texts: Sequence[str],
    *,
    verbalizer: str,
    folder: Path,
    seed: int = 0,
    slates: pl.DataFrame | None = None,
    progress: Progress | None = None,
    chunk_size: int = 64,
) -> pl.DataFrame:
    """As `decide`, one Parquet part per chunk in `folder`; parts already there are read instead of computed.

    `folder/inputs.json` holds the digest of everything the parts depend on; a folder begun with other inputs raises
    InputError (`recommender.digest`, where there is one, should cover weights and configuration).
    """
    jobs = _jobs(examples, texts, slates)
    described = {
        "digest": _digest(recommender, jobs, verbalizer, seed, chunk_size),
        "verbalizer": verbalizer,
        "recommender": recommender.name,
        "seed": seed,
        "chunk_size": chunk_size,
    }
    note = folder / "inputs.json"
    if not note.exists():
        write_json(described, note)
    elif read_json(note) != described:
        raise InputError(
            str(folder),
            "holds decisions of other examples, texts, slates or settings",
            "delete the folder or name another one",
        )
    parts = []
    for number, start in enumerate(range(0, examples.height, chunk_size)):
        part = folder / f"part-{number:05d}.parquet"
        stop = min(start + chunk_size, examples.height)
        if not part.exists():
            write_parquet(_decide_chunk(recommender, jobs, range(start, stop), verbalizer, seed), part)
        parts.append(read_parquet(part))
        if progress:
            progress(stop, examples.height)
    return contracts.check(pl.concat(parts) if parts else contracts.empty("decisions"), "decisions")


def own_slates(examples: pl.DataFrame) -> pl.DataFrame:
    """The examples' own slates as a slates frame with slate_index 0."""
    position = pl.struct("slate", "target_item_id").map_elements(
        lambda row: row["slate"].index(row["target_item_id"]) if row["target_item_id"] in row["slate"] else -1, pl.Int32
    )
    frame = examples.select(
        "example_id", pl.lit(0, pl.Int32).alias("slate_index"), "slate", position.alias("target_index")
    )
    lost = frame.filter(pl.col("target_index") < 0)
    if lost.height:
        raise InputError(
            f"example {lost['example_id'][0]} and {lost.height - 1} more",
            "the slate lacks its target",
            "build the examples again",
        )
    return frame


def aligned_texts(examples: pl.DataFrame, verbalizations: pl.DataFrame, verbalizer: str) -> list[str]:
    """The texts of one verbalizer from a verbalizations table, in the examples' row order. A missing text raises
    InputError.
    """
    chosen = verbalizations.filter(pl.col("verbalizer") == verbalizer).select("example_id", "text")
    joined = examples.select("example_id").join(chosen, on="example_id", how="left", maintain_order="left")
    missing = joined["text"].null_count()
    if missing or joined.height != examples.height:
        raise InputError(
            f"verbalizer {verbalizer!r}",
            f"has no text for {missing} of {examples.height} examples, or several",
            "run the verbalize stage for these examples",
        )
    return joined["text"].to_list()


class _Jobs:
    """What is ranked, by example row: ids, queries and that example's slates."""

    def __init__(self, examples: pl.DataFrame, texts: Sequence[str], slates: pl.DataFrame) -> None:
        ids = examples["example_id"].to_list()
        self.users = examples["user_id"].to_list()
        self.queries = [
            Query(example_id, text, history)
            for example_id, text, history in zip(ids, texts, history_item_ids(examples), strict=True)
        ]
        by_id: dict[str, list[tuple[int, list[str], int]]] = {example_id: [] for example_id in ids}
        columns = (slates[name].to_list() for name in ("example_id", "slate_index", "slate", "target_index"))
        for example_id, index, slate, target in zip(*columns, strict=True):
            if example_id in by_id:
                by_id[example_id].append((index, slate, target))
        self.slates = [sorted(by_id[example_id]) for example_id in ids]  # per example, by slate_index
        empty = [example_id for example_id in ids if not by_id[example_id]]
        if empty:
            raise InputError(
                f"example {empty[0]} and {len(empty) - 1} more",
                "have no slate in the slates frame",
                "draw slates for exactly these examples",
            )


def _jobs(examples: pl.DataFrame, texts: Sequence[str], slates: pl.DataFrame | None) -> _Jobs:
    if len(texts) != examples.height:
        raise InputError(
            f"{len(texts)} texts for {examples.height} examples",
            "there must be one text per example, in row order",
            "use aligned_texts",
        )
    if examples["example_id"].n_unique() != examples.height:
        raise InputError("repeated example_id", "an example may occur once", "remove the repeated rows")
    return _Jobs(examples, texts, own_slates(examples) if slates is None else slates)


def _decide_chunk(recommender: Recommender, jobs: _Jobs, rows: range, verbalizer: str, seed: int) -> pl.DataFrame:
    """Decisions of the examples in `rows`, ordered by row and slate_index."""
    flat = [(row, *slate) for row in rows for slate in jobs.slates[row]]  # (row, slate_index, slate, target_index)
    queries, slates = [jobs.queries[row] for row, *_ in flat], [slate for _, _, slate, _ in flat]
    if isinstance(recommender, TextScorer):
        scores = _score_distinct_texts(recommender, queries, slates)
    else:
        scores = recommender.rank(queries, slates)
    for query, slate, row_scores in zip(queries, slates, scores, strict=True):
        if np.shape(row_scores) != (len(slate),):
            raise InputError(
                f"scores of shape {np.shape(row_scores)} for a slate of {len(slate)} (example {query.example_id})",
                "a recommender returns one score per candidate",
                f"correct the recommender {recommender.name!r}",
            )
    targets = [target for *_, target in flat]
    keys = [(query.example_id, index) for query, (_, index, _, _) in zip(queries, flat, strict=True)]
    columns: dict[str, Any] = {
        "example_id": [query.example_id for query in queries],
        "user_id": [jobs.users[row] for row, *_ in flat],
        "slate_index": [index for _, index, *_ in flat],
        "verbalizer": [verbalizer] * len(flat),
        "recommender": [recommender.name] * len(flat),
        "seed": [seed] * len(flat),
        "scores": [np.asarray(row, dtype=np.float64).tolist() for row in scores],
        "target_index": targets,
        "rank": target_ranks(scores, targets, keys),
    }
    return pl.DataFrame(columns, schema=contracts.schema("decisions"))


def _score_distinct_texts(
    recommender: TextScorer, queries: Sequence[Query], slates: Sequence[Sequence[str]]
) -> list[np.ndarray]:
    """One `score_texts` call in which each distinct text meets the union of its slates' candidates once."""
    wanted: dict[str, dict[str, int]] = {}  # text -> candidate -> place in its candidate list
    for query, slate in zip(queries, slates, strict=True):
        places = wanted.setdefault(query.text, {})
        for item_id in slate:
            places.setdefault(item_id, len(places))
    scored = dict(
        zip(wanted, recommender.score_texts(list(wanted), [list(places) for places in wanted.values()]), strict=True)
    )
    return [
        np.asarray(scored[query.text])[[wanted[query.text][item_id] for item_id in slate]]
        for query, slate in zip(queries, slates, strict=True)
    ]


def _digest(recommender: Recommender, jobs: _Jobs, verbalizer: str, seed: int, chunk_size: int) -> str:
    digest = hashlib.sha256(
        repr((recommender.name, getattr(recommender, "digest", ""), verbalizer, seed, chunk_size)).encode()
    )
    for query, user, slates in zip(jobs.queries, jobs.users, jobs.slates, strict=True):
        digest.update(repr((query.example_id, query.text, query.history, user, slates)).encode())
    return digest.hexdigest()
