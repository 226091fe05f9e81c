"""Slates: the target among S-1 negatives drawn by a named policy, in an order that tells nothing.

Policies: `uniform`; `popularity` (in proportion to earlier events); `matched` (from the target's own release-year band
and popularity decile); `retrieved` (from the items nearest to the mean vector of the history). Bands and deciles are
fixed intervals, never windows around the target: within its interval the target is one of many, so neither year nor
popularity points to it. Where an interval holds too few items it is doubled, in fixed steps, and counted.

Negatives exclude the target, what this user touched before the cutoff, and items not available before it: nothing else,
and nothing later. An item the user comes to like afterwards may be among them; `count_future_favourites` says how
often.
"""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.logs.engaged import EngagedConfig, engaged
from recsys.logs.popularity import daily_counts, deciles
from recsys.logs.tables import Log
from recsys.seeding import rng

POLICIES = ("matched", "popularity", "uniform", "retrieved")
# (year bands joined, deciles joined) per widening step of `matched`; 0 joins all.
_STEPS = ((1, 1), (2, 1), (2, 2), (4, 2), (4, 5), (0, 5), (0, 0))
_UNTOUCHED_WEIGHT = 1e-9  # popularity: items without events come only after all others are taken


@dataclass(frozen=True)
class SlateConfig:
    """`size` counts the target. `year_band` is the width of a release-year band in years; `retrieved_from` is how many
    of the nearest items the `retrieved` policy draws from."""

    policy: str = "matched"
    size: int = 10
    year_band: int = 5
    retrieved_from: int = 50


@dataclass(frozen=True)
class ItemVectors:
    """One row of `matrix` (N, D) per id. They must come from content, or from events before every cutoff that they
    serve."""

    item_ids: tuple[str, ...]
    matrix: np.ndarray = field(repr=False)


def draw_slates(
    examples: pl.DataFrame, log: Log, config: SlateConfig, n_slates: int, seed: int, vectors: ItemVectors | None = None
) -> pl.DataFrame:
    """M slates per example: example_id, slate_index (Int32, 0 .. M-1), slate (List[String]), target_index (Int32).

    Slate m of an example depends on the seed, m, its id and what happened before its cutoff; index 0 is the slate that
    `build_examples` draws with the same seed. Raises InputError when an example has too few candidates.
    """
    return draw_counted(examples, log, config, n_slates, seed, vectors)[0]


def draw_counted(
    examples: pl.DataFrame, log: Log, config: SlateConfig, n_slates: int, seed: int, vectors: ItemVectors | None = None
) -> tuple[pl.DataFrame, dict[str, int]]:
    """`draw_slates` with counts: `slates_widened_N` examples whose year band or decile had to be widened N times."""
    _check(config, vectors)
    items = log.items.sort("item_id")
    past = _Past(log, items)
    codes = items.select("item_id").with_row_index("code")
    queries = examples.select("example_id", "user_id", "cutoff_time", pl.col("target_item_id").alias("item_id")).join(
        codes, on="item_id", how="left", maintain_order="left"
    )
    unknown = queries.filter(pl.col("code").is_null())
    if len(unknown):
        raise InputError(
            f"target {unknown['item_id'][0]!r} of example {unknown['example_id'][0]}",
            "is not in the catalogue",
            "use the log the examples were built from",
        )
    ids, users = queries["example_id"].to_list(), queries["user_id"].to_list()
    cutoffs, targets = queries["cutoff_time"].dt.epoch("us").to_numpy(), queries["code"].to_numpy().astype(np.int64)
    days = queries["cutoff_time"].dt.epoch("d").to_numpy()
    nearest = _Retrieval(examples, items, vectors) if vectors is not None and config.policy == "retrieved" else None
    drawn = np.empty((len(ids), n_slates, config.size), np.int64)
    places = np.empty((len(ids), n_slates), np.int32)
    counts: dict[str, int] = {}
    by_day = np.argsort(days, kind="stable")
    starts = np.searchsorted(days[by_day], np.unique(days))
    groups = np.split(by_day, starts[1:]) if len(by_day) else []
    for (_, touched), group in zip(daily_counts(log.events, items, np.unique(days)), groups, strict=True):
        matcher = _Matcher(items, touched, config.year_band) if config.policy == "matched" else None
        weights = np.maximum(touched, _UNTOUCHED_WEIGHT) if config.policy == "popularity" else None
        for place in group:
            allowed = past.candidates(users[place], cutoffs[place])
            allowed[targets[place]] = False
            if matcher is not None:
                pool, widened = matcher.pool(int(targets[place]), allowed, config.size - 1)
                if widened:
                    counts[f"slates_widened_{widened}"] = counts.get(f"slates_widened_{widened}", 0) + 1
            elif nearest is not None:
                pool = nearest.pool(place, allowed, config.retrieved_from)
            else:
                pool = np.flatnonzero(allowed)
            if len(pool) < config.size - 1:
                raise InputError(
                    f"example {ids[place]}: {len(pool)} candidates of {len(items)} items "
                    f"({int(allowed.sum())} untouched and available)",
                    f"a slate of {config.size} needs {config.size - 1} negatives",
                    "set slate.size smaller, or use a larger catalogue",
                )
            for index in range(n_slates):
                generator = rng(seed, "slate", index, ids[place])
                chosen = _sample(generator, pool, None if weights is None else weights[pool], config.size - 1)
                slate = np.append(chosen, targets[place])[generator.permutation(config.size)]
                drawn[place, index], places[place, index] = slate, int(np.flatnonzero(slate == targets[place])[0])
    return _frame(queries["example_id"], items["item_id"], drawn, places), dict(sorted(counts.items()))


