"""Lines and patterns: where lines end, what is masked, and that no title changes either."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verbalizers_frames import HOSTILE, event, frame

from verbalize.verbalizers.actions import ActionConfig, execute
from verbalize.verbalizers.sanitise import sanitise_titles
from verbalize.verbalizers.text_lines import LineReader, distinct_ngrams, repeats_phrase
from verbalize.verbalizers.title_matching import TitleIndex

TITLES = ["Toy Story", "The Rock", "Due Date", "Big Fish", "Alien"]
READER = LineReader(TITLES, ["Drama", "Comedy", "Sci-Fi", "War"])
TRAPS = [
    "Wait. What? No! (1999)",
    "5 episodes of Nothing",
    "Drama (3) films",
    "Big Fish; Alien",
    "x3 and 4×",
    "Sunday, 8 June 2025",
    "{brace}, {brace}",
    "Said Twice said Twice said Twice said",
    *HOSTILE,
]


def patterns(text: str) -> list[str]:
    return [line.pattern for line in READER.lines(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" ;\n . ", []),
        ("Toy Story; Alien\nThe Rock (1996; Drama, War); Big Fish (2003)", ["T", "T", "T (Y; G)", "T (Y)"]),
        (
            "20250608, Sunday, Alien, Play, Duration: 80.08 min, rating 4.0",
            ["N, D, T, play, duration: N min, rating N"],
        ),
        (
            '[{"title":"Alien","year":1979,"genres":["War","Drama"]}, {"title":"Big Fish"}]',
            ['[{"title":"T","year":Y,"genres":["G"]}', '{"title":"T"}]'],
        ),
        ("1. Toy Story\n2. The Rock!", ["N. T", "N. T"]),
        ("Likes Toy Story, The Rock and Big Fish. Rates 4.5 of 5", ["likes T", "rates N of N"]),
        ("Top genres: Drama (5), Comedy (3), War (1). 1990s (8), 1980s (4)", ["top genres: G (N)", "Ys (N)"]),
        ("Loves comedies, dramas & science from 1990; no tragicomedy", ["loves G & science from Y", "no tragicomedy"]),
        ("Sunday 8 June 2025: The Rock. In 2001/02, 1850 and x3", ["D N D Y: T", "in N, Y and xN"]),
        ("Saw seven films (all; in one sitting) in March", ["saw N films (all; in one sitting) in D"]),
        ("TGDYN tgdyn", ["tgdyn tgdyn"]),
    ],
)
def test_lines_and_patterns(text: str, expected: list[str]) -> None:
    assert patterns(text) == expected


@given(st.lists(st.sampled_from([*TRAPS, *TITLES, "; ", ". ", "\n", " (", ") ", "Drama", "7", "\x00"]), max_size=12))
@settings(max_examples=150, deadline=None)
def test_every_mention_is_in_one_line_and_no_word_is_lost(pieces: list[str]) -> None:
    text = "".join(pieces)
    reader = LineReader(TRAPS, ["Drama"])
    lines = reader.lines(text)
    mentioned = [title for line in lines for title, _, _ in line.mentions]
    assert mentioned == [title for title, _, _ in TitleIndex(TRAPS, ["Drama"]).spans(text)]
    spelled = [line.text[begin:end] for line in lines for _, begin, end in line.mentions]
    assert all(form in text for form in spelled)

    def letters(some: str) -> list[str]:
        return [letter for letter in some if letter.isalnum()]

    assert [letter for line in lines for letter in letters(line.text)] == letters(text)


@given(st.lists(st.sampled_from(TRAPS), min_size=1, max_size=6), st.data())
@settings(max_examples=80, deadline=None)
def test_no_title_changes_the_pattern_of_an_executed_action(titles: list[str], data: st.DataObject) -> None:
    """A title may read like a count, a summary, an end of a line or a slot: its line stays `T`, with metadata or not.

    Titles without a letter or digit, or of one word, are not found everywhere (`title_matching`) and left out.
    """
    safe = [title for title in sanitise_titles(titles) if len(title.replace("-", " ").split()) > 1]
    history = [event(title, 1990, ["Drama", "War"]) for title in safe]
    actions = data.draw(st.lists(st.sampled_from([2, 3]), min_size=len(safe), max_size=len(safe)))
    text = execute(frame(history), [actions], ActionConfig())[0]
    reader = LineReader(safe, ["Drama", "War"])
    found = [line.pattern for line in reader.lines(text)]
    assert found == ["T (Y; G)" if action == 3 else "T" for action in actions]


def test_loops_and_phrases_are_told_from_metadata() -> None:
    assert distinct_ngrams(READER.lines("Alien\n" * 10)) == (1, 7)
    assert distinct_ngrams(READER.lines("Toy Story; The Rock; Big Fish")) == (0, 0)  # a title is one word
    log = "20250608, Sunday, Alien, Rating, rating 4.0\n" * 9
    assert not repeats_phrase(READER.lines(log))
    assert not repeats_phrase(READER.lines("Alien (1979; Drama, War, Sci-Fi, Comedy); " * 9))
    for text, expected in (
        ("good good good good good good", True),  # six words hold the phrase of four three times
        ("good good good good good", False),
        ("they really like to laugh. " * 3, True),
        ("they really like to laugh. " * 2, False),
        ("they like 1990 films; " * 5, False),  # a mask ends the row
    ):
        assert repeats_phrase(READER.lines(text)) is expected, text
