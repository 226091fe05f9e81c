"""Logged slates: the negatives of an example are what was shown beside its target and not clicked.

They are the honest negatives: the user saw them and chose otherwise. They are also the ones that the system in use
preferred, on the places it gave them; `position` and `propensity` stay in the impressions for whoever corrects for
that.

A slate has S places and an impression as many as the page had. The rule, counted at every turn:

| impression | slate |
|---|---|
| more than S-1 usable items | S-1 of them, uniformly by a seed derived from the example; redraws differ |
| fewer | all of them, filled up uniformly from items that were available, not shown and not touched by the user |
| other clicked items | left out: they are no negatives |
| items the user touched before the cutoff | left out, as under every policy |
| the target in several impressions at that time | the one shown last |

The impression is the decision itself, so its composition may be known at the cutoff; nothing later is read. Filled
negatives are easier than shown ones: where many slates are filled, choose a smaller S.
"""

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.logs.tables import Log
from recsys.seeding import rng


def draw_logged(
    examples: pl.DataFrame, log: Log, size: int, n_slates: int, seed: int
) -> tuple[pl.DataFrame, dict[str, int]]:
    """M slates per example in the columns of `slates.draw_slates`, and the count of every treatment.

    Raises InputError when the log has no impressions, when a target was in none, or when a slate cannot be filled.
    """
    matched, counts = _matched(examples, log)
    items = log.items["item_id"].sort()
    usable, found = _usable(matched, log)
    counts |= found
    codes = pl.DataFrame({"item_id": items}).with_row_index("code")
    usable = usable.join(codes, on="item_id", how="left", maintain_order="left").sort("row", "code")
    pools: list[np.ndarray] = [np.empty(0, np.int64)] * len(examples)
    for row, pool in usable.group_by("row", maintain_order=True).agg("code").iter_rows():
        pools[row] = np.asarray(pool, np.int64)
    targets = matched.join(codes, left_on="target_item_id", right_on="item_id", how="left", maintain_order="left")
    fill = _Filling(matched, log, items, [row for row, pool in enumerate(pools) if len(pool) < size - 1])
    drawn = np.empty((len(examples), n_slates, size), np.int64)
    places = np.empty((len(examples), n_slates), np.int32)
    for row, (example_id, target) in enumerate(targets.select("example_id", "code").iter_rows()):
        pool, short = pools[row], size - 1 - len(pools[row])
        others = fill.allowed(row, target) if short > 0 else pool[:0]
        if len(others) < short:
            raise InputError(
                f"example {example_id}: {len(pool)} items shown beside the target, {len(others)} others to fill with",
                f"a slate of {size} needs {size - 1} negatives",
                "set slate.size smaller, or use a larger catalogue",
            )
        for index in range(n_slates):
            generator = rng(seed, "slate", index, example_id)
            shown = generator.permutation(pool)[: size - 1]
            filled = generator.choice(others, max(short, 0), replace=False)
            slate = np.concatenate([shown, filled, [target]])[generator.permutation(size)]
            drawn[row, index], places[row, index] = slate, int(np.flatnonzero(slate == target)[0])
    missing = np.array([size - 1 - len(pool) for pool in pools], np.int64)
    counts |= {
        "slates_logged_cut": int((missing < 0).sum()),
        "slates_logged_filled": int((missing > 0).sum()),
        "slates_logged_negatives_filled": int(missing.clip(0).sum()),
    }
    rows = np.repeat(np.arange(len(examples)), n_slates)
    slates = items.gather(drawn.reshape(-1)).reshape((len(rows), size)).cast(pl.List(pl.String))
    return pl.DataFrame(
        {
            "example_id": matched["example_id"].gather(rows),
            "slate_index": pl.Series(np.tile(np.arange(n_slates, dtype=np.int32), len(examples))),
            "slate": slates,
            "target_index": pl.Series(places.reshape(-1)),
        }
    ), counts


