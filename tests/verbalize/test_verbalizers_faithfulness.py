"""Faithfulness: delimited titles, ordinary words that are titles, counts, genres; our own texts are always faithful."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verbalizers_frames import event, frame, histories

from recsys.errors import InputError
from verbalize.verbalizers.action_pool import CANDIDATES, ScriptedActionVerbalizer
from verbalize.verbalizers.actions import ActionConfig
from verbalize.verbalizers.faithfulness import faithfulness, mentions_target_or_slate
from verbalize.verbalizers.templates import TEMPLATES, TemplateVerbalizer
from verbalize.verbalizers.title_matching import TitleIndex

CATALOGUE = [
    "It",
    "Seven",
    "Big",
    "Big Fish",
    "Rock, The",
    "Action",
    "Sunday",
    "1984",
    "Toy Story",
    "Toy Story 2",
    "...And Justice",
]
GENRES = ["Action", "Comedy", "Drama", "Horror", "Sci-Fi"]
INDEX = TitleIndex(CATALOGUE, GENRES)


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        ("Enjoys Toy Story a lot", ["Toy Story"]),
        ("Toy Story 2; Big", ["Toy Story 2", "Big"]),
        ("toy story, ToyToy Story2", []),
        ("It was Seven in the evening. Big fan. Liked It", []),
        ("Watched Seven, Big, and others", ["Big"]),
        ('Watched "Seven" and *It*', ["Seven", "It"]),
        ("- Seven\n- It\n1. Big", ["Seven", "It", "Big"]),
        ("Seven (1995; Thriller)", ["Seven"]),
        ("Saw The Rock and Rock, The", ["Rock, The"]),
        ("The Rocketeer", []),
        ("Drama, Action, Comedy; 1984 was good", []),
        ("Heat (1995; Action); Alien", []),
        ("20250608, Sunday, Heat, Rating", []),
        ("Sunday; Action (1995)", ["Sunday", "Action"]),
        ("and ...And Justice for all", ["...And Justice"]),
        ("", []),
    ],
)
def test_mentions(text: str, titles: list[str]) -> None:
    assert INDEX.mentions(text) == titles


def test_a_title_of_several_words_that_is_also_a_genre_is_read_as_the_genre() -> None:
    """Unless it stands where titles stand. A text that shows a genre would else assert a film of that name."""
    index = TitleIndex(["Science Fiction", "0:0", "Heat"], ["Science Fiction", "0:0"])
    assert index.mentions("Heat (1995; Action, Science Fiction); Solaris (0:0)") == ["Heat"]
    assert index.mentions("Science Fiction (1995; Drama); 0:0") == ["Science Fiction", "0:0"]
    shown = [event("Solaris", None, ["0:0"])]
    (text,) = TemplateVerbalizer("titles_metadata").verbalize(frame(shown))
    for genres in (None, GENRES):  # also where the catalogue's genres are given and this is none of them
        report = faithfulness([text], frame(shown), ["0:0"], genres)
        assert report.row(0, named=True)["unfaithful_titles"] == []


HISTORY = [
    event("Heat", 1995, ["Action", "Drama"]),
    event("The Rock", 1996, ["Action"]),
    event("It", 1990, ["Horror"]),
    event("Nine Lives of Drama", 2000, []),
]


@pytest.mark.parametrize(
    ("text", "share", "false_titles", "false_claims"),
    [
        ("", 1.0, [], []),
        ("Heat; Rock, The; It", 1.0, [], []),
        ("Heat; Big Fish", 0.5, ["Big Fish"], []),
        ("4 events. Action (2), Horror (1)", 1.0, [], []),
        ("5 events. Action (3)", 0.0, [], ["5 events", "Action (3)"]),
        ("Saw 2 films; at times 2 Action films, 1 Drama film", 1.0, [], []),
        ("Saw 9 films", 0.0, [], ["9 films"]),
        ("Loves Comedy and Horror", 0.5, [], ["Comedy"]),
        ("Never watches Comedy.", 1.0, [], []),
        ("Nine Lives of Drama", 1.0, [], []),
        ("Sci-Fi", 0.0, [], ["Sci-Fi"]),
    ],
)
def test_claims(text: str, share: float, false_titles: list[str], false_claims: list[str]) -> None:
    row = faithfulness([text], frame(HISTORY), CATALOGUE, GENRES).row(0, named=True)
    assert row["share_faithful"] == pytest.approx(share)
    assert (row["unfaithful_titles"], row["unfaithful_claims"]) == (false_titles, false_claims)


def test_every_template_and_candidate_is_faithful_on_ordinary_titles() -> None:
    titles = [*CATALOGUE, "Heat", "Drama", "Comedy", "Batman & Robin", "M", "Se7en", "Seven Years in Tibet", "Toy"]
    row = [event(t, 1980 + i, GENRES[i % 5 : i % 5 + 2], rating=3.0, minutes=40 * i) for i, t in enumerate(titles)]
    inputs = frame(row[::2], row[1::2], row[:5])
    verbalizers = [TemplateVerbalizer(name) for name in TEMPLATES]
    verbalizers += [ScriptedActionVerbalizer(name, ActionConfig()) for name in CANDIDATES]  # type: ignore[misc]
    for verbalizer in verbalizers:
        report = faithfulness(verbalizer.verbalize(inputs), inputs, titles, GENRES)
        assert report["share_faithful"].to_list() == [1.0] * 3, (verbalizer.name, report.rows())


@settings(max_examples=40, deadline=None)
@given(st.lists(histories, max_size=3))
def test_executed_hostile_histories_assert_only_their_own_titles(rows: list[list[dict[str, Any]]]) -> None:
    inputs = frame(*rows)
    for name in ("titles", "titles_metadata"):
        report = faithfulness(TemplateVerbalizer(name).verbalize(inputs), inputs, CATALOGUE, GENRES)
        assert report["unfaithful_titles"].list.len().sum() == 0


def test_another_users_text_is_caught() -> None:
    inputs = frame([event("Toy Story"), event("Big Fish")], [event("Heat")])
    texts = TemplateVerbalizer("titles").verbalize(inputs)
    assert faithfulness(texts[::-1], inputs, CATALOGUE)["share_faithful"].to_list() == [0.0, 0.0]


def test_audit_of_target_and_slate() -> None:
    items = pl.DataFrame({"item_id": list("abcd"), "title": ["Toy Story", "Big Fish", "The Rock", "Heat"]})
    examples = frame([event("Rock, The")], [event("Heat")]).with_columns(
        target_item_id=pl.Series(["a", "b"]), slate=pl.Series([["a", "b", "c"], ["b", "c"]])
    )
    audit = mentions_target_or_slate(["Toy Story; Rock, The", "Heat"], examples, items)
    assert audit.rows() == [("e0", True, 1, 1), ("e1", False, 0, 0)]
    with pytest.raises(InputError, match="not in the items"):
        mentions_target_or_slate(["", ""], examples, items[:2])


def test_a_text_per_row() -> None:
    with pytest.raises(InputError, match="1 inputs"):
        faithfulness([], frame(HISTORY), CATALOGUE)
