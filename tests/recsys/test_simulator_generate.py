"""The simulator's events: the same for every number of users and chunk, under contract, at the configured rates."""

import dataclasses
import datetime as dt

import numpy as np
import polars as pl
import pytest

from recsys import contracts
from recsys.errors import InputError
from recsys.logs.events import canonicalise
from recsys.logs.examples import ExamplesConfig, build_examples
from recsys.simulator.catalogue import make_catalogue
from recsys.simulator.config import SimulatorConfig, from_mapping
from recsys.simulator.generate import KINDS, TRUTH_SCHEMA, simulate, simulate_users
from recsys.simulator.households import log_preference, make_households, user_numbers
from recsys.simulator.source import read, truth_of

SETTINGS = {"users": 200, "works": 150, "days": 90, "seed": 3}
CONFIG = SimulatorConfig(**SETTINGS)


def whole(config: SimulatorConfig, size: int = 4096) -> tuple[pl.DataFrame, pl.DataFrame]:
    chunks = list(simulate(config, size))
    return pl.concat([chunk.events for chunk in chunks]), pl.concat([chunk.truth for chunk in chunks])


@pytest.fixture(scope="module")
def made() -> tuple[pl.DataFrame, pl.DataFrame]:
    return whole(CONFIG)


def within(share: float, hits: int, n: int) -> bool:
    """Whether `hits` of `n` agree with a probability, at 4.5 binomial standard errors."""
    return abs(hits - n * share) <= 4.5 * np.sqrt(n * share * (1 - share)) + 1e-9


