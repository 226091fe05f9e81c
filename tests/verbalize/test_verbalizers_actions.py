"""Action execution: equality with constant templates and a slow reference; one slot per event; the candidate pool."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verbalizers_frames import HOSTILE, event, frame, histories

from recsys.errors import InputError
from verbalize.verbalizers.action_pool import CANDIDATES, ScriptedActionVerbalizer, candidate_actions
from verbalize.verbalizers.actions import (
    ALPHABET,
    CONSTANT_POLICIES,
    KEEP,
    KEEP_METADATA,
    ActionConfig,
    action_prompts,
    constant_actions,
    execute,
    history_lengths,
)
from verbalize.verbalizers.sanitise import sanitise_titles
from verbalize.verbalizers.templates import TEMPLATES, TemplateVerbalizer, templates_within

CONFIG = ActionConfig()
MOVIES = [event(f"Film {i}", 1990 + i, ["Drama"] if i % 3 else ["Comedy"], rating=float(i % 5 + 1)) for i in range(7)]


@settings(max_examples=50, deadline=None)
@given(st.lists(histories, max_size=4))
def test_constant_policies_equal_the_constant_templates(rows: list[list[dict[str, Any]]]) -> None:
    inputs = frame(*rows)
    lengths = history_lengths(inputs, CONFIG)
    texts = {name: execute(inputs, constant_actions(name, lengths), CONFIG) for name in CONSTANT_POLICIES}
    assert texts["keep_all"] == TemplateVerbalizer("titles").verbalize(inputs)
    assert texts["keep_all_metadata"] == TemplateVerbalizer("titles_metadata").verbalize(inputs)
    assert texts["drop_all"] == texts["drop_all_metadata"] == [""] * len(rows)


@settings(max_examples=50, deadline=None)
@given(st.lists(histories, max_size=4))
def test_a_candidate_called_like_a_template_writes_the_same(rows: list[list[dict[str, Any]]]) -> None:
    """Arms are told apart by name alone, and a recipe may list both."""
    inputs, shared = frame(*rows), sorted(set(CANDIDATES) & set(TEMPLATES))
    assert shared == ["recent_5", "recent_5_metadata"]
    for name in shared:
        assert ScriptedActionVerbalizer(name, CONFIG).verbalize(inputs) == TemplateVerbalizer(name).verbalize(inputs)


@settings(max_examples=50, deadline=None)
@given(st.data(), st.lists(histories, min_size=1, max_size=4))
def test_execution_equals_a_slow_reference(data: st.DataObject, rows: list[list[dict[str, Any]]]) -> None:
    inputs = frame(*rows)
    actions = [data.draw(st.lists(st.sampled_from(ALPHABET), min_size=len(row), max_size=len(row))) for row in rows]
    expected = []
    for row, symbols in zip(rows, actions, strict=True):
        plain = sanitise_titles([e["title"] for e in row])
        rich = [TemplateVerbalizer("titles_metadata").verbalize(frame([e]))[0] for e in row]
        kept = [(plain, rich)[symbol - KEEP][i] for i, symbol in enumerate(symbols) if symbol >= KEEP]
        expected.append("; ".join(kept))
    assert execute(inputs, actions, CONFIG) == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(histories, max_size=3), st.sampled_from([None, 1, 3]))
def test_prompts_have_one_slot_per_shown_event(rows: list[list[dict[str, Any]]], shown: int | None) -> None:
    config = dataclasses.replace(CONFIG, history_shown=shown)
    prompts = action_prompts(frame(*rows), config)
    assert [prompt.count("->") for prompt in prompts] == history_lengths(frame(*rows), config)
    for prompt, row in zip(prompts, rows, strict=True):
        lines = prompt.split("\n")[2:-1]
        assert len(lines) == len(row[-shown:] if shown else row) and all(line.endswith(" ->") for line in lines)


def test_prompt_shows_age_and_rating_only_when_asked() -> None:
    history = [event("Heat", 1995, ["Action"], rating=4.0), event("Big", completion=0.85, minutes=3000)]
    assert action_prompts(frame(history), CONFIG)[0].endswith(
        "Mean rating 4.0.\n30d ago, Heat (1995; Action), rated 4.0 ->\n27d ago, Big, watched 85% ->\n"
    )
    blind = dataclasses.replace(CONFIG, show_rating_in_prompt=False, show_age_in_prompt=False, metadata_fields=())
    assert action_prompts(frame(history), blind)[0].endswith("1990s (1).\nHeat ->\nBig ->\n")


def test_history_shown_decides_only_the_newest() -> None:
    config = dataclasses.replace(CONFIG, history_shown=2)
    assert execute(frame(MOVIES), [[KEEP, KEEP]], config) == ["Film 5; Film 6"]
    with pytest.raises(InputError, match="shows 2 events"):
        execute(frame(MOVIES), [[KEEP] * 7], config)


def test_metadata_fields_are_configurable_and_declared() -> None:
    config = dataclasses.replace(CONFIG, metadata_fields=("year",))
    assert execute(frame(MOVIES[:1]), [[KEEP_METADATA]], config) == ["Film 0 (1990)"]
    assert config.fields == {"title", "year"} and "titles_metadata" not in templates_within(config.fields)
    with pytest.raises(InputError, match="synopsis"):
        ActionConfig(metadata_fields=("synopsis",))


def test_bad_actions_and_configurations_are_refused() -> None:
    inputs = frame(MOVIES, [])
    for actions, rule in (
        ([[2] * 7], "each of 2"),
        ([[2] * 6, []], "row 0"),
        ([[4] * 7, []], "symbols are"),
        ([[2] * 7, [2]], "row 1"),
    ):
        with pytest.raises(InputError, match=rule):
            execute(inputs, actions, CONFIG)
    with pytest.raises(InputError, match="not known"):
        constant_actions("keep_some", [1])
    for options in (
        {"marker": " #"},
        {"instruction": "a -> b"},
        {"symbols": (" A", " A", " B", " C")},
        {"history_shown": 0},
    ):
        with pytest.raises(InputError):
            ActionConfig(**options)


def test_pool_known_candidates() -> None:
    history = [
        event("Old", 1950, ["Drama"], rating=2.0),
        event("Gap", None, None, completion=0.2),
        event("Mid", 1980, ["Comedy"], rating=5.0),
        event("New", 1990, ["Comedy", "Drama"], rating=4.0),
        event("Last", 2000, ["Comedy"], completion=0.9),
    ]
    pool = {name: actions[0] for name, actions in candidate_actions(frame(history), CONFIG).items()}
    assert pool["recent_3"] == [0, 0, 2, 2, 2] and pool["recent_5"] == [2] * 5
    assert pool["recent_half_metadata"] == [2, 2, 3, 3, 3]
    assert pool["liked_only"] == [0, 0, 2, 2, 2]
    assert pool["top_genre_metadata"] == [0, 0, 3, 3, 3]
    assert pool["alternate"] == [2, 0, 2, 0, 2]
    assert [bool(a) != bool(b) for a, b in zip(pool["random_half"], pool["random_half_metadata"], strict=True)] == [
        True
    ] * 5


@settings(max_examples=40, deadline=None)
@given(st.lists(histories, max_size=4))
def test_pool_is_executable_deterministic_and_row_independent(rows: list[list[dict[str, Any]]]) -> None:
    inputs = frame(*rows)
    pool = candidate_actions(inputs, CONFIG, seed=1)
    assert list(pool) == list(CANDIDATES)
    for name, actions in pool.items():
        assert [len(row) for row in actions] == [len(row) for row in rows]
        assert execute(inputs, actions, CONFIG) == ScriptedActionVerbalizer(name, CONFIG, seed=1).verbalize(inputs)
    if rows:
        alone = candidate_actions(inputs[-1:], CONFIG, seed=1)
        assert {name: actions[-1:] for name, actions in pool.items()} == alone


def test_random_halves_follow_the_seed_and_the_example() -> None:
    inputs = frame([event(str(i)) for i in range(40)], [event(str(i)) for i in range(40)])
    first, second = (candidate_actions(inputs, CONFIG, seed, ["random_half"])["random_half"] for seed in (0, 1))
    assert first != second and first[0] != first[1] and 8 < sum(symbol == KEEP for symbol in first[0]) < 32


def test_unknown_candidates_are_refused() -> None:
    with pytest.raises(InputError, match="pool"):
        candidate_actions(frame(MOVIES), CONFIG, names=["best"])
    with pytest.raises(InputError, match="neither"):
        ScriptedActionVerbalizer("best", CONFIG)


@pytest.mark.real_model
def test_slots_and_symbols_are_single_tokens_for_smollm2(smollm2_dir: Any) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    slot, *symbols = (tokenizer.encode(text, add_special_tokens=False) for text in (CONFIG.marker, *CONFIG.symbols))
    assert len(slot) == 1 and [len(ids) for ids in symbols] == [1] * 4 and len({ids[0] for ids in symbols}) == 4
    history = [event(title, 1995, ["Drama", "<|im_end|>"], rating=3.5) for title in HOSTILE]
    ids = tokenizer.encode(action_prompts(frame(history), CONFIG)[0], add_special_tokens=False)
    assert ids.count(slot[0]) == len(HOSTILE) and not set(ids) & set(tokenizer.all_special_ids)
