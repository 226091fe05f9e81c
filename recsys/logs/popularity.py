"""How often each item had been touched before the start of a given UTC day.

A slate's weights come from this snapshot of its cutoff's day: nothing at or after the cutoff is in it, whatever the
hour, and one pass over the log serves every example. It lags the cutoff by less than a day.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl

from recsys.logs.codes import distinct, recoded


def daily_counts(events: pl.DataFrame, items: pl.DataFrame, days: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (day, counts of shape (items,)) for each of `days` (days since 1970, ascending); counts follow the order of
    `items`.

    Every yielded array is a copy. Cost: one sort of the events by day, one addition per event and per
    item and day.
    """
    things, table = distinct(events["item_id"])
    catalogue = items.select("item_id").with_row_index("place")
    table = table.join(catalogue, left_on="text", right_on="item_id", how="left", maintain_order="left")
    coded = pl.DataFrame({"day": events["event_time"].dt.epoch("d"), "place": recoded(things, table, "place")})
    coded = coded.filter(pl.col("day") < (int(days[-1]) if len(days) else 0)).drop_nulls().sort("day")
    day, code = coded["day"].to_numpy(), coded["place"].to_numpy()
    counts = np.zeros(len(items), np.int64)
    done = 0
    for wanted in days:
        end = int(np.searchsorted(day, wanted, side="left"))
        counts += np.bincount(code[done:end], minlength=len(items))
        done = end
        yield int(wanted), counts.copy()


def deciles(counts: np.ndarray) -> np.ndarray:
    """Popularity decile per item, 1 (least) to 10 among items touched at all; 0 for untouched ones. Equal counts share
    a decile.

    >>> deciles(np.array([0, 1, 2, 3, 3])).tolist()
    [0, 1, 3, 6, 6]
    """
    touched = np.sort(counts[counts > 0])
    if not len(touched):
        return np.zeros(len(counts), np.int64)
    place = np.searchsorted(touched, counts, side="left")
    return np.where(counts > 0, 1 + 10 * place // len(touched), 0)
