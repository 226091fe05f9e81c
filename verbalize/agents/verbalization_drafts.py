"""A verbalization in the making: a history cut into sessions, what is kept of it and how, and the text it stands for.

Everything here is a pure function of the history: no target, slate or score is known to it. A draft holds one symbol
per event, those of the action verbalizer, and how the kept events are grouped. The same executor writes its text, so it
can only say what the history holds. Ungrouped it is the action verbalizer's text byte for byte; grouped, each group is
executed by itself:

    by genre    "Drama: Heat; Alien. Comedy: Big"    an event counts to its first genre, groups in order of appearance
    by series   "5 episodes of Dark; Heat"           all kept episodes of a series as one phrase, where it begins

A session ends where the next event comes more than `session_gap_minutes` later. Of more than `max_sessions` the
smallest gaps are closed again, so that a list of actions stays short.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import polars as pl

from recsys.errors import InputError
from verbalize.verbalizers import template_expressions as expressions
from verbalize.verbalizers.actions import DROP, KEEP, KEEP_METADATA, ActionConfig, execute, shown_history
from verbalize.verbalizers.base import guard_inputs
from verbalize.verbalizers.series import titles_by_series

STOP = "stop"
GROUPS = {"group by genre": "genre", "group by series": "series", "ungroup": ""}
_ACTION = re.compile(r"(inspect|keep|drop|enrich) (session|event) (\d+)")


@dataclass(frozen=True)
class DraftConfig:
    """How histories are cut into sessions, and how the executor shows events. What the executor's configuration says
    of prompts has no meaning here; its `history_shown` bounds the history."""

    session_gap_minutes: float = float(expressions.SESSION_GAP_MINUTES)
    max_sessions: int = 8
    execution: ActionConfig = field(default_factory=ActionConfig)

    def __post_init__(self) -> None:
        if self.session_gap_minutes < 0 or self.max_sessions < 1:
            raise InputError(f"{self}", "a gap is not negative, a history has a session", "correct the setting")


@dataclass(frozen=True)
class History:
    """One example's history as the agent meets it: its row, sanitised events (oldest first), where sessions begin."""

    row: pl.DataFrame
    events: tuple[dict[str, Any], ...]
    starts: tuple[int, ...]
    config: DraftConfig

    @property
    def example_id(self) -> str:
        return str(self.row["example_id"][0])

    def session(self, number: int) -> range:
        """The places of the events of a session, counted from 1."""
        ends = (*self.starts[1:], len(self.events))
        return range(self.starts[number - 1], ends[number - 1])


@dataclass(frozen=True)
class Draft:
    """What is decided so far: a symbol per event, the grouping ("", "genre" or "series"), the session looked at (0:
    none)."""

    symbols: tuple[int, ...]
    group: str = ""
    looked_at: int = 0


def open_history(inputs: pl.DataFrame, config: DraftConfig) -> History:
    """The history of one row of verbalizer inputs. Raises InputError for other columns (the target's, the slate's) and
    for more or less than one row."""
    guard_inputs(inputs)
    if inputs.height != 1:
        raise InputError(f"{inputs.height} rows", "a verbalization is of one example", "pass the row of one example_id")
    row = inputs.with_columns(history=shown_history(config.execution))
    listed = row["history"][0]
    events = tuple(listed.to_list()) if listed is not None else ()
    starts = session_starts([event["event_time"] for event in events], config)
    return History(row, events, starts, config)


def session_starts(times: Sequence[datetime], config: DraftConfig) -> tuple[int, ...]:
    """Places at which sessions begin, the first always 0; () for an empty history. Of equal gaps the earlier stays."""
    gaps = [(later - earlier).total_seconds() / 60 for earlier, later in pairwise(times)]
    wide = [place for place, gap in enumerate(gaps, 1) if gap > config.session_gap_minutes]
    widest = sorted(wide, key=lambda place: (-gaps[place - 1], place))[: config.max_sessions - 1]
    return (0, *sorted(widest)) if times else ()


def first_draft(history: History) -> Draft:
    """Everything kept, with titles only."""
    return Draft((KEEP,) * len(history.events))


def possible(history: History, draft: Draft) -> list[str]:
    """The actions that would change something, sorted. Events are decided one by one in the session looked at."""
    found = [STOP, *(action for action, group in GROUPS.items() if group != draft.group)]
    for number in range(1, len(history.starts) + 1):
        if number != draft.looked_at:
            found.append(f"inspect session {number}")
        found += _on(f"session {number}", {draft.symbols[place] for place in history.session(number)})
    if draft.looked_at:
        for place in history.session(draft.looked_at):
            found += _on(f"event {place + 1}", {draft.symbols[place]})
    return sorted(found)


def revise(history: History, draft: Draft, action: str) -> Draft:
    """The draft after one of the `possible` actions; `stop` leaves it as it is."""
    if action in GROUPS:
        return replace(draft, group=GROUPS[action])
    match = _ACTION.fullmatch(action)
    if match is None:
        return draft
    verb, what, number = match[1], match[2], int(match[3])
    if verb == "inspect":
        return replace(draft, looked_at=number)
    places = history.session(number) if what == "session" else range(number - 1, number)
    symbols = list(draft.symbols)
    for place in places:
        symbols[place] = _decided(verb, symbols[place])
    return replace(draft, symbols=tuple(symbols))


def write(history: History, draft: Draft) -> str:
    """The text of a draft."""
    kept = [place for place, symbol in enumerate(draft.symbols) if symbol >= KEEP]
    if not draft.group or not kept:
        return execute(history.row, [list(draft.symbols)], history.config.execution)[0]
    groups: dict[str, list[int]] = {}
    for place in kept:
        groups.setdefault(_label(history.events[place], place, draft.group), []).append(place)
    parts = [[history.events[place] for place in places] for places in groups.values()]
    column = pl.Series("history", parts, dtype=history.row.schema["history"])
    frame = history.row.select("example_id", "cutoff_time").join(column.to_frame(), how="cross")
    texts = execute(
        frame, [[draft.symbols[place] for place in places] for places in groups.values()], history.config.execution
    )
    if draft.group == "genre":
        return ". ".join(f"{label}: {text}" if label else text for label, text in zip(groups, texts, strict=True))
    joined = frame.select(titles_by_series(pl.col("history"), expressions.field("title"))).to_series().to_list()
    several = [len({event["item_id"] for event in events}) > 1 for events in parts]
    return expressions.EVENT_SEPARATOR.join(
        run if many else text for many, run, text in zip(several, joined, texts, strict=True)
    )


def _decided(verb: str, symbol: int) -> int:
    if verb == "drop":
        return DROP
    if verb == "keep":
        return max(symbol, KEEP)
    return KEEP_METADATA if symbol >= KEEP else symbol  # enrich: what is dropped stays so


def _on(what: str, symbols: set[int]) -> list[str]:
    """The actions that would change events with these symbols."""
    useful = {"drop": symbols - {DROP}, "keep": symbols & {DROP}, "enrich": symbols & {KEEP}}
    return [f"{verb} {what}" for verb, changed in useful.items() if changed]


def _label(event: dict[str, Any], place: int, group: str) -> str:
    """What an event is grouped under: its first genre, or its series; without a series it stands alone."""
    if group == "genre":
        return str(event["genres"][0]) if event["genres"] else ""
    return f"series {event['series']}" if event["series"] else f"event {place}"
