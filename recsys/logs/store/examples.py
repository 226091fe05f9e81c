"""Examples under a frozen reference: of any set of users, and of those only what a change can have reached.

A change at time t of a user (an event that came, an item of theirs that is described differently) reaches that user's
examples with a cutoff at or after t, and which of the user's targets are kept. Examples before t stand as they are.
"""

import polars as pl

from recsys import contracts
from recsys.errors import InputError
from recsys.logs.events import canonical_events
from recsys.logs.examples import choose_targets
from recsys.logs.history import histories
from recsys.logs.store.reference import Reference
from recsys.logs.store.slates import frozen_slates
from recsys.logs.tables import Log, RawLog

ORDER = ("user_id", "cutoff_time", "target_item_id")


def canonical(delivered: pl.DataFrame, items: pl.DataFrame) -> Log:
    """The canonical log of delivered events under a live catalogue; no events where none is valid yet."""
    if delivered.is_empty() or items.is_empty():
        return Log(contracts.empty("events"), items)
    untitled = pl.Series([], dtype=pl.String)  # the live catalogue holds titled items only
    return canonical_events(delivered, items, untitled, {}, RawLog(delivered.lazy(), items))


def targets_of(log: Log, reference: Reference) -> pl.DataFrame | None:
    """What `choose_targets` chooses, None where these users have no target."""
    if log.events.is_empty():
        return None
    try:
        return choose_targets(log, reference.examples)[0]
    except InputError as error:
        # A whole log without a target is an error; that some users have none is not.
        if error.rule.startswith("no target is left"):
            return None
        raise


def examples_of(log: Log, reference: Reference, targets: pl.DataFrame | None) -> pl.DataFrame:
    """The examples of `targets` (rows of `targets_of` of the same log), in their order."""
    if targets is None or targets.is_empty():
        return contracts.empty("examples")
    lengths = targets["past"].clip(0, reference.examples.history_max)
    examples = targets.select(
        "example_id",
        "user_id",
        pl.col("event_time").alias("cutoff_time"),
        histories(targets["past_end"] - lengths, lengths, log.events, log.items, log.codes.items).alias("history"),
        pl.col("item_id").alias("target_item_id"),
        "is_discovery",
        "split",
    )
    examples = examples.with_columns(frozen_slates(examples, log, reference))
    return contracts.check(examples.select(contracts.schema("examples").names()), "examples")


def reached(targets: pl.DataFrame | None, known: pl.DataFrame, since: pl.DataFrame) -> tuple[pl.Series, pl.DataFrame]:
    """(example ids that are no longer as stored, targets to make examples of).

    `known`: example_id of the touched users' stored examples. `since`: user_id and the earliest change of each.
    """
    if targets is None:
        return known["example_id"], pl.DataFrame()
    at = targets.join(since, on="user_id", how="left", maintain_order="left")["since"]
    stale = (targets["event_time"] >= at) | ~targets["example_id"].is_in(known["example_id"].implode())
    again = targets.filter(stale)
    gone = known.filter(~pl.col("example_id").is_in(targets["example_id"].implode()))["example_id"]
    replaced = again.filter(pl.col("example_id").is_in(known["example_id"].implode()))["example_id"]
    return pl.concat([gone, replaced]), again
