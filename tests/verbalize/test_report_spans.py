"""What a text keeps, states and adds of its history."""

from hypothesis import given, settings
from hypothesis import strategies as st
from verbalizers_frames import event, frame, titles

from verbalize.report.spans import read_text
from verbalize.verbalizers.actions import ActionConfig, execute

FILMS = ["The Lighthouse Letters", "Copper and Ash", "Night Ferry", "The Glass Beekeeper", "Salt Road"]


@given(st.text(max_size=60), st.lists(titles, max_size=5))
@settings(max_examples=60, deadline=None)
def test_stretches_join_to_the_text(text: str, names: list[str | None]) -> None:
    history = [event(name, 1990, ["Drama"]) for name in names]
    joined = "; ".join([text, *(name or "" for name in names)])
    reading = read_text(joined, history)
    assert "".join(span.text for span in reading.spans) == joined
    assert set(reading.kept) <= set(range(len(history))) and list(reading.kept) == sorted(set(reading.kept))
    assert {span.event for span in reading.spans if span.kind == "kept"} == set(reading.kept)


@given(st.lists(st.integers(0, 3), min_size=len(FILMS), max_size=len(FILMS)))
@settings(max_examples=40, deadline=None)
def test_executed_actions_are_read_back(actions: list[int]) -> None:
    """The slots that the executor kept, and no word besides titles, years and genres."""
    history = [event(title, 1980 + i, ["Drama", "War"], minutes=i) for i, title in enumerate(FILMS)]
    config = ActionConfig()
    text = execute(frame(history), [actions], config)[0]
    reading = read_text(text, history)
    assert list(reading.kept) == [i for i, action in enumerate(actions) if action >= 2]
    assert reading.added == 0


def test_equal_titles_are_met_in_order_and_facts_are_the_logs_own() -> None:
    log = [event("Night Ferry", 1991, ["War"], rating=4.0), event("Salt Road", 1992), event("Night Ferry", 1991)]
    assert read_text("Night Ferry", log).kept == (0,)
    assert read_text("Night Ferry; Night Ferry; Night Ferry", log).kept == (0, 2)
    reading = read_text("Salt Road (1992; Comedy), rating 4.0 on a Sunday", log)
    kinds = {span.text: span.kind for span in reading.spans if span.kind != "plain"}
    assert kinds == {
        "Salt Road": "kept",
        "1992": "fact",
        "Comedy": "added",
        "rating": "fact",
        "4.0": "fact",
        "on": "added",
        "a": "added",
        "Sunday": "fact",
    }
    assert reading.added == 3 and read_text("", log).spans == ()
