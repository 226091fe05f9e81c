"""Examples: which targets are predicted, from which history, among which slate.

Targets are chosen before anything is gathered for them, so the cost of a long log is one pass of integer comparisons;
no step loops over events in Python. Everything but the target itself is a function of what lies strictly before the
cutoff: changing any other event at or after it leaves the example as it was. (The set of examples may change: a user's
targets beyond `targets_per_user` are left out by the order of their hashes.)
"""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from recsys import contracts
from recsys.errors import InputError
from recsys.logs.discovery import with_discovery
from recsys.logs.engaged import EngagedConfig, engaged
from recsys.logs.history import histories, with_past
from recsys.logs.slates import ItemVectors, SlateConfig, draw_counted
from recsys.logs.splits import SPLITS, SplitConfig, split_times, target_split, user_splits
from recsys.logs.tables import Log
from recsys.seeding import stable_hash


@dataclass(frozen=True)
class ExamplesConfig:
    """What an example is.

    `engaged` None takes the source's own rule. `history_max` is H, `history_min` the fewest earlier events a target
    needs. At most `targets_per_user` targets of a user are kept, the first by a seeded hash; 0 keeps all.
    """

    engaged: EngagedConfig | None = None
    history_min: int = 5
    history_max: int = 100
    split: SplitConfig = field(default_factory=SplitConfig)
    targets_per_user: int = 10
    discovery_only: bool = True
    slate: SlateConfig = field(default_factory=SlateConfig)
    seed: int = 0


