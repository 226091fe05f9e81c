"""Controls of a learned arm: does the gain come from this user's history, and does the policy act differently on
different ones?
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.outcomes import paired_outcomes
from recsys.seeding import rng
from recsys.significance import RESAMPLES, bootstrap_means, interval


def shuffle_texts_between_users(
    examples: pl.DataFrame, texts: Sequence[str], seed: int = 0, *, similar_length: bool = False
) -> list[str]:
    """The same texts, each handed to an example of another user: nobody reads a text of their own, every text is
    used once.

    Users are laid out in random order (`similar_length`: by median history length, so that lengths stay alike) and
    the texts rotated by at least the largest number of examples of a user. Raises InputError when one user owns
    more than half of them.
    """
    if len(texts) != examples.height:
        raise InputError(
            f"{len(texts)} texts for {examples.height} examples",
            "there must be one text per example, in row order",
            "use aligned_texts",
        )
    users = examples["user_id"].to_list()
    n, largest = len(users), int(examples["user_id"].value_counts()["count"].max() or 0)  # type: ignore[arg-type]
    if 2 * largest > n:
        raise InputError(
            f"a user with {largest} of {n} examples", "texts cannot all move to another user", "evaluate more users"
        )
    generator = rng(seed, "shuffle texts between users")
    place = dict(zip(sorted(set(users)), generator.permutation(len(set(users))).tolist(), strict=True))
    if similar_length:
        median = examples.group_by("user_id").agg(pl.col("history").list.len().median().alias("length"))
        lengths = dict(median.rows())
        place = {user: rank for rank, user in enumerate(sorted(place, key=lambda user: (lengths[user], place[user])))}
    within = generator.permutation(n)
    layout = sorted(range(n), key=lambda row: (place[users[row]], within[row]))
    shift = largest if similar_length else int(generator.integers(largest, n - largest + 1))
    shuffled = [""] * n
    for position, row in enumerate(layout):
        shuffled[row] = texts[layout[(position + shift) % n]]
    return shuffled


@dataclass(frozen=True)
class SurvivingGain:
    """Share of the learned arm's gain that is left when texts change owners. `share` is nan where there was no gain."""

    share: float
    low: float
    high: float
    gain: float
    gain_shuffled: float

    @property
    def fails(self) -> bool:
        """More than half of the gain survives, or there is none: the text is not about its user."""
        return not self.share <= 0.5


def surviving_gain(
    decisions: pl.DataFrame,
    learned: tuple[str, str],
    shuffled: tuple[str, str],
    baseline: tuple[str, str],
    metric: str = "recall@1",
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> SurvivingGain:
    """(shuffled - baseline) / (learned - baseline), with a bootstrap interval over users.

    Draws in which the learned arm gains nothing count as +inf: all of a gain that is not there survives.
    """
    frame = paired_outcomes(decisions, [learned, shuffled, baseline], metric)
    means = bootstrap_means(
        frame.select("0", "1", "2").to_numpy(), frame["user_id"].to_numpy(), resamples=resamples, seed=seed
    )
    gain, left = means.draws[:, 0] - means.draws[:, 2], means.draws[:, 1] - means.draws[:, 2]
    low, high = interval(np.where(gain > 0, left / np.where(gain > 0, gain, 1.0), np.inf), means.n_users, level)
    top, middle, bottom = map(float, means.estimate)
    share = (middle - bottom) / (top - bottom) if top > bottom else float("nan")
    return SurvivingGain(share, low, high, top - bottom, middle - bottom)


def share_of_distinct(values: Sequence[Hashable]) -> float:
    """Distinct values over all values: near 0 for a policy that writes the same everywhere, but not for one that copies
    what differs; of actions `share_of_distinct_patterns` tells more. Raises InputError on none.

    >>> share_of_distinct(["keep", "keep", "drop", "keep"])
    0.5
    """
    if not values:
        raise InputError(
            "0 values", "the share of distinct ones needs at least one", "pass the texts or the action strings"
        )
    return len(set(values)) / len(values)


def share_of_distinct_patterns(patterns: Sequence[Sequence[Hashable]]) -> float | None:
    """How often a policy, given the same number of slots, acts as it did nowhere else: 0 for one whose actions follow
    from their number alone (any constant one, "keep the last five"), 1 when no two are alike.

        (D - L) / (N - L)   of N patterns, D distinct ones, L distinct lengths; empty patterns are left out

    None where no two patterns are equally long, so that nothing can be told.

    >>> share_of_distinct_patterns([[3, 3], [3, 3, 3], [3, 3, 3]]), share_of_distinct_patterns([[0, 3], [3, 0], [3, 3]])
    (0.0, 1.0)
    """
    acted = [tuple(pattern) for pattern in patterns if len(pattern)]
    lengths = len({len(pattern) for pattern in acted})
    return (len(set(acted)) - lengths) / (len(acted) - lengths) if len(acted) > lengths else None


def symbol_shares(patterns: Sequence[Sequence[int]]) -> dict[int, float]:
    """Symbol -> share of all slots, most frequent first; {} without slots.

    >>> symbol_shares([[3, 3], [0, 3]])
    {3: 0.75, 0: 0.25}
    """
    counts = Counter(symbol for pattern in patterns for symbol in pattern)
    return {symbol: count / counts.total() for symbol, count in counts.most_common()}
