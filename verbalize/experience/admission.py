"""The rules by which the library evolves, as pure functions on arrays (SLEA-RL, arXiv 2603.18079, and a remedy).

Once per batch of episodes: split them at a threshold, take the best successes and the worst failures, extract lessons
(elsewhere: a model or rules), keep at most so many, refuse repeats, fill free places, and otherwise replace the least
valuable lesson of the same level and zone if the new one is worth strictly more.

The paper's worth is the score z, the reward of the source episode. With rewards of 0 and 1 all successes tie, nothing
is ever worth strictly more, and a full level admits nothing again. The remedy (`rule: value`) is

    value = z + w_u · credit / (uses + prior) + w_f · 2^(−age / half_life)

credit: sum over uses of (return with the lesson in context − mean return of comparable episodes without it), shrunk
towards 0 while uses are few, and fading with the same half-life; age: batches since admission. So a newcomer beats any
aged lesson of equal score that has not proved useful, a useful one stays, a harmful one goes first, and while the
weights are small against differences of score, a worse score never displaces a better one.

Choices the paper leaves open. Ties of returns with a median threshold: see `split_batch`. Repeats are sought within the
zone, over all its levels: a strategy and a warning may well use the same words. Among equal values the oldest goes.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from verbalize.experience.settings import AdmissionConfig, ClusterConfig


def split_batch(
    scores: Sequence[float], eta: float | None = None, top: int = 5, bottom: int = 5
) -> tuple[list[int], list[int]]:
    """Positions of the `top` best successes, best first, and of the `bottom` worst failures, worst first.

    With `eta` a success reaches it and a failure does not. Without, the median divides, and ties with it go where the
    batch has contrast: to the failures when the median is also the minimum (most of the batch failed), else to the
    successes. A batch of equal scores has no contrast and gives neither. Equal scores keep their order.
    """
    values = np.asarray(scores, dtype=float)
    if not len(values):
        return [], []
    if eta is not None:
        success = values >= eta
    elif values.min() == values.max():
        return [], []
    else:
        middle = float(np.median(values))
        success = values > middle if middle == values.min() else values >= middle
    best = [int(i) for i in np.argsort(-values, kind="stable") if success[i]]
    worst = [int(i) for i in np.argsort(values, kind="stable") if not success[i]]
    return best[:top], worst[:bottom]


def limit_extraction(zones: Sequence[str], config: AdmissionConfig) -> list[int]:
    """Positions of the first `max_strategies` strategies and the first `max_warnings` warnings, in order."""
    room = {"strategy": config.max_strategies, "warning": config.max_warnings}
    kept = []
    for place, zone in enumerate(zones):
        if room[zone] > 0:
            room[zone] -= 1
            kept.append(place)
    return kept


def gate_open(epoch: int, lessons: int, config: ClusterConfig) -> bool:
    """Whether experience may be injected: after `warmup` epochs (the first is 0) and with more than `minimum`
    lessons.
    """
    return epoch >= config.warmup and lessons > config.minimum


def entry_values(
    scores: np.ndarray, ages: np.ndarray, uses: np.ndarray, credits: np.ndarray, config: AdmissionConfig
) -> np.ndarray:
    """(N,) worth of lessons: the formula above, or the bare scores by the paper's rule. A candidate has age, uses and
    credit 0.
    """
    scores = np.asarray(scores, dtype=float)
    if config.rule == "paper":
        return scores.copy()
    useful = np.asarray(credits, dtype=float) / (np.asarray(uses, dtype=float) + config.prior_uses)
    fresh = np.exp2(-np.asarray(ages, dtype=float) / config.half_life)
    return scores + config.usage_weight * useful + config.freshness_weight * fresh


def usage_credit(
    used: Sequence[Collection[str]], scores: Sequence[float], groups: Sequence[str]
) -> dict[str, tuple[int, float]]:
    """Id -> (uses, credit) over a batch: per episode with the lesson in context, its score minus the mean score of the
    group's episodes without it.

    A group holds comparable episodes (one task, one family). Where all of a group used the lesson, the comparison is
    with all other episodes without it; where there is none, nothing can be said and the use is not counted.
    """
    values = np.asarray(scores, dtype=float)
    group = np.asarray(groups, dtype=object)
    found: dict[str, tuple[int, float]] = {}
    for name in sorted({name for names in used for name in names}):
        has = np.array([name in names for names in used], dtype=bool)
        if has.all():
            continue
        uses, credit = 0, 0.0
        for episode in np.flatnonzero(has):
            peers = ~has & (group == group[episode])
            uses += 1
            credit += float(values[episode] - values[peers if peers.any() else ~has].mean())
        found[name] = (uses, credit)
    return found


def fade(uses: float, credit: float, config: AdmissionConfig) -> tuple[float, float]:
    """Evidence after one more batch: the policy that it was observed with changes."""
    keep = 2 ** (-1 / config.half_life)
    return uses * keep, credit * keep


@dataclass(frozen=True)
class Pool:
    """Lessons as arrays: `cells` (level, zone) per row, `values` (N,), `vectors` (N, D) unit vectors of their texts.

    Residents are in order of admission, oldest first.
    """

    cells: Sequence[tuple[str, str]]
    values: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class AdmissionPlan:
    """Positions: `admitted`, `repeats` and `unworthy` among the candidates, `evicted` among the residents."""

    admitted: tuple[int, ...]
    evicted: tuple[int, ...]
    repeats: tuple[int, ...]
    unworthy: tuple[int, ...]


def plan_admission(candidates: Pool, residents: Pool, config: AdmissionConfig) -> AdmissionPlan:
    """Who enters and who leaves, best candidates first (equal values: in order), so none of them evicts another.

    Every candidate ends in exactly one of admitted, repeats and unworthy. O(candidates · (residents · D)).
    """
    capacity = {"strategy": config.strategies, "warning": config.warnings}
    cells = [*residents.cells, *candidates.cells]
    values = np.concatenate([np.asarray(residents.values, float), np.asarray(candidates.values, float)])
    zones = np.array([zone for _, zone in cells], dtype=object)
    vectors = np.concatenate([residents.vectors, candidates.vectors]) if residents.cells else candidates.vectors
    n_residents = len(residents.cells)
    inside = np.arange(len(cells)) < n_residents
    members: dict[tuple[str, str], list[int]] = {}
    for row in range(n_residents):
        members.setdefault(cells[row], []).append(row)
    admitted, evicted, repeats, unworthy = [], [], [], []

    def drop_lowest(cell: list[int]) -> None:
        lowest = min(cell, key=lambda r: (values[r], r))
        cell.remove(lowest)
        inside[lowest] = False
        evicted.append(lowest)

    for (_, zone), cell in members.items():  # a capacity may have been lowered since
        while len(cell) > capacity[zone]:
            drop_lowest(cell)
    for place in np.argsort(-np.asarray(candidates.values, float), kind="stable").tolist():
        row = n_residents + place
        cell = members.setdefault(cells[row], [])
        rivals = np.flatnonzero(inside & (zones == zones[row]))
        if len(rivals) and float((vectors[rivals] @ vectors[row]).max()) >= config.novelty:
            repeats.append(place)
            continue
        if len(cell) >= capacity[str(zones[row])]:
            if not values[row] > min(values[r] for r in cell):
                unworthy.append(place)
                continue
            drop_lowest(cell)
        cell.append(row)
        inside[row] = True
        admitted.append(place)
    return AdmissionPlan(tuple(admitted), tuple(evicted), tuple(repeats), tuple(unworthy))