def count_future_favourites(
    slates: pl.DataFrame, examples: pl.DataFrame, log: Log, config: EngagedConfig
) -> dict[str, int]:
    """How many negatives of `slates` (example_id, slate; the examples table serves too) the user touches, and engages
    with, at or after the cutoff. For the report; never a filter."""
    known = examples.select("example_id", "user_id", "cutoff_time", "target_item_id")
    negatives = (
        slates.select("example_id", pl.col("slate").alias("item_id")).explode("item_id").join(known, on="example_id")
    )
    negatives = negatives.filter(pl.col("item_id") != pl.col("target_item_id")).with_row_index("negative")
    later = log.events.select("user_id", "item_id", "event_time", engaged(config).alias("engaged"))
    found = negatives.join(later, on=["user_id", "item_id"]).filter(pl.col("event_time") >= pl.col("cutoff_time"))
    found = found.group_by("negative").agg(pl.col("engaged").any())
    return {
        "negatives": len(negatives),
        "negatives_touched_later": len(found),
        "negatives_engaged_later": int(found["engaged"].sum()),
    }


class _Past:
    """Who had touched what, and what was available, before a moment."""

    def __init__(self, log: Log, items: pl.DataFrame) -> None:
        codes = items.select("item_id").with_row_index("code")
        events = log.events.select("user_id", "item_id", "event_time")
        self.items = events.join(codes, on="item_id", how="left", maintain_order="left")["code"].to_numpy()
        self.times = events["event_time"].dt.epoch("us").to_numpy()
        spans = (
            events.with_row_index("row").group_by("user_id", maintain_order=True).agg(pl.col("row").first(), pl.len())
        )
        self.spans = {user: (row, row + size) for user, row, size in spans.iter_rows()}
        since = items["available_from"].dt.epoch("us")
        self.since = None if since.null_count() == len(items) else since.fill_null(np.iinfo(np.int64).min).to_numpy()
        self.everything = np.ones(len(items), bool)

    def candidates(self, user: str, cutoff: int) -> np.ndarray:
        """Boolean (items,): available strictly before the cutoff and not touched before it."""
        allowed = self.everything.copy() if self.since is None else self.since < cutoff
        start, end = self.spans.get(user, (0, 0))
        allowed[self.items[start : start + int(np.searchsorted(self.times[start:end], cutoff, side="left"))]] = False
        return allowed


