"""Examples: which targets are predicted, from which history, among which slate.

Targets are chosen before anything is gathered for them, so the cost of a long log is one pass of integer comparisons;
no step loops over events in Python. Everything but the target itself is a function of what lies strictly before the
cutoff: changing any other event at or after it leaves the example as it was. (The set of examples may change: a user's
targets beyond `targets_per_user` are left out by the order of their hashes.)
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from recsys import contracts
from recsys.errors import InputError
from recsys.later import later
from recsys.logs.coded import pasts
from recsys.logs.codes import run_starts
from recsys.logs.discovery import discoveries, series_of
from recsys.logs.engaged import EngagedConfig, engaged
from recsys.logs.history import histories
from recsys.logs.popularity import Popularity, popularity
from recsys.logs.slates import ItemVectors, SlateConfig, draw_counted
from recsys.logs.splits import SPLIT_NAMES, SPLITS, SplitConfig, in_window, split_codes, split_times
from recsys.logs.tables import Log
from recsys.seeding import stable_hash, stable_hashes


@dataclass(frozen=True)
class ExamplesConfig:
    """What an example is.

    `engaged` None takes the source's own rule. `history_max` is H, `history_min` the fewest earlier events a target
    needs, `past_max` the most it may have (None: any number; a few, and only the first targets of users are left: cold
    starts). At most `targets_per_user` targets of a user are kept, the first by a seeded hash; 0 keeps all.
    """

    engaged: EngagedConfig | None = None
    history_min: int = 5
    history_max: int = 100
    split: SplitConfig = field(default_factory=SplitConfig)
    targets_per_user: int = 10
    discovery_only: bool = True
    slate: SlateConfig = field(default_factory=SlateConfig)
    seed: int = 0
    past_max: int | None = later(None)


@dataclass(frozen=True)
class Statistics:
    """What examples need to know of the whole log beside their own user's events: T1 and T2, and the events of every
    item by day."""

    times: tuple[dt.datetime, dt.datetime]
    popularity: Popularity


def build_examples(
    log: Log, config: ExamplesConfig, vectors: ItemVectors | None = None
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The `examples` table, ordered by user and cutoff, and the count of every treatment.

    Raises InputError when nothing is left, naming the filter that took it, or when a slate has too few candidates.
    """
    examples, counts = bucket_examples(log, statistics_of(log, config), config, vectors)
    refuse_no_examples(counts, config, log.engaged, len(log.events))
    return examples, counts


def statistics_of(log: Log, config: ExamplesConfig) -> Statistics:
    """The statistics of a whole log. Raises InputError when it is not in order or the split times are not."""
    touched = popularity(log.codes, len(log.items))
    return Statistics(split_times(log.events["event_time"], config.split), touched)


def bucket_examples(
    log: Log, statistics: Statistics, config: ExamplesConfig, vectors: ItemVectors | None = None
) -> tuple[pl.DataFrame, dict[str, int]]:
    """`build_examples` of some users: `log` holds all events of each of its users and the catalogue of the whole log,
    `statistics` is of the whole log. Examples do not depend on which users are together, and counts add up. There may
    be none."""
    targets, counts = _targets(log, config, statistics.times)
    lengths = targets["past"].clip(0, config.history_max)
    starts = targets["past_end"] - lengths
    examples = targets.select(
        "example_id",
        "user_id",
        pl.col("event_time").alias("cutoff_time"),
        histories(starts, lengths, log.events, log.items, log.codes.items).alias("history"),
        pl.col("item_id").alias("target_item_id"),
        "is_discovery",
        "split",
    )
    slates, widened = draw_counted(examples, log, config.slate, 1, config.seed, vectors, statistics.popularity)
    examples = examples.with_columns(slates["slate"]).select(contracts.schema("examples").names())
    return contracts.check(examples, "examples"), counts | widened


def choose_targets(log: Log, config: ExamplesConfig) -> tuple[pl.DataFrame, dict[str, int]]:
    """The targets (user_id, item_id, event_time, past_end, past, is_discovery, split, example_id), ordered as in the
    log, and counts. Raises InputError when none is left."""
    targets, counts = _targets(log, config, split_times(log.events["event_time"], config.split))
    refuse_no_examples(counts, config, log.engaged, len(log.events))
    return targets, counts


def refuse_no_examples(
    counts: Mapping[str, int], config: ExamplesConfig, source_rule: EngagedConfig | None, events: int
) -> None:
    """Raises InputError when no target is left, with what took them."""
    if not any(counts[f"examples_{name}"] for name in SPLITS):
        raise InputError(
            f"{events} events, {counts['targets_engaged']} engaged ({config.engaged or source_rule})",
            f"no target is left: {dict(counts)}",
            "relax the filter that took them: engaged, history_min, past_max, discovery_only, or the split's shares or "
            "times",
        )


