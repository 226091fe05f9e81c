"""What texts do: counted by hand, held against executed actions and a known ratio; and how the report shows it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Finished
from hypothesis import given, settings
from hypothesis import strategies as st
from report_sample import sample_report
from test_report_html import Page
from verbalizers_frames import event, frame

from recsys.seeding import rng
from recsys.storage import read_json, write_json
from verbalize.recipe_sections import LEARNED
from verbalize.report.console import render_console
from verbalize.report.data import ReportData
from verbalize.report.estimators import ratio_of_means
from verbalize.report.html import render_html
from verbalize.report.sets import combined
from verbalize.report.store import load, save
from verbalize.report.tables import frames_of
from verbalize.report.text_traits import summarise_traits, traits_of_texts
from verbalize.stages.evaluate import SHUFFLED
from verbalize.stages.report_texts import noise_parts, text_traits
from verbalize.verbalizers.actions import ActionConfig, execute

FILMS = [
    f"The {colour} {thing}" for colour in ("Red", "Blue", "Grey") for thing in ("Ferry", "Road", "Letters", "Hill")
]


def history(first: int, n: int = 4) -> list[dict]:
    films = [FILMS[(first + place) % len(FILMS)] for place in range(n)]
    return [event(film, 1990 + place, ["Drama"], rating=4.0, minutes=place) for place, film in enumerate(films)]


def examples(*histories: Sequence[dict], users: Sequence[str] | None = None) -> pl.DataFrame:
    owners = list(users or (f"u{place}" for place in range(len(histories))))
    return frame(*histories).with_columns(user_id=pl.Series(owners, dtype=pl.String))


def texts(**arms: Sequence[str]) -> pl.DataFrame:
    """Verbalizations of e0, e1, ...; `arm__1` stands for the seed `arm@1`."""
    rows = [
        (f"e{place}", arm.replace("__", "@"), text, 5, 10, 0.5)
        for arm, written in arms.items()
        for place, text in enumerate(written)
    ]
    names = ["example_id", "verbalizer", "text", "tokens", "log_tokens", "compression"]
    return pl.DataFrame(rows, schema=names, orient="row")


def values(parts: pl.DataFrame) -> dict[str, dict[str, float]]:
    found = summarise_traits(parts, resamples=50)
    return {arm: dict(mine.select("measure", "value").rows()) for (arm,), mine in found.group_by("arm")}


def test_every_measure_of_a_small_corpus_by_hand() -> None:
    """Three users, four films each: the words are chosen so that no two measures agree by accident."""
    shown = examples(history(0), history(1), history(2))
    written = [
        "The Red Ferry (1990); The Red Road. Loves films with a heart. Saw 3 films",
        "The Red Road (1990), rated 4. Loves films with a heart. Saw it twice",
        "Drama (4); Sits and stares at walls; sits and stares at walls; sits and stares at walls; The Grey Hill",
    ]
    found = values(traits_of_texts(texts(free=written), shown, FILMS))["free"]
    # The third text names a film that is not in its history.
    assert found["events_kept"] == 3 / 12 and found["faithful"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert found["beside.year"] == 2 / 3 and found["beside.rating"] == 1 / 3 and found["beside.genres"] == 0
    # Lines: 4, 3 and 5. Counts: "3 films", "twice", "Drama (4)". Summaries: "saw N films" and "G (N)".
    assert found["aggregated"] == 3 / 12 and found["summaries"] == 2 / 12
    assert found["line_pattern"] == 3 / 12 and found["text_pattern"] == 1 / 3
    assert found["repeats"] == 1 / 3 and found["length"] == 0.5
    # Two of three users read "loves films with a heart"; other own words: saw films, rated, saw it twice, 3 * 5.
    assert found["shared"] == 10 / (10 + 2 + 1 + 3 + 15)
    assert found["distinct_4"] < 1


@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=3, max_size=5))
@settings(max_examples=25, deadline=None)
def test_executed_actions_are_counted_as_they_were_chosen(actions: list[list[int]]) -> None:
    shown = examples(*(history(place) for place in range(len(actions))))
    written = execute(shown.drop("user_id"), actions, ActionConfig())
    found = values(traits_of_texts(texts(learned=written), shown, FILMS))["learned"]
    flat = [action for row in actions for action in row]
    kept, with_metadata = sum(action >= 2 for action in flat), sum(action == 3 for action in flat)
    assert found["events_kept"] == pytest.approx(kept / len(flat)) and found["faithful"] == 1
    if kept:
        assert found["beside.year"] == found["beside.genres"] == pytest.approx(with_metadata / kept)
        assert found["line_pattern"] == pytest.approx(max(with_metadata, kept - with_metadata) / kept)
        assert found["beside.rating"] == found["beside.date"] == found["aggregated"] == found["summaries"] == 0
    else:
        assert set(found) == {"events_kept", "length", "faithful"}  # empty texts have no lines to speak of


def test_other_users_texts_keep_nothing_but_share_the_syntax() -> None:
    shown = examples(*(history(4 * place) for place in range(3)))
    own = ["; ".join(f"{one['title']} ({one['year']})" for one in history(4 * place)) for place in range(3)]
    found = values(traits_of_texts(texts(titles=own, shuffled=own[1:] + own[:1]), shown, FILMS))
    assert found["titles"]["events_kept"] == 1 and found["shuffled"]["events_kept"] == 0
    assert found["titles"]["faithful"] == 1 and found["shuffled"]["faithful"] == 0
    assert found["shuffled"]["line_pattern"] == found["titles"]["line_pattern"] == 1


def test_seeds_are_one_arm_and_each_has_its_own_syntax() -> None:
    shown = examples(history(0), history(1), history(2))
    plain = [one[0]["title"] for one in (history(0), history(1), history(2))]
    dated = [f"{title} (1990)" for title in plain]
    found = values(traits_of_texts(texts(learned=plain, learned__1=dated), shown, FILMS))
    assert set(found) == {"learned"} and found["learned"]["line_pattern"] == 1
    assert found["learned"]["beside.year"] == 0.5 and found["learned"]["events_kept"] == 1 / 4


def test_a_crowd_is_more_than_two_users_and_equal_titles_are_met_in_order() -> None:
    twice = [event("The Red Ferry", 1990, minutes=0), event("The Red Ferry", 1990, minutes=1)]
    parts = traits_of_texts(texts(a=["They like it"] * 2, b=["The Red Ferry"] * 2), examples(twice, twice), FILMS)
    found = values(parts)
    assert "shared" not in found["a"] and found["b"]["events_kept"] == 0.5
    three = values(traits_of_texts(texts(a=["They like it"] * 3), examples(*[twice] * 3), FILMS))
    assert three["a"]["shared"] == 1
    same = examples(*[twice] * 4, users=["u0", "u0", "u1", "u2"])  # two texts of one user are one user
    half = values(traits_of_texts(texts(a=["Likes it", "Likes it", "Odd one", "New words"]), same, FILMS))
    assert half["a"]["shared"] == 0


def test_a_title_without_letters_is_asked_of_nobody() -> None:
    shown = examples([event("???", 1990), event("The Red Ferry", 1991)])
    assert values(traits_of_texts(texts(a=["???; The Red Ferry"]), shown, FILMS))["a"]["events_kept"] == 1


def test_the_interval_is_that_of_a_ratio_over_users() -> None:
    """The ledger's estimator of a ratio of sums, on the same users and resamples."""
    generator = rng("test", "traits")
    rows = [
        ("a", f"e{place:03d}", f"u{place // 3:02d}", "repeats", float(generator.integers(0, whole + 1)), float(whole))
        for place, whole in enumerate(generator.integers(1, 6, 60))
    ]
    parts = pl.DataFrame(rows, schema=["arm", "example_id", "user_id", "measure", "part", "whole"], orient="row")
    found = summarise_traits(parts, resamples=400).row(0, named=True)
    long = parts.drop("arm").unpivot(["part", "whole"], index=["example_id", "user_id"], variable_name="arm")
    long = long.rename({"example_id": "example", "user_id": "user"}).with_columns(seed=pl.lit(0, pl.Int64))
    known = ratio_of_means(long, "part", "whole", resamples=400)
    assert (found["value"], found["low"], found["high"]) == pytest.approx((known.value, known.low, known.high))
    assert found["texts"] == 60 and found["users"] == 20 and found["low"] < found["value"] < found["high"]
    alone = summarise_traits(parts.filter(pl.col("user_id") == "u00"), resamples=10).row(0, named=True)
    assert alone["low"] is None and np.isfinite(alone["value"])


