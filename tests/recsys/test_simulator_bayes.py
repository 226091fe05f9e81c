"""The Bayes optimum: equal to brute force, to what the slate policies really draw, and never beaten."""

import itertools

import numpy as np
import polars as pl
import pytest

from recsys.decisions import decide, own_slates
from recsys.errors import InputError
from recsys.logs.events import canonicalise
from recsys.logs.examples import ExamplesConfig, build_examples
from recsys.logs.slates import SlateConfig, draw_slates
from recsys.logs.splits import SplitConfig
from recsys.logs.tables import Log
from recsys.recommenders.content import GenreOverlap
from recsys.recommenders.popularity import Popularity
from recsys.seeding import rng
from recsys.simulator.bayes import bayes_optimum
from recsys.simulator.slate_draws import DAY_US, Past, SlateDraws
from recsys.simulator.slate_probability import (
    cell_log_probability,
    posterior,
    race_log_probability,
    uniform_log_probability,
)
from recsys.simulator.source import read, settings_of, truth_of

SETTINGS = {"users": 260, "works": 120, "days": 90, "seed": 11, "taste_strength": 3.0}
SPLIT = SplitConfig(train=0.1, validation=0.1, test=0.8, train_until="30%", validate_until="40%")
POLICIES = ("uniform", "popularity", "matched")


def drawn_in_turn(target: int, pool: list[int], weights: np.ndarray, size: int) -> dict[frozenset[int], float]:
    """Probability of each set of negatives, by enumerating every order in which they can be drawn without
    replacement."""
    found: dict[frozenset[int], float] = {}
    for order in itertools.permutations([item for item in pool if item != target], size - 1):
        left, chance = sum(weights[item] for item in pool if item != target), 1.0
        for item in order:
            chance *= weights[item] / left
            left -= weights[item]
        names = frozenset(order)
        found[names] = found.get(names, 0.0) + chance
    return found


def enumerated(preference: np.ndarray, weights: np.ndarray, cells: np.ndarray, size: int) -> dict[frozenset[int], dict]:
    """Joint probability of (slate, target), target by preference, negatives by weight within the target's cell."""
    joint: dict[frozenset[int], dict[int, float]] = {}
    for target in range(len(preference)):
        pool = [item for item in range(len(preference)) if cells[item] == cells[target]]
        for negatives, chance in drawn_in_turn(target, pool, weights, size).items():
            slate = joint.setdefault(negatives | {target}, {})
            slate[target] = slate.get(target, 0.0) + preference[target] * chance
    return joint


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_posteriors_and_optimum_equal_brute_force_on_a_tiny_catalogue(policy: str, size: int) -> None:
    """Every slate, every target, every order of drawing; and the best of all rankings found by trying each."""
    count = 8
    for seed in range(4):
        generator = rng("brute force", seed)
        preference = generator.dirichlet(np.full(count, 0.5))
        weights = np.ones(count) if policy != "popularity" else np.exp(2.5 * generator.standard_normal(count))
        cells = np.arange(count) % 2 if policy == "matched" else np.zeros(count, int)
        optimum = expected = 0.0
        for names, chances in enumerated(preference, weights, cells, size).items():
            slate = np.array(sorted(names))
            if policy == "uniform":
                draw = uniform_log_probability(size)
            elif policy == "popularity":
                rest = np.delete(weights, slate).sum()
                draw = race_log_probability(weights[slate], float(rest))
            else:
                pools = [np.flatnonzero((cells == cells[item]) & (np.arange(count) != item)) for item in slate]
                draw = cell_log_probability(slate, pools)
            found = posterior(np.log(preference[slate]), draw)
            exact = np.array([chances.get(int(item), 0.0) for item in slate])
            np.testing.assert_allclose(found, exact / exact.sum(), rtol=1e-9, atol=1e-12)
            optimum += max(exact)  # the best ranking puts the likeliest target first
            expected += exact.sum() * found.max()
        assert expected == pytest.approx(optimum, rel=1e-9)


def test_the_race_holds_its_limits_and_extremes() -> None:
    small = np.array([1e-6, 3e-6, 5e-7])
    ratios = np.exp(race_log_probability(small, 1.0))
    np.testing.assert_allclose(ratios * small / (ratios[0] * small[0]), 1.0, rtol=1e-4)  # 1 / sampling weight
    assert (race_log_probability(np.array([2.0, 1.0]), 0.0) == 0).all()  # nothing else could have been drawn
    extreme = race_log_probability(np.array([1e-9, 1e-9, 5.0, 300.0]), 1e-9)
    assert np.isfinite(extreme).all() and extreme[0] == pytest.approx(extreme[1])
    assert extreme[0] > extreme[2]  # an untouched item among popular ones is there because it is the target


@pytest.fixture(scope="module")
def world() -> tuple[Log, pl.DataFrame]:
    return canonicalise(read("", SETTINGS)), truth_of("", SETTINGS)


def made(log: Log, policy: SlateConfig, targets: int = 8) -> pl.DataFrame:
    config = ExamplesConfig(
        discovery_only=False, targets_per_user=targets, history_max=8, split=SPLIT, slate=policy, seed=1
    )
    return build_examples(log, config)[0].filter(pl.col("split") == "test")


