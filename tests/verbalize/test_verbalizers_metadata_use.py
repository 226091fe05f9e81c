"""Fields beside a title: what templates state is read back, and nothing that they do not."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verbalizers_frames import event, frame

from verbalize.verbalizers.metadata_use import FIELDS, beside, fields_beside, present_fields
from verbalize.verbalizers.sanitise import sanitise_history
from verbalize.verbalizers.templates import TEMPLATES, TemplateVerbalizer
from verbalize.verbalizers.text_lines import GenreWords, LineReader

NAMES = ["The Lighthouse Letters", "Copper and Ash", "Rating 4 Stars", "The Glass Beekeeper of 1995", "Salt Road Drama"]
GENRES = ["Drama", "Comedy", "Sci-Fi", "War"]
STATES = {
    "titles": set(),
    "titles_metadata": {"year", "genres"},
    "concatenation": {"date", "event_type", "duration", "rating"},
    "concatenation_metadata": {"date", "event_type", "duration", "rating", "year", "genres"},
    "json": set(FIELDS),
}
details = st.fixed_dictionaries(
    {
        "year": st.one_of(st.none(), st.integers(1870, 2099)),
        "genres": st.one_of(st.none(), st.lists(st.sampled_from(GENRES), unique=True, max_size=3)),
        "rating": st.one_of(st.none(), st.floats(0, 10)),
        "duration_s": st.one_of(st.none(), st.floats(1, 1e5)),
        "completion": st.one_of(st.none(), st.floats(0, 1)),
        "event_type": st.sampled_from(["rating", "play", "short_preview"]),
        "minutes": st.integers(0, 500_000),
    }
)


@given(st.lists(details, min_size=1, max_size=len(NAMES)), st.sampled_from(sorted(STATES)))
@settings(max_examples=150, deadline=None)
def test_what_a_template_states_is_read_back(rows: list[dict[str, Any]], name: str) -> None:
    """Neither less nor more, whatever the title says: one is called "Rating 4 Stars", one names a year, one a genre."""
    history = [event(title, **row) for title, row in zip(NAMES, rows, strict=False)]
    inputs = frame(history)
    events = inputs.select(sanitise_history(pl.col("history"))).to_series()[0].to_list()
    text = TemplateVerbalizer(name).verbalize(inputs)[0]
    found = [
        (title, beside(line, place))
        for line in LineReader(NAMES, GENRES).lines(text)
        for place, (title, _, _) in enumerate(line.mentions)
    ]
    assert [title for title, _ in found] == NAMES[: len(rows)]
    for (_, words), one in zip(found, events, strict=True):
        assert fields_beside(words, one, GenreWords(GENRES)) == present_fields(one) & STATES[name], (words, one)
    assert TEMPLATES[name].fields >= {"title"}


EVENT = event("Due Date", 2010, ["Comedy"], rating=4.0, duration_s=5712.0, completion=0.953, event_type="play")


@pytest.mark.parametrize(
    ("words", "stated"),
    [
        ("(2009; Drama), rated 3", set()),
        ("from the 2010s, 12010, 20101", set()),
        ("on 8 June 2010, 2010-06-08", set()),
        ("8 June 2025", {"date"}),
        ("June 8, 2025", {"date"}),
        ("June 2025", {"date"}),
        ("last Sunday", {"date"}),
        ("4/5", {"rating"}),
        ("4.0 out of 5, 4 stars", {"rating"}),
        ("rated: 4.04", set()),
        ("4 times", set()),
        ("95 min", {"duration"}),
        ("95.2 minutes", {"duration"}),
        ("94 minutes", set()),
        ("watched 95%", {"completion"}),
        ("95.3 %", {"completion"}),
        ("96%", set()),
        ("a play, playful comedies", {"event_type", "genres"}),
        ("playful tragicomedy", set()),
    ],
)
def test_only_the_events_own_values_count(words: str, stated: set[str]) -> None:
    assert fields_beside(words, EVENT, GenreWords(GENRES)) == stated


def test_a_rating_does_not_state_the_type_rating() -> None:
    rated = EVENT | {"event_type": "rating"}
    assert fields_beside(", rating 4.0", rated, GenreWords(GENRES)) == {"rating"}
    assert fields_beside(", Rating, rating 4.0", rated, GenreWords(GENRES)) == {"rating", "event_type"}


def test_titles_in_one_line_share_no_words() -> None:
    reader = LineReader(["Due Date", "Salt Road"], GENRES)
    (line,) = reader.lines("In 2010 Due Date (Comedy) and then Salt Road, rated 4")
    assert [beside(line, 0), beside(line, 1)] == ["In 2010  (Comedy) and then ", ", rated 4"]
