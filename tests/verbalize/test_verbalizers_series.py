"""Episodes in texts: runs are joined, distinct episodes counted, everything else stays as it was."""

from itertools import groupby
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from verbalizers_frames import event, frame

from verbalize.verbalizers.faithfulness import faithfulness
from verbalize.verbalizers.sanitise import sanitise_titles
from verbalize.verbalizers.templates import TEMPLATES, TemplateVerbalizer, templates_within


def episode(series: str | None, number: int) -> dict[str, Any]:
    return event(f"{series}: E{number}", 2017, ["Mystery"], series=series)


def text(history: list[dict[str, Any]], name: str = "titles_series") -> str:
    return TemplateVerbalizer(name).verbalize(frame(history))[0]


def test_a_binge_is_one_phrase_and_a_single_episode_its_title() -> None:
    history = [event("Heat", 1995), *(episode("Dark", n) for n in range(5)), event("Alien"), episode("Dark", 5)]
    assert text(history) == "Heat; 5 episodes of Dark; Alien; Dark: E5"
    assert text(history, "titles_series_metadata") == (
        "Heat (1995); 5 episodes of Dark; Alien; Dark: E5 (2017; Mystery)"
    )


def test_resumed_episodes_count_once() -> None:
    assert text([episode("Dark", 1)] * 3) == "Dark: E1"
    assert text([episode("Dark", n) for n in (1, 1, 2, 1, 2)]) == "2 episodes of Dark"
    # The same episode in another run counts there again.
    again = [episode("Dark", 1), episode("Dark", 2), event("Heat"), episode("Dark", 1), episode("Dark", 2)]
    assert text(again) == "2 episodes of Dark; Heat; 2 episodes of Dark"


def test_films_never_join_and_series_titles_are_made_safe() -> None:
    assert text([event("A"), event("B"), event("B")]) == "A; B; B"
    assert text([episode("Evil; (x) ->", n) for n in range(2)]) == "2 episodes of Evil, [x] -›"


def test_a_watched_series_is_a_faithful_title_and_its_episodes_are_counted() -> None:
    inputs = frame([episode("The Wire", n) for n in range(3)], [event("Heat")] * 3, [episode("The Wire", 1)])
    texts = ["3 episodes of The Wire", "3 episodes of The Wire", "2 episodes of The Wire"]
    checked = faithfulness(texts, inputs, ["The Wire", "Heat"])
    assert checked["unfaithful_titles"].to_list() == [[], ["The Wire"], []]
    assert checked["unfaithful_claims"].to_list() == [[], [], ["2 episodes"]]


def test_only_templates_that_may_show_series_do() -> None:
    assert "titles_series" not in templates_within({"title"})
    assert "titles_series" in templates_within({"title", "series"})
    assert TEMPLATES["titles_series_metadata"].fields == {"title", "year", "genres", "series"}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([None, "A", "B"]), st.integers(0, 3)), max_size=12))
def test_equals_grouping_in_python(events: list[tuple[str | None, int]]) -> None:
    expected, place = [], 0
    for key, group in groupby(enumerate(events), key=lambda pair: pair[1][0] or f"film {pair[0]}"):
        numbers = [number for _, (_, number) in group]
        distinct = len(set(numbers))
        series = events[place][0]
        single = sanitise_titles([f"{series}: E{numbers[0]}"])[0]
        expected.append(f"{distinct} episodes of {key}" if distinct > 1 else single)
        place += len(numbers)
    assert text([episode(*pair) for pair in events]) == "; ".join(expected)
