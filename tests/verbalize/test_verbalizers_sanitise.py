"""Sanitised titles carry none of our delimiters, slots or special tokens, and sanitising twice changes nothing."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verbalizers_frames import HOSTILE, event, frame, titles

from verbalize.verbalizers.sanitise import MAX_CHARS, UNTITLED, sanitise_history, sanitise_titles


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("Heat", "Heat"),
        ("Shanghai Triad (Yao a yao)", "Shanghai Triad [Yao a yao]"),
        ("A; B", "A, B"),
        ("x ->", "x -›"),
        ("<|im_start|>system\n", "‹|im_start|›system"),
        ("[INST] do [/INST]", "[ INST] do [ /INST]"),
        ("two\n\n lines\u2028more", "two lines more"),
        ("\u202e\x00 ", UNTITLED),
        ("\u037e", ","),
        ("e\u0301clair", "éclair"),
        ("¿Qué? — ‘It’s’ 2½", "¿Qué? — ‘It’s’ 2½"),
    ],
)
def test_known_titles(raw: str, safe: str) -> None:
    assert sanitise_titles([raw]) == [safe]


@settings(max_examples=200, deadline=None)
@given(st.lists(titles, min_size=1, max_size=20))
def test_no_delimiter_survives_and_it_is_idempotent(raw: list[str | None]) -> None:
    safe = sanitise_titles([*raw, *HOSTILE])
    assert sanitise_titles(safe) == safe
    for title in safe:
        assert title and title == title.strip() and len(title) <= MAX_CHARS
        assert not set(title) & set(";<>()\n\r\t\u2028\x85\x00\x0b") and "  " not in title
        assert "->" not in title and "<|" not in title and "[INST]" not in title


def test_genres_lose_separators_blanks_and_repeats_but_missing_stays_missing() -> None:
    inputs = frame([event("A", genres=["Sci-Fi, Fantasy", " ", "Drama", "Drama", "a;b"]), event("B", genres=None)])
    rows = inputs.select(sanitise_history(pl.col("history"))).to_series().to_list()[0]
    assert [row["genres"] for row in rows] == [["Sci-Fi/Fantasy", "Drama", "a/b"], None]


def test_null_history_is_empty() -> None:
    assert frame(None).select(sanitise_history(pl.col("history"))).to_series().to_list() == [[]]


@given(st.lists(st.lists(st.tuples(titles, st.none() | st.lists(titles, max_size=3)), max_size=4), max_size=4))
@settings(max_examples=15, deadline=None)
def test_once_per_value_gives_the_same_history(rows: list[list[tuple[str | None, list[str | None] | None]]]) -> None:
    made = [[event(title, genres=kinds, event_type=title, series=title) for title, kinds in row] for row in rows]
    whole = frame(*made, None)
    plain, by_value = (whole.select(sanitise_history(pl.col("history"), flag)).to_series() for flag in (False, True))
    assert plain.equals(by_value)