def _matched(examples: pl.DataFrame, log: Log) -> tuple[pl.DataFrame, dict[str, int]]:
    """Examples, in order, numbered (`row`) and with the impression their target was clicked in."""
    if log.impressions is None:
        raise InputError(
            "slate.policy 'logged'",
            "needs a log that says what was shown",
            "map `impressions`, or choose another slate.policy",
        )
    clicks = log.impressions.filter("clicked").select(
        "impression_id", "shown_at", "user_id", target_item_id="item_id", cutoff_time="click_time"
    )
    numbered = examples.select("example_id", "user_id", "cutoff_time", "target_item_id").with_row_index("row")
    pairs = numbered.join(clicks, on=["user_id", "target_item_id", "cutoff_time"], how="left")
    pairs = pairs.sort("row", "shown_at", "impression_id", descending=[False, True, False])
    matched = pairs.unique("row", keep="first", maintain_order=True)
    unshown = matched.filter(pl.col("impression_id").is_null())
    if len(unshown):
        row = unshown.select("example_id", "user_id", "target_item_id", "cutoff_time").row(0, named=True)
        raise InputError(
            f"slate.policy 'logged', {len(unshown)} of {len(matched)} examples, e.g. {row}",
            "the target is no clicked row of any impression",
            "let only clicks be targets (examples.engaged: {event_types: [click]}), or choose another slate.policy",
        )
    return matched.drop("shown_at"), {"slates_logged_in_several_impressions": len(pairs) - len(matched)}


def _usable(matched: pl.DataFrame, log: Log) -> tuple[pl.DataFrame, dict[str, int]]:
    """(row, item_id) of what was shown beside each target and may be a negative."""
    assert log.impressions is not None
    shown = log.impressions.select("impression_id", "item_id", "clicked")
    beside = matched.join(shown, on="impression_id").filter(pl.col("item_id") != pl.col("target_item_id"))
    first = log.events.join(beside.select("user_id", "item_id").unique(), on=["user_id", "item_id"], how="semi")
    first = first.group_by("user_id", "item_id").agg(pl.col("event_time").min().alias("first_touch"))
    beside = beside.join(first, on=["user_id", "item_id"], how="left")
    touched = (pl.col("first_touch") < pl.col("cutoff_time")).fill_null(False)
    clicked = beside.filter("clicked")
    counts = {
        "slates_logged_other_clicks_left_out": len(clicked),
        "slates_logged_touched_left_out": beside.filter(~pl.col("clicked") & touched).height,
    }
    return beside.filter(~pl.col("clicked") & ~touched).select("row", "item_id"), counts


class _Filling:
    """For examples whose impression is too small: what else they could have been shown."""

    def __init__(self, matched: pl.DataFrame, log: Log, items: pl.Series, rows: list[int]) -> None:
        assert log.impressions is not None
        codes = pl.DataFrame({"item_id": items}).with_row_index("code")
        short = matched.filter(pl.col("row").is_in(rows))
        before = short.join(log.events.select("user_id", "item_id", "event_time"), on="user_id")
        before = before.filter(pl.col("event_time") < pl.col("cutoff_time")).select("row", "item_id")
        shown = short.join(log.impressions.select("impression_id", "item_id"), on="impression_id")
        taken = pl.concat([before, shown.select("row", "item_id")]).join(codes, on="item_id")
        self.taken = {row: np.asarray(some) for row, some in taken.group_by("row").agg("code").iter_rows()}
        since = log.items.sort("item_id")["available_from"].dt.epoch("us")
        self.since = since.fill_null(np.iinfo(np.int64).min).to_numpy()
        self.cutoffs = dict(short.select("row", pl.col("cutoff_time").dt.epoch("us")).iter_rows())

    def allowed(self, row: int, target: int) -> np.ndarray:
        """Codes of items available before the cutoff, not shown there and not touched before."""
        allowed = self.since < self.cutoffs[row]
        allowed[self.taken.get(row, [])] = False
        allowed[target] = False
        return np.flatnonzero(allowed)