def test_noise_is_taken_from_the_oracle_alone() -> None:
    counts = {"shown": [10.0, 6.0], "noise": [4.0, 0.0], "dropped": [5.0, 2.0], "noise_dropped": [3.0, 0.0]}
    noise = pl.DataFrame(
        [(f"e{i}", f"u{i}", name, 0, value) for name, pair in counts.items() for i, value in enumerate(pair)],
        schema=["example_id", "user_id", "arm", "seed", "value"],
        orient="row",
    )
    found = {row["measure"]: row for row in summarise_traits(noise_parts(noise), resamples=20).iter_rows(named=True)}
    assert found["noise_kept"]["value"] == 1 / 4 and found["noise_kept"]["users"] == 1  # e1 has none to keep
    assert found["signal_kept"]["value"] == (4 + 4) / (6 + 6) and found["signal_kept"]["arm"] == LEARNED


@pytest.fixture(scope="module")
def shown_data() -> ReportData:
    hostile = "<script>1</script>\u202e"
    parts = traits_of_texts(texts(**{hostile: ["The Red Ferry"] * 3}), examples(*[history(0)] * 3), FILMS)
    learned = traits_of_texts(texts(actions=["The Red Ferry (1990)"] * 3), examples(*[history(0)] * 3), FILMS)
    return dataclasses.replace(
        sample_report(users=20), traits=summarise_traits(pl.concat([parts, learned]), resamples=20)
    )


