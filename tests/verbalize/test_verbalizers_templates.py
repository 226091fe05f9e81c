"""Templates: golden texts, null safety under hostile histories, structure, declared fields, laziness."""

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verbalizers_frames import event, frame, histories

from recsys.errors import InputError
from verbalize.verbalizers.base import Verbalizer
from verbalize.verbalizers.sanitise import sanitise_titles
from verbalize.verbalizers.templates import TEMPLATES, TemplateVerbalizer, candidate_texts, templates_within

HISTORY = [
    event("Toy Story", 1995, ["Animation", "Comedy"], rating=4.0),
    event("Big", None, None, event_type="play", duration_s=4804.8, completion=0.9, minutes=20),
    event("Alien", 1979, ["Horror"], rating=5.0, minutes=120),
]
GOLDEN = {
    "concatenation": "20250608, Sunday, Toy Story, Rating, rating 4.0\n"
    "20250608, Sunday, Big, Play, Duration: 80.08 min\n20250608, Sunday, Alien, Rating, rating 5.0",
    "concatenation_metadata": "20250608, Sunday, Toy Story (1995; Animation, Comedy), Rating, rating 4.0\n"
    "20250608, Sunday, Big, Play, Duration: 80.08 min\n20250608, Sunday, Alien (1979; Horror), Rating, rating 5.0",
    "titles": "Toy Story; Big; Alien",
    "titles_metadata": "Toy Story (1995; Animation, Comedy); Big; Alien (1979; Horror)",
    "sessions": "Sunday 8 June 2025: Toy Story; Big.\nSunday 8 June 2025: Alien.",
    "recent_5": "Toy Story; Big; Alien",
    "recent_10": "Toy Story; Big; Alien",
    "recent_5_metadata": "Toy Story (1995; Animation, Comedy); Big; Alien (1979; Horror)",
    "recent_10_metadata": "Toy Story (1995; Animation, Comedy); Big; Alien (1979; Horror)",
    "profile": "3 events. Top genres: Animation (1), Comedy (1), Horror (1). Median year 1987, decades 1970s (1), "
    "1990s (1). Mean rating 4.5.",
    "profile_unrated": "3 events. Top genres: Animation (1), Comedy (1), Horror (1). "
    "Median year 1987, decades 1970s (1), 1990s (1).",
    "profile_recent": "3 events. Top genres: Animation (1), Comedy (1), Horror (1). "
    "Median year 1987, decades 1970s (1), 1990s (1). Mean rating 4.5. Recent: Toy Story; Big; Alien.",
    "profile_recent_unrated": "3 events. Top genres: Animation (1), Comedy (1), Horror (1). "
    "Median year 1987, decades 1970s (1), 1990s (1). Recent: Toy Story; Big; Alien.",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    assert TemplateVerbalizer(name).verbalize(frame(HISTORY)) == [GOLDEN[name]]


def test_json_parses_and_leaves_missing_fields_out() -> None:
    rows = json.loads(TemplateVerbalizer("json").verbalize(frame(HISTORY))[0])
    assert rows[1] == {"title": "Big", "date": "2025-06-08", "event": "play", "duration_s": 4804.8, "completion": 0.9}
    assert rows[0]["genres"] == ["Animation", "Comedy"] and rows[0]["rating"] == 4.0


@settings(max_examples=60, deadline=None)
@given(st.lists(histories, min_size=1, max_size=4))
def test_every_template_survives_hostile_histories(rows: list[list[dict[str, Any]]]) -> None:
    inputs = frame(*rows, [], None)
    texts = {name: TemplateVerbalizer(name).verbalize(inputs) for name in TEMPLATES}
    for name, column in texts.items():
        assert len(column) == len(rows) + 2 and column[-2:] == ["", ""], name
        assert all(bool(text) == bool(row) for text, row in zip(column, rows, strict=False)), name
        again = [TemplateVerbalizer(name).verbalize(inputs[i : i + 1])[0] for i in range(len(inputs))]
        assert column == again, f"{name} depends on the other rows"
    for i, row in enumerate(rows):
        if row:
            safe = sanitise_titles([e["title"] for e in row])
            assert texts["titles"][i].split("; ") == safe
            assert texts["concatenation"][i].count("\n") == len(row) - 1
            assert [e["title"] for e in json.loads(texts["json"][i])] == safe
            assert texts["profile"][i].startswith(f"{len(row)} event")


def test_recent_truncates_to_the_newest() -> None:
    inputs = frame([event(str(i), 1990 + i) for i in range(12)])
    assert TemplateVerbalizer("recent_5").verbalize(inputs) == ["7; 8; 9; 10; 11"]
    assert TemplateVerbalizer("recent_10").verbalize(inputs) == ["2; 3; 4; 5; 6; 7; 8; 9; 10; 11"]
    dated = "; ".join(f"{i} ({1990 + i})" for i in range(2, 12))
    assert TemplateVerbalizer("recent_10_metadata").verbalize(inputs) == [dated]
    for name in ("profile_recent", "profile_recent_unrated"):
        assert TemplateVerbalizer(name).verbalize(inputs)[0].endswith(" Recent: 9; 10; 11.")
    assert TemplateVerbalizer("titles", recent=2).verbalize(inputs) == ["10; 11"]
    assert TemplateVerbalizer("titles", recent=2).name == "titles@2"


def test_profile_ties_do_not_depend_on_event_order() -> None:
    events = [event("A", 1990, ["Z", "Y"]), event("B", 1980, ["X"]), event("C", 1970, ["Y"])]
    forward, backward = TemplateVerbalizer("profile").verbalize(frame(events, events[::-1]))
    assert (
        forward
        == backward
        == ("3 events. Top genres: Y (2), X (1), Z (1). Median year 1980, decades 1970s (1), 1980s (1).")
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_declared_fields_are_the_only_ones_that_matter(name: str) -> None:
    """A field that a template does not declare must not change its text: the fair-comparison rule relies on it."""
    other = {
        "title": "Other",
        "year": 1930,
        "genres": ["Western"],
        "rating": 1.0,
        "duration_s": 60.0,
        "completion": 0.1,
    }
    other |= {"event_type": "click", "event_time": HISTORY[0]["event_time"].replace(year=2020), "item_id": "other"}
    undeclared = {key: value for key, value in other.items() if key not in TEMPLATES[name].fields}
    first, second = TemplateVerbalizer(name).verbalize(frame(HISTORY, [HISTORY[0] | undeclared, *HISTORY[1:]]))
    assert first == second
    declared = {key: value for key, value in other.items() if key in TEMPLATES[name].fields}
    for key, value in declared.items():
        changed = TemplateVerbalizer(name).verbalize(frame([HISTORY[0] | {key: value}, *HISTORY[1:]]))
        assert changed != [first], f"{name} declares {key} and never shows it"


def test_lazy_and_empty_frames() -> None:
    lazy = frame(HISTORY).lazy().select(text=TEMPLATES["titles"].expression())
    assert lazy.collect_schema() == {"text": pl.String} and lazy.collect()["text"].to_list() == [GOLDEN["titles"]]
    for name in TEMPLATES:
        assert TemplateVerbalizer(name).verbalize(frame()) == []


def test_protocol_guard_and_errors() -> None:
    assert isinstance(TemplateVerbalizer("titles"), Verbalizer)
    with pytest.raises(InputError, match="target leaks"):
        TemplateVerbalizer("titles").verbalize(frame(HISTORY).with_columns(target_item_id=pl.lit("x")))
    with pytest.raises(InputError, match="concatenation"):
        TemplateVerbalizer("nonsense")
    with pytest.raises(InputError, match="at least one"):
        TemplateVerbalizer("titles", recent=0)


def test_templates_within_the_fields_of_the_action_verbalizer() -> None:
    names = templates_within({"title", "year", "genres"})
    assert {"titles", "titles_metadata", "recent_5", "profile_unrated"} <= set(names)
    assert not {"profile", "concatenation", "json", "sessions"} & set(names)


@given(st.lists(histories, max_size=3))
@settings(max_examples=5, deadline=None)
def test_candidate_texts_are_those_of_each_template(rows: list[list[dict[str, Any]]]) -> None:
    inputs = frame(*rows)
    names = ["concatenation", "titles_metadata", "recent_5"]
    texts = candidate_texts(inputs, names)
    assert texts.columns == names
    for name in names:
        assert texts[name].to_list() == TemplateVerbalizer(name).verbalize(inputs)
    with pytest.raises(InputError, match="not a known template"):
        candidate_texts(inputs, ["titles", "haiku"])
