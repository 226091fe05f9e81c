"""Cuts between users: balanced, exact while users are few, and the same whatever the order of rows."""

import numpy as np
import polars as pl

from recsys.logs.user_ranges import cut_users, range_of


def sizes(users: pl.Series, cuts: pl.Series) -> list[int]:
    """Rows in each range."""
    return np.bincount(range_of(users, cuts).to_numpy(), minlength=len(cuts) + 1).tolist()


def ids(count: int, users: int, seed: int = 0) -> pl.Series:
    """A few users with most rows, many with few."""
    drawn = np.random.default_rng(seed).zipf(1.5, count) % users
    return pl.Series([f"u{user:06d}" for user in drawn], dtype=pl.String)


def test_ranges_follow_the_order_of_ids() -> None:
    users = ids(5000, 400)
    cuts, rows = cut_users([users], 500)
    assert rows == 5000 and cuts.is_sorted() and len(cuts) == cuts.n_unique()
    found = range_of(users.unique().sort(), cuts)
    assert found.is_sorted() and found[0] == 0 and found.n_unique() == len(cuts) + 1
    assert range_of(cuts, cuts).to_list() == list(range(1, len(cuts) + 1))  # a cut opens its range


def test_a_range_exceeds_its_size_by_at_most_one_user() -> None:
    users = ids(20_000, 3000)
    heaviest = int(users.value_counts()["count"].max())  # type: ignore[arg-type]
    assert heaviest > 1000
    for size in (200, 1000, 7000, 10**6):
        found = sizes(users, cut_users([users], size)[0])
        assert max(found) <= size + heaviest and min(found) > 0
        assert sum(found) == len(users)


def test_a_sample_balances_as_all_do() -> None:
    users = pl.Series(np.random.default_rng(1).integers(0, 40_000, 200_000).astype(str))
    found = sizes(users, cut_users([users], 10_000, sample=2000)[0])
    assert len(found) == 20 and max(found) < 1.35 * 10_000


def test_neither_batches_nor_order_matter() -> None:
    users = ids(6000, 2000)
    expected, _ = cut_users([users], 300, sample=150)
    shuffled = users.sample(fraction=1, shuffle=True, seed=3)
    batches = [shuffled[:1], shuffled[1:700], shuffled[700:]]
    assert cut_users(batches, 300, sample=150)[0].equals(expected)


def test_ids_are_cut_as_they_are_cleaned() -> None:
    raw = pl.Series(["b", " a", "a\n", None, " ", "b "])
    cuts, rows = cut_users([raw], 2)
    assert rows == 6 and cuts.to_list() == ["b"]
    assert cut_users([pl.Series([], dtype=pl.String)], 2)[0].is_empty()
    assert range_of(pl.Series(["x"]), cut_users([raw], 10)[0]).to_list() == [0]
