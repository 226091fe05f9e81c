"""Summaries, paired comparisons, slices, controls and headroom on simulated decisions."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from recsys.errors import InputError
from recsys.evaluation import (
    Arm,
    best_against_all,
    by_history_length,
    by_popularity_tercile,
    by_target_position,
    compare,
    pool_headroom,
    share_of_distinct,
    shuffle_texts_between_users,
    summarise,
    summarise_slices,
    surviving_gain,
)

SIZE = 10


def make_decisions(arms, n_users=30, per_user=6, seed=0):
    """`arms`: name -> function (generator, user, number) -> rank; arms may be given as (name, training seed)."""
    generator = np.random.default_rng(seed)
    rows = []
    for key, rank in arms.items():
        name, training_seed = key if isinstance(key, tuple) else (key, 0)
        for user in range(n_users):
            for number in range(per_user):
                rows.append(
                    (
                        f"e{user}-{number}",
                        f"u{user:02d}",
                        0,
                        name,
                        "r",
                        training_seed,
                        SIZE,
                        number % SIZE,
                        int(rank(generator, user, number)),
                    )
                )
    schema = [
        "example_id",
        "user_id",
        "slate_index",
        "verbalizer",
        "recommender",
        "seed",
        "slate_size",
        "target_index",
        "rank",
    ]
    return pl.DataFrame(rows, schema=schema, orient="row")


def hit(share):
    return lambda generator, user, number: 1 if generator.random() < share else generator.integers(2, SIZE + 1)


def suits_one_in_four(place):
    return lambda generator, user, number: hit(0.7 if user % 4 == place else 0.2)(generator, user, number)


def always(rank):
    return lambda generator, user, number: rank


def test_summary_holds_every_number_of_an_arm():
    decisions = make_decisions({("a", 1): always(1), ("a", 2): always(4), "b": always(2)})
    summary = summarise(decisions, ["recall@1", "mrr"], resamples=200)
    row = summary.row(by_predicate=(pl.col("verbalizer") == "a") & (pl.col("metric") == "recall@1"), named=True)
    assert (row["n"], row["users"], row["value"], row["low"], row["high"]) == (180, 30, 0.5, 0.5, 0.5)
    assert row["chance_corrected"] == pytest.approx((0.5 - 0.1) / 0.9)
    assert row["per_seed"] == [{"seed": 1, "value": 1.0}, {"seed": 2, "value": 0.0}]
    other = summary.row(by_predicate=(pl.col("verbalizer") == "b") & (pl.col("metric") == "mrr"), named=True)
    assert other["value"] == 0.5 and other["per_seed"] == [{"seed": 0, "value": 0.5}]


def test_seeds_are_averaged_before_anything_is_resampled():
    # Two seeds that always disagree: their average never varies, so the interval is a point and not a coin's.
    pair = make_decisions({("a", 0): hit(0.5)}, seed=1)
    mirrored = pair.with_columns(seed=pl.lit(1), rank=pl.when(pl.col("rank") == 1).then(2).otherwise(1))
    row = summarise(
        pl.concat([pair, mirrored.select(pair.columns)], how="vertical_relaxed"), ["recall@1"], resamples=300
    )
    assert row["value"][0] == row["low"][0] == row["high"][0] == 0.5
    assert row["n"][0] == 180


def test_slates_are_averaged_within_an_example():
    frame = make_decisions({"a": always(1), "b": always(2)})
    more = frame.with_columns(slate_index=pl.lit(1), rank=pl.lit(2, pl.Int64))
    summary = summarise(
        pl.concat([frame, more.select(frame.columns)], how="vertical_relaxed"), ["recall@1"], resamples=50
    )
    assert summary["value"].to_list() == [0.5, 0.0] and summary["n"].to_list() == [180, 180]


def test_comparison_reports_both_sides():
    decisions = make_decisions({"a": hit(0.6), "b": hit(0.3)}, n_users=40)
    found = compare(decisions, ("a", "r"), ("b", "r"), resamples=2000)
    assert found.value == pytest.approx(found.value_a - found.value_b) == found.difference
    assert found.low < found.value < found.high and found.low > 0 and found.p < 0.01
    assert found.chance_corrected_a == pytest.approx((found.value_a - 0.1) / 0.9)
    assert found.per_seed_a == {0: pytest.approx(found.value_a)} and (found.n, found.users) == (240, 40)
    assert 0 < found.n_effective <= found.n and str(found.a) == "a × r"
    ratio = compare(decisions, Arm("a", "r"), Arm("b", "r"), relative=True, resamples=2000)
    assert ratio.value == pytest.approx(found.value_a / found.value_b - 1)
    assert ratio.low < ratio.value < ratio.high and ratio.difference == pytest.approx(found.value)
    mirrored = compare(decisions, ("b", "r"), ("a", "r"), resamples=2000)
    assert mirrored.value == pytest.approx(-found.value) and mirrored.p == pytest.approx(found.p, abs=0.01)


def test_comparisons_do_not_depend_on_row_order():
    decisions = make_decisions({"a": hit(0.6), "b": hit(0.3)})
    shuffled = decisions.sample(fraction=1.0, shuffle=True, seed=3)
    assert compare(decisions, ("a", "r"), ("b", "r"), resamples=300) == compare(
        shuffled, ("a", "r"), ("b", "r"), resamples=300
    )


def test_scores_stand_in_for_the_slate_size():
    decisions = make_decisions({"a": hit(0.6), "b": hit(0.3)})
    scored = decisions.drop("slate_size").with_columns(scores=pl.lit([0.0] * SIZE))
    assert summarise(scored, resamples=50).equals(summarise(decisions, resamples=50))


def test_arms_that_cannot_be_compared_are_refused():
    decisions = make_decisions({"a": hit(0.6), "b": always(2)})
    with pytest.raises(InputError, match="arm c × r: is not among the decisions"):
        compare(decisions, ("a", "r"), ("c", "r"))
    missing = decisions.filter((pl.col("verbalizer") == "a") | (pl.col("user_id") != "u03"))
    with pytest.raises(InputError, match="different examples or slates \\(180 and 174 rankings\\)"):
        compare(missing, ("a", "r"), ("b", "r"))
    moved = decisions.with_columns(
        target_index=pl.when(pl.col("verbalizer") == "a").then(pl.col("target_index")).otherwise(9)
    )
    with pytest.raises(InputError, match="different examples or slates"):
        compare(moved, ("a", "r"), ("b", "r"))
    wider = decisions.with_columns(slate_size=pl.when(pl.col("verbalizer") == "a").then(SIZE).otherwise(SIZE + 1))
    with pytest.raises(InputError, match="different examples or slates"):
        compare(wider, ("a", "r"), ("b", "r"))
    undefined = compare(decisions, ("a", "r"), ("b", "r"), relative=True)
    assert math.isnan(undefined.value) and undefined.value_b == 0.0
    with pytest.raises(InputError, match="1 user"):
        compare(decisions.filter(pl.col("user_id") == "u00"), ("a", "r"), ("b", "r"))
    uneven = make_decisions({("a", 0): hit(0.6), ("a", 1): hit(0.6)}).head(-1)
    with pytest.raises(InputError, match="arm a × r: 359 outcomes from 2 seeds and 180 examples"):
        summarise(uneven)


def test_best_against_all_is_wider_than_one_comparison():
    decisions = make_decisions({"a": hit(0.5), "b": hit(0.4), "c": hit(0.3), "d": hit(0.2)}, n_users=60)
    table = best_against_all(decisions, ("a", "r"), [("b", "r"), ("c", "r"), ("d", "r")], resamples=3000)
    single = compare(decisions, ("a", "r"), ("c", "r"), resamples=3000)
    row = table.row(1, named=True)
    assert row["difference"] == pytest.approx(single.value) and row["high"] - row["low"] > single.high - single.low


def test_slices_cut_rankings_and_examples():
    decisions = make_decisions({"a": lambda generator, user, number: 1 if number < 3 else 2})
    found = summarise_slices(decisions, [by_target_position(decisions)], resamples=50)
    assert found["level"].to_list() == ["01", "02", "03", "04", "05", "06"]
    assert found["value"].to_list() == [1, 1, 1, 0, 0, 0] and found["n"].to_list() == [30] * 6
    examples = decisions.select("example_id", history=pl.lit([1] * 9)).with_row_index()
    examples = examples.with_columns(history=pl.col("history").list.head(9 - pl.col("index") % 2 * 8))
    lengths = by_history_length(examples, edges=(5, 9))
    assert lengths["level"].value_counts().sort("level").rows() == [("000-004", 90), ("009+", 90)]
    with pytest.raises(InputError, match="names no level for 6 of 180 rankings"):
        summarise_slices(decisions, [lengths.tail(-6)], resamples=10)


def test_popularity_terciles_count_only_the_past():
    start = datetime(2020, 1, 1, tzinfo=UTC)
    counts = {"i0": 1, "i1": 2, "i2": 3, "i3": 4, "i4": 5, "i5": 6}
    events = pl.DataFrame(
        [
            {"item_id": item, "event_time": start + timedelta(hours=place)}
            for item, n in counts.items()
            for place in range(n)
        ]
        + [{"item_id": "i0", "event_time": start + timedelta(days=5)}] * 50
    )
    examples = pl.DataFrame(
        {"example_id": list("abcdef"), "target_item_id": list(counts), "cutoff_time": [start + timedelta(days=1)] * 6}
    )
    assert by_popularity_tercile(examples, events)["level"].to_list() == [
        "1 rare",
        "1 rare",
        "2 middle",
        "2 middle",
        "3 popular",
        "3 popular",
    ]
    unseen = by_popularity_tercile(examples.with_columns(cutoff_time=start), events)
    assert unseen["level"].to_list() == ["2 middle"] * 6


@pytest.mark.parametrize("similar", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_shuffled_texts_never_return_to_their_user(seed, similar):
    generator = np.random.default_rng(seed)
    users = [f"u{user}" for user, n in enumerate(generator.integers(1, 8, size=25)) for _ in range(n)]
    lengths = [int(name[1:]) * 4 + 1 for name in users]
    examples = pl.DataFrame({"user_id": users, "history": [list(range(n)) for n in lengths]})
    examples = examples.with_columns(text=pl.concat_str("user_id", pl.lit(":"), pl.int_range(pl.len()).cast(pl.String)))
    examples = examples.sample(fraction=1.0, shuffle=True, seed=seed)
    shuffled = shuffle_texts_between_users(examples, examples["text"].to_list(), seed, similar_length=similar)
    assert sorted(shuffled) == sorted(examples["text"].to_list())
    assert all(text.split(":")[0] != user for text, user in zip(shuffled, examples["user_id"], strict=True))
    assert shuffled == shuffle_texts_between_users(examples, examples["text"].to_list(), seed, similar_length=similar)
    if similar:
        apart = [
            abs(int(text.split(":")[0][1:]) - int(user[1:]))
            for text, user in zip(shuffled, examples["user_id"], strict=True)
        ]
        assert np.median(apart) <= 3


def test_a_user_with_most_texts_cannot_be_shuffled():
    examples = pl.DataFrame({"user_id": ["a", "a", "a", "b"], "history": [[1]] * 4})
    with pytest.raises(InputError, match="a user with 3 of 4 examples"):
        shuffle_texts_between_users(examples, list("wxyz"))


def test_a_gain_that_survives_shuffling_fails():
    decisions = make_decisions(
        {"base": hit(0.2), "real": hit(0.7), "shuffled": hit(0.25), "fake": hit(0.65)}, n_users=60
    )
    real = surviving_gain(decisions, ("real", "r"), ("shuffled", "r"), ("base", "r"), resamples=1000)
    fake = surviving_gain(decisions, ("real", "r"), ("fake", "r"), ("base", "r"), resamples=1000)
    none = surviving_gain(decisions, ("base", "r"), ("shuffled", "r"), ("real", "r"), resamples=1000)
    assert not real.fails and real.low < real.share < real.high < 0.5 and real.gain == pytest.approx(0.5, abs=0.12)
    assert fake.fails and fake.share > 0.7
    assert none.fails and math.isnan(none.share) and none.high == math.inf


def test_share_of_distinct():
    assert share_of_distinct([(0, 1), (0, 1), (1, 1), (2, 0)]) == 0.75
    with pytest.raises(InputError, match="0 values"):
        share_of_distinct([])


def test_headroom_is_found_where_users_differ_and_not_where_luck_does():
    lucky = {f"c{place}": hit(0.3) for place in range(8)}
    none = pool_headroom(make_decisions(lucky, n_users=80, per_user=10), "r", resamples=1000)
    assert abs(none.value) < 0.04 and none.low < 0.005
    assert none.naive_example_oracle > 0.85 and none.naive_user_oracle > none.naive_constant + 0.1  # the trap
    suits = {f"c{place}": suits_one_in_four(place) for place in range(4)}
    real = pool_headroom(make_decisions(suits, n_users=80, per_user=10), "r", resamples=1000)
    assert real.low > 0.2 and real.chosen < 0.7 and real.value == pytest.approx(real.chosen - real.constant)
    assert real.p < 0.01 and (real.n, real.users, real.users_left_out) == (800, 80, 0)


def test_shrinkage_towards_all_users_chooses_the_constant_in_the_limit():
    decisions = make_decisions({"a": hit(0.3), "b": hit(0.5)}, n_users=40, per_user=8)
    assert pool_headroom(decisions, "r", shrinkage=1e6, resamples=100).value == 0.0


def test_headroom_of_a_better_criterion_and_its_limits():
    decisions = make_decisions({"a": hit(0.4), "b": hit(0.4)}, n_users=20, per_user=4)
    single = decisions.filter(pl.col("user_id") == "u00", pl.col("example_id") == "e0-0").with_columns(
        user_id=pl.lit("lone"), example_id=pl.lit("lone")
    )
    found = pool_headroom(pl.concat([decisions, single]), "r", choose_by="mrr", resamples=100)
    assert (found.users, found.users_left_out, found.n) == (20, 1, 80)
    assert found == pool_headroom(pl.concat([decisions, single]).reverse(), "r", choose_by="mrr", resamples=100)
    with pytest.raises(InputError, match="1 candidates, 20 users"):
        pool_headroom(decisions.filter(pl.col("verbalizer") == "a"), "r")
    with pytest.raises(InputError, match="1 missing outcomes"):
        pool_headroom(decisions.head(-1), "r")