class _Matcher:
    """Items of the target's release-year band and popularity decile on one day."""

    def __init__(self, items: pl.DataFrame, counts: np.ndarray, year_band: int) -> None:
        self.years = items["year"].fill_null(-1).to_numpy().astype(np.int64)
        self.deciles, self.year_band = deciles(counts), year_band
        self.cells: dict[int, tuple[np.ndarray, dict[int, np.ndarray]]] = {}

    def pool(self, target: int, allowed: np.ndarray, needed: int) -> tuple[np.ndarray, int]:
        """Allowed items of the target's cell at the first step that holds enough of them, and the number of that
        step."""
        pool = np.empty(0, np.int64)
        for step in range(len(_STEPS)):
            members = self._members(step, target)
            pool = members[allowed[members]]
            if len(pool) >= needed:
                return pool, step
        return pool, len(_STEPS) - 1

    def _members(self, step: int, target: int) -> np.ndarray:
        if step not in self.cells:
            bands, joined = _STEPS[step]
            # Unknown years and untouched items keep cells of their own until all are joined.
            band = (
                np.where(self.years < 0, -1, self.years // (self.year_band * bands))
                if bands
                else np.zeros_like(self.years)
            )
            decile = (
                np.where(self.deciles > 0, (self.deciles - 1) // joined, -1) if joined else np.zeros_like(self.deciles)
            )
            self.cells[step] = ((band + 1) * 16 + decile + 1, {})
        cell, found = self.cells[step]
        wanted = int(cell[target])
        if wanted not in found:
            found[wanted] = np.flatnonzero(cell == wanted)
        return found[wanted]


class _Retrieval:
    """Items nearest to the mean of the history's vectors (cosine)."""

    def __init__(self, examples: pl.DataFrame, items: pl.DataFrame, vectors: ItemVectors) -> None:
        places = {item: place for place, item in enumerate(vectors.item_ids)}
        missing = [item for item in items["item_id"] if item not in places]
        if missing:
            raise InputError(
                f"item {missing[0]!r} and {len(missing) - 1} more",
                "have no vector",
                "embed the whole catalogue before drawing `retrieved` slates",
            )
        matrix = np.asarray(vectors.matrix, np.float64)[[places[item] for item in items["item_id"]]]
        self.matrix = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)  # (N, D)
        codes = {item: code for code, item in enumerate(items["item_id"])}
        self.histories = [
            [codes[item] for item in ids]
            for ids in examples["history"].list.eval(pl.element().struct.field("item_id")).to_list()
        ]

    def pool(self, place: int, allowed: np.ndarray, size: int) -> np.ndarray:
        scores = self.matrix @ self.matrix[self.histories[place]].mean(axis=0)
        candidates = np.flatnonzero(allowed)
        nearest = np.argsort(-scores[candidates], kind="stable")[:size]
        return np.sort(candidates[nearest])


def _sample(generator: np.random.Generator, pool: np.ndarray, weights: np.ndarray | None, size: int) -> np.ndarray:
    """`size` of `pool` without replacement, in proportion to the weights (exponential races)."""
    keys = generator.random(len(pool))
    if weights is not None:
        keys = -np.log1p(-keys) / weights
    first = np.argpartition(keys, size - 1)[:size]
    return pool[first[np.argsort(keys[first])]]


def _frame(example_ids: pl.Series, item_ids: pl.Series, drawn: np.ndarray, places: np.ndarray) -> pl.DataFrame:
    count, n_slates, size = drawn.shape
    rows = np.repeat(np.arange(count), n_slates)
    slates = item_ids.gather(drawn.reshape(-1)).reshape((count * n_slates, size)).cast(pl.List(pl.String))
    return pl.DataFrame(
        {
            "example_id": example_ids.gather(rows),
            "slate_index": pl.Series(np.tile(np.arange(n_slates, dtype=np.int32), count)),
            "slate": slates,
            "target_index": pl.Series(places.reshape(-1)),
        }
    )


def _check(config: SlateConfig, vectors: ItemVectors | None) -> None:
    if config.policy not in POLICIES:
        raise InputError(f"slate.policy {config.policy!r}", "is not known", f"use one of {list(POLICIES)}")
    if config.size < 2:
        raise InputError(
            f"slate.size {config.size}", "a slate needs the target and at least one negative", "set slate.size >= 2"
        )
    if config.year_band < 1:
        raise InputError(
            f"slate.year_band {config.year_band}", "a band spans at least one year", "set slate.year_band >= 1"
        )
    if config.policy == "retrieved" and vectors is None:
        raise InputError("slate.policy 'retrieved'", "needs item vectors", "pass ItemVectors, or choose another policy")
