"""Slates: the target among S-1 negatives drawn by a named policy, in an order that tells nothing.

Policies: `uniform`; `popularity` (in proportion to earlier events); `matched` (from the target's own release-year band
and popularity decile); `retrieved` (from the items nearest to the mean vector of the history). Bands and deciles are
fixed intervals, never windows around the target: within its interval the target is one of many, so neither year nor
popularity points to it. Where an interval holds too few items it is doubled, in fixed steps, and counted. `logged`
takes what the log says was shown beside the target (see `logged`).

Negatives exclude the target, what this user touched before the cutoff, and items not available before it: nothing else,
and nothing later. An item the user comes to like afterwards may be among them; `count_future_favourites` says how
often.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.logs.coded import DAY_US
from recsys.logs.engaged import EngagedConfig, engaged
from recsys.logs.logged import draw_logged
from recsys.logs.pools import ItemVectors, Matcher, Past, Retrieval
from recsys.logs.popularity import Popularity, popularity
from recsys.logs.tables import Log
from recsys.seeding import Generators

POLICIES = ("matched", "popularity", "uniform", "retrieved", "logged")
_UNTOUCHED_WEIGHT = 1e-9  # popularity: items without events come only after all others are taken


@dataclass(frozen=True)
class SlateConfig:
    """`size` counts the target. `year_band` is the width of a release-year band in years; `retrieved_from` is how many
    of the nearest items the `retrieved` policy draws from."""

    policy: str = "matched"
    size: int = 10
    year_band: int = 5
    retrieved_from: int = 50


def draw_slates(
    examples: pl.DataFrame, log: Log, config: SlateConfig, n_slates: int, seed: int, vectors: ItemVectors | None = None
) -> pl.DataFrame:
    """M slates per example: example_id, slate_index (Int32, 0 .. M-1), slate (List[String]), target_index (Int32).

    Slate m of an example depends on the seed, m, its id and what happened before its cutoff; index 0 is the slate that
    `build_examples` draws with the same seed. Raises InputError when an example has too few candidates.
    """
    return draw_counted(examples, log, config, n_slates, seed, vectors)[0]


def draw_counted(
    examples: pl.DataFrame,
    log: Log,
    config: SlateConfig,
    n_slates: int,
    seed: int,
    vectors: ItemVectors | None = None,
    touched: Popularity | None = None,
) -> tuple[pl.DataFrame, dict[str, int]]:
    """`draw_slates` with counts: `slates_widened_N` examples whose year band or decile had to be widened N times.

    `log` holds all events of the examples' users; `touched` is the popularity of the whole log where that is more.
    """
    _check(config, vectors)
    if config.policy == "logged":
        return draw_logged(examples, log, config.size, n_slates, seed)
    if not log.items["item_id"].is_sorted():
        places = log.items["item_id"].rank("ordinal").to_numpy() - 1
        touched = touched and dataclasses.replace(touched, items=places[touched.items])
        log = dataclasses.replace(log, items=log.items.sort("item_id"))
    items = log.items
    touched = touched or popularity(log.codes, len(items))
    past = Past(log, items)
    targets = _target_codes(examples, items)
    ids, cutoffs = examples["example_id"].to_list(), examples["cutoff_time"].dt.epoch("us").to_numpy()
    days = cutoffs // DAY_US
    starts, ends = past.spans_before(examples["user_id"], cutoffs)
    nearest = Retrieval(examples, items, vectors) if vectors is not None and config.policy == "retrieved" else None
    matcher = Matcher(items, None, config.year_band) if config.policy == "matched" else None
    generators = [Generators(seed, "slate", index, values=ids) for index in range(n_slates)]
    drawn = np.empty((len(ids), n_slates, config.size), np.int64)  # the target last
    drawn[:, :, -1] = targets[:, None]
    orders = np.empty((len(ids), n_slates, config.size), np.int64)
    counts: dict[str, int] = {}
    by_day = np.argsort(days, kind="stable")
    wanted, firsts = np.unique(days[by_day], return_index=True)
    groups = np.split(by_day, firsts[1:]) if len(by_day) else []
    for (_, earlier), group in zip(touched.before(wanted), groups, strict=True):
        if matcher is not None:
            matcher.on_day(earlier)
        weights = np.maximum(earlier, _UNTOUCHED_WEIGHT) if config.policy == "popularity" else None
        for place in group.tolist():
            target = int(targets[place])
            allowed = past.allowed(starts[place], ends[place], cutoffs[place])
            allowed[target] = False
            if matcher is not None:
                pool, widened = matcher.pool(target, allowed, config.size - 1)
                if widened:
                    counts[f"slates_widened_{widened}"] = counts.get(f"slates_widened_{widened}", 0) + 1
            elif nearest is not None:
                pool = nearest.pool(place, allowed, config.retrieved_from)
            else:
                pool = allowed.nonzero()[0]
            if len(pool) < config.size - 1:
                raise InputError(
                    f"example {ids[place]}: {len(pool)} candidates of {len(items)} items "
                    f"({int(allowed.sum())} untouched and available)",
                    f"a slate of {config.size} needs {config.size - 1} negatives",
                    "set slate.size smaller, or use a larger catalogue",
                )
            chances = None if weights is None else weights[pool]
            for index in range(n_slates):
                generator = generators[index][place]
                drawn[place, index, :-1] = _sample(generator, pool, chances, config.size - 1)
                orders[place, index] = generator.permutation(config.size)
    slates = np.take_along_axis(drawn, orders, axis=2)
    places = (orders == config.size - 1).argmax(axis=2).astype(np.int32)
    return _frame(examples["example_id"], items["item_id"], slates, places), dict(sorted(counts.items()))


def _target_codes(examples: pl.DataFrame, items: pl.DataFrame) -> np.ndarray:
    """The row of each example's target in `items`, (B,) int64."""
    codes = items.select(pl.col("item_id").alias("target_item_id")).with_row_index("code")
    targets = examples.select("example_id", "target_item_id").join(
        codes, on="target_item_id", how="left", maintain_order="left"
    )
    unknown = targets.filter(pl.col("code").is_null())
    if len(unknown):
        raise InputError(
            f"target {unknown['target_item_id'][0]!r} of example {unknown['example_id'][0]}",
            "is not in the catalogue",
            "use the log the examples were built from",
        )
    return targets["code"].to_numpy().astype(np.int64)


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


def _sample(generator: np.random.Generator, pool: np.ndarray, weights: np.ndarray | None, size: int) -> np.ndarray:
    """`size` of `pool` without replacement, in proportion to the weights (exponential races)."""
    keys = generator.random(len(pool))
    if weights is not None:
        keys = -np.log1p(-keys) / weights
    first = keys.argpartition(size - 1)[:size]
    return pool[first[keys[first].argsort()]]


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
