"""What could be recommended at an example's cutoff: every item available before it that the user had not touched.

The rule by which slates draw their negatives (`recsys.logs.pools.Past`), over the whole catalogue and not a sample of
it. It reads availability and this user's events strictly before the cutoff, so nothing later decides who competes with
the target. Discovery is judged at the level of series, candidates are judged one by one: an unseen episode of a series
that the user knows is a candidate, as it may be a slate's negative.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.logs.pools import Past
from recsys.logs.tables import Log


class Eligible:
    """Items by number, in the sorted order of their ids (`item_ids`), as the recommenders number theirs.

    `log` holds all events of the examples' users. The target always counts, whatever the rule says of it: the user may
    know it already, and in a catalogue derived from events it may appear with its own event.
    """

    def __init__(self, examples: pl.DataFrame, log: Log) -> None:
        """Raises InputError for a target that is not in the catalogue."""
        if not log.items["item_id"].is_sorted():
            log = dataclasses.replace(log, items=log.items.sort("item_id"))
        self.item_ids: list[str] = log.items["item_id"].to_list()
        number = {item: place for place, item in enumerate(self.item_ids)}
        unknown = [item for item in examples["target_item_id"] if item not in number]
        if unknown:
            raise InputError(
                f"target {unknown[0]!r}", "is not in the catalogue", "build the examples from the same log"
            )
        self.targets = np.array([number[item] for item in examples["target_item_id"]], dtype=np.int64)
        self.row_of = {example_id: row for row, example_id in enumerate(examples["example_id"])}
        self._past = Past(log, log.items)
        self._cutoffs = examples["cutoff_time"].dt.epoch("us").to_numpy()
        self._starts, self._ends = self._past.spans_before(examples["user_id"], self._cutoffs)

    def allowed(self, row: int) -> np.ndarray:
        """Boolean (items,): what competes in this example, its target among it."""
        allowed = self._past.allowed(self._starts[row], self._ends[row], self._cutoffs[row])
        allowed[self.targets[row]] = True
        return allowed

    def excluded(self, example_ids: Sequence[str]) -> list[np.ndarray]:
        """Numbers (int64, ascending) of the items that do not compete, per example. Raises InputError for an example
        that was not given."""
        unknown = [example_id for example_id in example_ids if example_id not in self.row_of]
        if unknown:
            raise InputError(f"example {unknown[0]!r}", "is none of those given", "pass the examples that are ranked")
        return [np.flatnonzero(~self.allowed(self.row_of[example_id])) for example_id in example_ids]