@pytest.mark.parametrize("policy", POLICIES)
def test_slates_are_drawn_with_the_stated_probabilities(policy: str) -> None:
    """One example of a small world, thousands of redraws: how often each set of negatives comes up."""
    settings = {"users": 12, "works": 40, "series_share": 0.0, "days": 30, "seed": 2}
    log = canonicalise(read("", settings))
    config = SlateConfig(policy=policy, size=3, year_band=30)
    one = made(log, config, 1).filter(pl.col("is_discovery")).head(1)
    redraws = 2000
    slates = draw_slates(one, log, config, redraws, seed=5)
    items = log.items.sort("item_id")
    codes = {item: code for code, item in enumerate(items["item_id"])}
    past = Past(log.events, codes)
    cutoff = one["cutoff_time"].dt.epoch("us")[0]
    draws = SlateDraws(items, past.counts_before(cutoff // DAY_US * DAY_US), config)
    allowed, target = ~past.of(one["user_id"][0], cutoff), codes[one["target_item_id"][0]]
    negatives = [code for code in np.flatnonzero(allowed).tolist() if code != target]
    assert len(negatives) >= 4
    logs = {
        pair: draws.log_probability(np.array([target, *pair]), allowed)[0]
        for pair in itertools.combinations(negatives, 2)
    }
    exact = {pair: np.exp(value) for pair, value in logs.items()}
    total = sum(exact.values())
    seen: dict[tuple[int, ...], int] = {}
    for slate in slates["slate"].to_list():
        pair = tuple(sorted(codes[item] for item in slate if codes[item] != target))
        seen[pair] = seen.get(pair, 0) + 1
    assert set(seen) <= set(exact) and len(exact) > 3
    for pair, value in exact.items():
        share = value / total
        assert abs(seen.get(pair, 0) - redraws * share) <= 4.5 * np.sqrt(redraws * share * (1 - share)) + 1e-6


@pytest.mark.parametrize("policy", POLICIES)
def test_the_optimum_is_what_its_ranking_reaches_and_nobody_beats_it(
    policy: str, world: tuple[Log, pl.DataFrame]
) -> None:
    log, truth = world
    config = SlateConfig(policy=policy, size=8, year_band=30)
    examples = made(log, config)
    slates = own_slates(examples)
    found = bayes_optimum(settings_of("", SETTINGS), examples, slates, truth, log, config)
    assert found.select("example_id", "slate_index").equals(slates.select("example_id", "slate_index"))
    known = found.filter(pl.col("kind") != "new")
    assert set(known["kind"]) == {"next_episode", "rewatch"} and (known["bound"] == 1).all()
    chosen = (found["kind"] == "new").to_numpy()
    shares = np.array(found["posterior"].to_list())[chosen]  # (B, S)
    target = slates["target_index"].to_numpy()[chosen]
    bound, n = shares.max(axis=1), len(target)
    assert n > 700 and (bound > 1 / 8).all() and bound.mean() < 0.9

    def reached(scores: np.ndarray) -> float:
        return float((scores.argmax(axis=1) == target).mean())

    spread = 4 * np.sqrt(0.25 / n)
    assert abs(reached(shares) - bound.mean()) < spread  # the oracle reaches its bound: Monte Carlo
    confident = bound > np.median(bound)  # and is calibrated where it is sure and where it is not
    for part in (confident, ~confident):
        assert abs((shares.argmax(axis=1) == target)[part].mean() - bound[part].mean()) < 4 * np.sqrt(0.25 / part.sum())
    generator = rng("noisy oracle", policy)
    accuracies = [bound.mean()]
    for noise in (0.5, 2.0, 8.0):
        scores = np.log(np.maximum(shares, 1e-12)) + noise * generator.standard_normal(shares.shape)
        expected = shares[np.arange(n), scores.argmax(axis=1)].mean()
        assert expected < accuracies[-1] and reached(scores) < bound.mean() + spread
        accuracies.append(expected)
    before = examples["cutoff_time"].min()
    for recommender in (Popularity, GenreOverlap):
        fitted = recommender.fit(log.events.filter(pl.col("event_time") < before), log.items, before=before)
        ranks = decide(fitted, examples, [""] * len(examples), verbalizer="history")["rank"].to_numpy()[chosen]
        assert (ranks == 1).mean() < bound.mean() + spread


def test_what_the_optimum_is_not_known_for_is_refused(world: tuple[Log, pl.DataFrame]) -> None:
    log, truth = world
    config = SlateConfig(policy="uniform", size=4)
    examples = made(log, config, 1).head(20)
    settings = settings_of("", SETTINGS)
    with pytest.raises(InputError, match=r"'retrieved'.*no known Bayes optimum"):
        bayes_optimum(settings, examples, own_slates(examples), truth, log, SlateConfig(policy="retrieved"))
    accident = truth.filter(pl.col("kind") == "accidental").row(0, named=True)
    wrong = examples.head(1).with_columns(
        user_id=pl.lit(accident["user_id"]),
        cutoff_time=pl.lit(accident["event_time"]).cast(examples.schema["cutoff_time"]),
        target_item_id=pl.lit(accident["item_id"]),
    )
    with pytest.raises(InputError, match="is accidental, not a deliberate play"):
        bayes_optimum(settings, wrong, own_slates(examples.head(1)), truth, log, config)
    with pytest.raises(InputError, match="no play of this simulation"):
        bayes_optimum(settings, examples, own_slates(examples), truth.head(5), log, config)
    other = settings_of("", SETTINGS | {"works": 90})
    with pytest.raises(InputError, match=r"the log's catalogue.*is not the simulation's"):
        bayes_optimum(other, examples, own_slates(examples), truth, log, config)