def build_examples(
    log: Log, config: ExamplesConfig, vectors: ItemVectors | None = None
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The `examples` table, ordered by user and cutoff, and the count of every treatment.

    Raises InputError when nothing is left, naming the filter that took it, or when a slate has too few candidates.
    """
    targets, counts = choose_targets(log, config)
    lengths = targets["past"].clip(0, config.history_max)
    examples = targets.select(
        "example_id",
        "user_id",
        pl.col("event_time").alias("cutoff_time"),
        histories(targets["past_end"] - lengths, lengths, log.events, log.items).alias("history"),
        pl.col("item_id").alias("target_item_id"),
        "is_discovery",
        "split",
    )
    slates, widened = draw_counted(examples, log, config.slate, 1, config.seed, vectors)
    examples = examples.with_columns(slates["slate"]).select(contracts.schema("examples").names())
    return contracts.check(examples, "examples"), counts | widened


def choose_targets(log: Log, config: ExamplesConfig) -> tuple[pl.DataFrame, dict[str, int]]:
    """The targets (user_id, item_id, event_time, past_end, past, is_discovery, split, example_id), ordered as in the
    log, and counts."""
    _check(config)
    rule = config.engaged or log.engaged
    if rule is None:
        raise InputError(
            "engaged: (nothing)",
            "neither the recipe nor the source says what an engaged target is",
            "set examples.engaged, e.g. {rating_at_least: 4}",
        )
    events = log.events
    _check_order(events)
    counts: dict[str, int] = {}
    # The same item at the same moment (a click and a play, say) is one target.
    again = pl.all_horizontal(
        (pl.col(name) == pl.col(name).shift()).fill_null(False) for name in ("user_id", "event_time", "item_id")
    )
    targets = (
        with_past(events)
        .filter(engaged(rule))
        .filter(~again)
        .select("user_id", "item_id", "event_time", "past_end", "past")
    )
    counts["targets_engaged"] = len(targets)
    users = targets["user_id"].unique(maintain_order=True)
    splits = pl.DataFrame({"user_id": users, "user_split": user_splits(users, config.split)})
    times = split_times(events["event_time"], config.split)
    targets = targets.join(splits, on="user_id", how="left", maintain_order="left")
    targets = targets.with_columns(target_split(pl.col("user_split"), pl.col("event_time"), times).alias("split"))
    targets = _keep(targets, pl.col("split").is_not_null(), "targets_outside_their_split_dropped", counts)
    in_window = targets["user_id"].n_unique()
    targets = _keep(targets, pl.col("past") >= config.history_min, "targets_with_too_little_history_dropped", counts)
    counts["users_with_too_little_history"] = in_window - targets["user_id"].n_unique()
    targets = with_discovery(targets, events, log.items)
    counts["targets_not_discovery"] = len(targets) - int(targets["is_discovery"].sum())
    if config.discovery_only:
        targets = targets.filter("is_discovery")
    targets = _capped(targets, config, counts)
    if targets.is_empty():
        raise InputError(
            f"{len(events)} events, {counts['targets_engaged']} engaged ({rule})",
            f"no target is left: {counts}",
            "relax the filter that took them: engaged, history_min, discovery_only, or the split's shares and times",
        )
    for name in SPLITS:
        part = targets.filter(pl.col("split") == name)
        counts |= {f"examples_{name}": len(part), f"users_{name}": part["user_id"].n_unique()}
    return targets.drop("user_split"), counts


def _capped(targets: pl.DataFrame, config: ExamplesConfig, counts: dict[str, int]) -> pl.DataFrame:
    """Add example_id; keep the first `targets_per_user` of each user in hash order."""
    hashes = _hashes(targets)
    before = len(targets)
    if config.targets_per_user:
        order = pl.Series("order", _mix(hashes ^ np.uint64(stable_hash("targets", config.seed))))
        places = targets.select(pl.col("user_id").rle_id().alias("user"), order, pl.int_range(pl.len()).alias("place"))
        ranked = places.sort("user", "order", "place")
        within = ranked.select(
            "place", (pl.int_range(pl.len()) - pl.col("user").search_sorted(pl.col("user"), side="left")).alias("n")
        )
        kept = within.filter(pl.col("n") < config.targets_per_user)["place"].sort()
        targets, hashes = targets[kept], hashes[kept.to_numpy()]
    counts["targets_over_the_limit_dropped"] = before - len(targets)
    names = hashes.astype(">u8").tobytes().hex()
    ids = [names[place : place + 16] for place in range(0, len(names), 16)]
    return targets.with_columns(pl.Series("example_id", ids, pl.String))


def _hashes(targets: pl.DataFrame) -> np.ndarray:
    """A 64-bit hash of user, item and time per row, (B,): text is hashed once per distinct id, the rest is integer
    mixing."""
    parts = []
    for name in ("user_id", "item_id"):
        ids = targets[name].unique()
        known = pl.DataFrame(
            {name: ids, "hash": pl.Series([stable_hash(name, value) for value in ids], dtype=pl.UInt64)}
        )
        parts.append(targets.select(name).join(known, on=name, how="left", maintain_order="left")["hash"].to_numpy())
    time = targets["event_time"].dt.epoch("us").to_numpy().astype(np.uint64)
    return _mix(_mix(_mix(parts[0]) ^ parts[1]) ^ time)


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): a bijection of 64-bit integers that spreads every bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _keep(targets: pl.DataFrame, condition: pl.Expr, name: str, counts: dict[str, int]) -> pl.DataFrame:
    kept = targets.filter(condition)
    counts[name] = len(targets) - len(kept)
    return kept


def _check(config: ExamplesConfig) -> None:
    if not 1 <= config.history_min <= config.history_max:
        raise InputError(
            f"history_min {config.history_min}, history_max {config.history_max}",
            "1 <= history_min <= history_max must hold",
            "correct them",
        )
    if config.targets_per_user < 0:
        raise InputError(
            f"targets_per_user {config.targets_per_user}", "may not be negative", "set it to at least 1, or 0 for all"
        )


def _check_order(events: pl.DataFrame) -> None:
    same = pl.col("user_id") == pl.col("user_id").shift()
    ordered = events.select(
        (pl.col("user_id") > pl.col("user_id").shift())
        | (same & (pl.col("event_time") >= pl.col("event_time").shift()))
    )
    if not ordered.to_series().fill_null(True).all():
        raise InputError(
            "log.events", "must be ordered by user, time, item", "pass the log through recsys.logs.events.canonicalise"
        )