def test_the_report_shows_stores_and_exports_them(shown_data: ReportData, tmp_path: Path) -> None:
    html, console = render_html(shown_data), render_console(shown_data)
    page = Page(html)
    words = " ".join(page.words)
    assert page.open == [] and "#texts" in {a.get("href") for tag, a in page.tags if tag == "a"}
    assert "What the texts do" in words and "25.0%" in words and "[25.0%, 25.0%]" in words
    assert "<script>1" not in html and "\u202e" not in html and "\u202e" not in console
    (line,) = [line for line in console.splitlines() if line.startswith("* actions") and "%" in line.split()[2]][:1]
    assert line.split()[2] == "25.0%"
    assert "Beside a kept title" in console and render_console(sample_report(20)).count("Beside a kept title") == 0
    save(shown_data, tmp_path / "report.json")
    assert render_html(load(tmp_path / "report.json")) == html
    assert frames_of(shown_data)["texts"].equals(shown_data.traits)
    older = {key: part for key, part in read_json(tmp_path / "report.json").items() if key != "traits"}
    write_json(older, tmp_path / "older.json")
    assert render_html(load(tmp_path / "older.json")) == render_html(sample_report(users=20))
    both = combined({"a": shown_data, "b": sample_report(users=20)})
    assert "a: actions" in both.traits["arm"].to_list() and len(both.traits) == len(shown_data.traits)


def test_a_run_measures_its_own_texts(finished: Finished) -> None:
    """Faithfulness is the audit's own; what the templates keep is known; nothing but the report's key is new."""
    stages = finished.result.stages
    stored = load(stages["report"] / "report.json").traits
    assert stored.equals(text_traits({name: stages[name] for name in ("logs", "examples", "evaluate")}))
    found = {(arm, measure): value for arm, measure, value in stored.select("arm", "measure", "value").rows()}
    audits = read_json(stages["evaluate"] / "done.json")["facts"]["audits"]["texts"]
    for arm in ("concatenation", SHUFFLED):
        assert found[arm, "faithful"] == pytest.approx(audits[f"{arm}@0"]["faithful"])
    seeds = [audits[f"{LEARNED}@{seed}"]["faithful"] for seed in (0, 1)]
    assert found[LEARNED, "faithful"] == pytest.approx(sum(seeds) / 2)
    assert found["concatenation", "events_kept"] == found["concatenation", "line_pattern"] == 1
    assert found["concatenation", "beside.rating"] == found["concatenation", "beside.date"] == 1
    assert found["concatenation", "beside.year"] == 0 and found[SHUFFLED, "events_kept"] < 0.5
    assert "What the texts do" in (finished.result.folder / "report.txt").read_text()