def test_users_keep_their_events_whatever_the_number_of_users_and_the_chunk(
    made: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    events, truth = made
    for users, size in ((15, 4096), (15, 6), (2, 1), (200, 90)):
        some_events, some_truth = whole(dataclasses.replace(CONFIG, users=users), size)
        assert some_events.equals(events.filter(pl.col("user_id") < f"u{users:09d}"))
        assert some_truth.equals(truth.filter(pl.col("user_id") < f"u{users:09d}"))
    alone = simulate_users(CONFIG, make_catalogue(CONFIG), np.array([17, 150])).events
    assert alone.equals(events.filter(pl.col("user_id").is_in(["u000000017", "u000000150"])))


def test_another_seed_is_another_world(made: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    other = dataclasses.replace(CONFIG, seed=4, users=20)
    assert not make_catalogue(other).items.equals(make_catalogue(CONFIG).items)
    assert not whole(other)[0]["event_time"].equals(made[0].filter(pl.col("user_id") < "u000000020")["event_time"])


def test_contracts_hold_and_cleaning_changes_nothing(made: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    events, truth = made
    contracts.check(events, "events")
    items = contracts.check(make_catalogue(CONFIG).items, "items")
    assert items["item_id"].is_sorted() and items["title"].is_unique().all()
    log = canonicalise(read("", SETTINGS))
    assert log.events.equals(events) and log.items.select("item_id", "title").equals(items.select("item_id", "title"))
    assert {name: count for name, count in log.counts.items() if "dropped" in name and count} == {}
    runtime = events.join(items.select("item_id", "runtime_s"), on="item_id", maintain_order="left")
    assert (runtime["duration_s"] / runtime["runtime_s"] - runtime["completion"]).abs().max() < 1e-3  # type: ignore[operator]
    assert truth.schema == TRUTH_SCHEMA


def test_truth_is_told_apart_and_cannot_be_read_off_the_events(made: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    events, truth = made
    key = ["user_id", "item_id", "event_time", "event_type"]
    assert truth.select(key).equals(events.select(key)) and truth.select(pl.struct(key).is_unique().all()).item()
    assert events.columns == contracts.schema("events").names()
    assert events["rating"].null_count() == events["surface"].null_count() == len(events)
    assert truth["is_noise"].equals(truth["kind"].is_in(["accidental", "preview"]).alias("is_noise"))
    raw = read("", SETTINGS)
    assert raw.events.collect_schema().names() == events.columns and "kind" not in raw.events.collect().columns
    # A short play may be an accident or the early end of a chosen one: completion alone does not say.
    plays = events.with_columns(noise=truth["is_noise"]).filter(pl.col("event_type") == "play")
    short = plays.filter(pl.col("completion").is_between(0.04, 0.11))
    assert 0.5 < short["noise"].mean() < 1 and not plays.filter(pl.col("completion") > 0.13)["noise"].any()  # type: ignore[operator]


def test_rates_are_those_of_the_configuration(made: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    events, truth = made
    n, kinds = len(truth), dict(truth["kind"].value_counts().iter_rows())
    assert n > 10_000 and set(kinds) == set(KINDS)
    assert within(CONFIG.preview_rate, kinds["preview"], n) and within(CONFIG.accidental_rate, kinds["accidental"], n)
    assert truth.select((pl.col("kind") == "preview").eq(pl.col("event_type") == "preview").all()).item()
    chosen = events.filter(~truth["is_noise"])
    assert within(CONFIG.abandon_rate, chosen.filter(pl.col("completion") < 0.5).height, len(chosen))
    # Of choices that were no next episode, by accounts that had finished something: again or something new.
    finished = (pl.col("kind").is_in(["new", "next_episode"]) & (pl.col("completion") >= 0.5)).cast(pl.Int32)
    known = truth.with_columns(completion=events["completion"], place=pl.int_range(pl.len()).over("user_id"))
    known = known.with_columns(before=finished.cum_sum().over("user_id") - finished)
    # Among the first only: who has touched most of these few works finds nothing new and comes back more often.
    again = known.filter(pl.col("kind").is_in(["new", "rewatch"]), pl.col("before") > 0, pl.col("place") < 40)
    assert within(CONFIG.rewatch_rate, again.filter(pl.col("kind") == "rewatch").height, len(again))
    # A new series begins at a random episode, or at the first.
    items = make_catalogue(CONFIG).items.select("item_id", "parent_id")
    seen = truth.join(items, on="item_id", maintain_order="left")
    starts = seen.filter(pl.col("kind") == "new", pl.col("parent_id").is_not_null())["item_id"]
    first = starts.str.ends_with("e01").sum()
    episodes = dict(items.group_by("parent_id").len().iter_rows())
    random_first = sum(1 / episodes[name.partition("e")[0]] for name in starts) / len(starts)
    assert within(1 - CONFIG.start_anywhere * (1 - random_first), int(first), len(starts))
    sizes = make_households(CONFIG, np.arange(3000)).sizes
    assert all(within(share, int((sizes == 1 + place).sum()), 3000) for place, share in enumerate(CONFIG.members))


def test_a_member_who_binges_goes_on_at_the_configured_rate() -> None:
    config = dataclasses.replace(CONFIG, series_share=1.0, resume_rate=0.0, preview_rate=0.0, accidental_rate=0.0)
    _, truth = whole(config)
    number = pl.col("item_id").str.slice(-2).cast(pl.Int32)
    last = make_catalogue(config).items.group_by("parent_id").agg(pl.col("item_id").max().alias("last_item"))
    joined = truth.with_columns(parent_id=pl.col("item_id").str.slice(0, 7)).join(
        last, on="parent_id", maintain_order="left"
    )
    pairs = joined.select(
        goes_on=(pl.col("kind").shift(-1) == "next_episode"),
        same=pl.col("item_id").shift(-1).str.slice(0, 7) == pl.col("parent_id"),
        step=number.shift(-1) - number,
        open=(pl.col("user_id") == pl.col("user_id").shift(-1))
        & pl.col("kind").is_in(["new", "next_episode"])
        & (pl.col("item_id") != pl.col("last_item")),
    )
    on = pairs.filter("open", "goes_on")
    assert on["same"].all() and (on["step"] == 1).all()
    # A new session never resumes here, so of all successors p(session continues) · binge_rate are next episodes.
    expected = config.session_continues * config.binge_rate
    assert within(expected, len(on), pairs.filter("open").height)


def test_new_choices_follow_the_stated_probabilities() -> None:
    """Of the first events of many accounts: nothing is touched yet, so the preference over all items is the whole
    truth."""
    config = dataclasses.replace(CONFIG, users=3000, events_max=1, start_anywhere=0.5)
    _, truth = whole(config)
    new = truth.filter(pl.col("kind") == "new")
    households = make_households(config, user_numbers(new["user_id"]))
    catalogue = make_catalogue(config)
    rows = np.arange(len(new))
    affinity = households.affinity[rows, new["member"].to_numpy(), new["phase"].to_numpy()]
    logs = log_preference(config, catalogue, affinity, np.arange(len(catalogue.items)))
    shares = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    codes = {item: code for code, item in enumerate(catalogue.items["item_id"])}
    chosen = np.array([codes[item] for item in new["item_id"]])
    popular = np.argsort(np.argsort(catalogue.popularity[catalogue.work])) * 4 // len(codes)
    groups = [catalogue.lane[catalogue.work] == lane for lane in range(len(catalogue.genres))]
    groups += [popular == quarter for quarter in range(4)] + [catalogue.entry > 0.6, catalogue.entry < 0.2]
    for group in groups:
        expected = shares[:, group].sum(axis=1)
        spread = np.sqrt((expected * (1 - expected)).sum())
        assert abs(group[chosen].sum() - expected.sum()) < 4.5 * spread
    likelihood = np.log(shares[rows, chosen])
    entropy = -(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1)
    assert abs((likelihood + entropy).mean()) < 4.5 * likelihood.std() / np.sqrt(len(new))


def test_new_choices_are_exactly_the_discoveries() -> None:
    log = canonicalise(read("", SETTINGS))
    examples, _ = build_examples(log, ExamplesConfig(discovery_only=False, targets_per_user=0, history_max=5))
    keyed = examples.select("user_id", "is_discovery", item_id="target_item_id", event_time="cutoff_time")
    found = keyed.join(truth_of("", SETTINGS), on=["user_id", "item_id", "event_time"])
    assert len(found) == len(examples) > 1000 and not found["is_noise"].any()
    assert set(found.filter(pl.col("kind") == "rewatch")["is_discovery"]) == {False}
    assert found["is_discovery"].equals((found["kind"] == "new").alias("is_discovery"))


def test_days_have_a_rhythm_and_households_their_own_pace(made: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    events, _ = made
    by_hour = dict(events["event_time"].dt.hour().value_counts().iter_rows())
    assert by_hour[21] > 5 * by_hour[4]
    assert events["event_time"].min() >= CONFIG.start_time  # type: ignore[operator]
    assert events["event_time"].max() < CONFIG.start_time + dt.timedelta(days=CONFIG.days)  # type: ignore[operator]
    lengths = events.group_by("user_id").len()["len"]
    assert lengths.max() > 3 * lengths.min()  # type: ignore[operator]
    same = (pl.col("user_id") == pl.col("user_id").shift()).fill_null(False)
    assert events.filter(same & (pl.col("event_time") <= pl.col("event_time").shift())).is_empty()


def test_title_words_tell_the_genre_and_drift_moves_tastes() -> None:
    items = make_catalogue(CONFIG).items
    stadium = items.filter(pl.col("title").str.contains("Stadium|Coach|Champion|Olympic"))
    assert stadium.select(pl.col("genres").list.contains("Sport").all()).item() and len(stadium) > 3
    for drift, expected in ((0.0, 1.0), (0.3, np.sqrt(0.7)), (1.0, 0.0)):
        tastes = make_households(dataclasses.replace(CONFIG, drift=drift), np.arange(2000)).affinity[:, 0]
        assert np.corrcoef(tastes[:, 0].ravel(), tastes[:, 1].ravel())[0, 1] == pytest.approx(expected, abs=0.04)


def test_who_has_touched_everything_watches_again() -> None:
    config = SimulatorConfig(users=5, works=3, series_share=0.0, days=60)
    _, truth = whole(config)
    assert set(truth["kind"]) == {"new", "rewatch", "preview", "accidental"}
    assert truth.filter(pl.col("kind") == "new").group_by("user_id").len()["len"].max() <= 3  # type: ignore[operator]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"preview_rat": 0.1}, ["preview_rat", "did you mean preview_rate?"]),
        ({"preview_rate": 1.5}, ["preview_rate = 1.5", "share in [0, 1]"]),
        ({"preview_rate": 0.6, "accidental_rate": 0.5}, ["accidental_rate = 0.5", "no deliberate plays"]),
        ({"members": [0.5, 0.4]}, ["members", "sum to 1"]),
        ({"users": 0}, ["users = 0", "at least 1"]),
        ({"users": "many"}, ["users = 'many'", "int"]),
        ({"start": "yesterday"}, ["'yesterday'", "is not a date"]),
        ({"episodes_min": 9}, ["episodes_max = 8", "below episodes_min"]),
    ],
)
def test_settings_that_make_no_world_are_refused(values: dict[str, object], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        from_mapping(values)
    assert all(word in str(caught.value) for word in words)