def _targets(
    log: Log, config: ExamplesConfig, times: tuple[dt.datetime, dt.datetime]
) -> tuple[pl.DataFrame, dict[str, int]]:
    """`choose_targets` under given split times; there may be none."""
    _check(config)
    rule = config.engaged or log.engaged
    if rule is None:
        raise InputError(
            "engaged: (nothing)",
            "neither the recipe nor the source says what an engaged target is",
            "set examples.engaged, e.g. {rating_at_least: 4}",
        )
    codes = log.codes
    counts: dict[str, int] = {}
    rows = log.events.select(engaged(rule)).to_series().arg_true().to_numpy().astype(np.int64)
    users = codes.users_of(rows)
    # The same item at the same moment (a click and a play, say) is one target.
    once = run_starts(users, codes.times[rows], codes.items[rows])
    rows, users = rows[once], users[once]
    counts["targets_engaged"] = len(rows)
    splits = split_codes(codes.users, config.split)
    kept = in_window(splits[users], codes.times[rows], times)
    counts["targets_outside_their_split_dropped"] = len(rows) - int(kept.sum())
    rows, users = rows[kept], users[kept]
    ends, lengths = pasts(codes, rows)
    kept = lengths >= config.history_min
    counts["targets_with_too_little_history_dropped"] = len(rows) - int(kept.sum())
    counts["users_with_too_little_history"] = _distinct(users) - _distinct(users[kept])
    rows, users, ends, lengths = rows[kept], users[kept], ends[kept], lengths[kept]
    if config.past_max is not None:
        kept = lengths <= config.past_max
        counts["targets_with_too_much_history_dropped"] = len(rows) - int(kept.sum())
        rows, users, ends, lengths = rows[kept], users[kept], ends[kept], lengths[kept]
    new = discoveries(codes, series_of(log.items), rows)
    counts["targets_not_discovery"] = len(rows) - int(new.sum())
    kept = np.flatnonzero(new) if config.discovery_only else np.arange(len(rows))
    hashes = _hashes(log, rows[kept], users[kept])
    if config.targets_per_user:
        first = _first_per_user(users[kept], hashes, config)
        counts["targets_over_the_limit_dropped"] = len(kept) - len(first)
        kept, hashes = kept[first], hashes[first]
    else:
        counts["targets_over_the_limit_dropped"] = 0
    rows, users = rows[kept], users[kept]
    for code, name in enumerate(SPLITS):
        part = users[splits[users] == code]
        counts |= {f"examples_{name}": len(part), f"users_{name}": _distinct(part)}
    targets = pl.DataFrame(
        {
            "user_id": codes.users.gather(users),
            "item_id": log.items["item_id"].gather(codes.items[rows]),
            "event_time": log.events["event_time"].gather(rows),
            "past_end": ends[kept],
            "past": lengths[kept],
            "is_discovery": new[kept],
            "split": SPLIT_NAMES.gather(splits[users]),
            "example_id": _names(hashes),
        }
    )
    return targets, counts


def _first_per_user(users: np.ndarray, hashes: np.ndarray, config: ExamplesConfig) -> np.ndarray:
    """The places, ascending, of the first `targets_per_user` of each user in hash order; `users` (B,) ascend."""
    order = np.lexsort((_mix(hashes ^ np.uint64(stable_hash("targets", config.seed))), users))
    opens = np.flatnonzero(run_starts(users))
    within = np.arange(len(users)) - np.repeat(opens, np.diff(np.append(opens, len(users))))
    return np.sort(order[within < config.targets_per_user])


def _hashes(log: Log, rows: np.ndarray, users: np.ndarray) -> np.ndarray:
    """A 64-bit hash of user, item and time per row, (B,): text is hashed once per distinct id, the rest is integer
    mixing."""
    parts = []
    for name, ids, code in (
        ("user_id", log.codes.users, users),
        ("item_id", log.items["item_id"], log.codes.items[rows]),
    ):
        used, places = np.unique(code, return_inverse=True)
        parts.append(stable_hashes(name, values=ids.gather(used))[places])
    return _mix(_mix(_mix(parts[0]) ^ parts[1]) ^ log.codes.times[rows].astype(np.uint64))


def _names(hashes: np.ndarray) -> pl.Series:
    """Sixteen hexadecimal digits each."""
    text = hashes.astype(">u8").tobytes().hex()
    return pl.Series([text[place : place + 16] for place in range(0, len(text), 16)], dtype=pl.String)


def _distinct(users: np.ndarray) -> int:
    """How many users are in an ascending array."""
    return int(run_starts(users).sum())


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): a bijection of 64-bit integers that spreads every bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _check(config: ExamplesConfig) -> None:
    if not 1 <= config.history_min <= config.history_max:
        raise InputError(
            f"history_min {config.history_min}, history_max {config.history_max}",
            "1 <= history_min <= history_max must hold",
            "correct them",
        )
    if config.past_max is not None and config.past_max < config.history_min:
        raise InputError(
            f"past_max {config.past_max}, history_min {config.history_min}",
            "no target can have so few and so many earlier events",
            "set past_max to history_min or more, or leave it out",
        )
    if config.targets_per_user < 0:
        raise InputError(
            f"targets_per_user {config.targets_per_user}", "may not be negative", "set it to at least 1, or 0 for all"
        )
