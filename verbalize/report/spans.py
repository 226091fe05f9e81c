"""What a text tells of a history: the stretches that name shown events, state facts of them, or add words of their own.

Three kinds of stretch, by rules and without a model:

- `kept`: an event's title, found as the faithfulness check finds titles (`TitleIndex`, on sanitised titles);
- `fact`: a word outside titles that the shown log itself holds: a year, a genre, a rating, a date, a kind of event;
- `added`: every other word, a label ("rating", "Duration") or a claim of the verbalizer's own.

An event is *dropped* when no mention is left for it. Equal titles are met in order: of two viewings of one film, a text
with one mention keeps the earlier one. Facts are matched by word against the whole shown log, so a genre given to the
wrong film still reads as a fact; the faithfulness audit judges such claims.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from verbalize.verbalizers.sanitise import sanitise_titles
from verbalize.verbalizers.title_matching import TitleIndex

Kind = Literal["kept", "fact", "added", "plain"]
_WORD = re.compile(r"\w+(?:[.:'’-]\w+)*")


@dataclass(frozen=True)
class Span:
    """A stretch of a text; `plain` is what stands between words. `event` is the place of the event a title names."""

    text: str
    kind: Kind = "plain"
    event: int | None = None


@dataclass(frozen=True)
class Reading:
    """A text as stretches that join to it exactly, and the places of the events it keeps, ascending."""

    spans: tuple[Span, ...] = ()
    kept: tuple[int, ...] = ()

    @property
    def added(self) -> int:
        """Number of words of the verbalizer's own."""
        return sum(span.kind == "added" for span in self.spans)


def read_text(text: str, history: Sequence[Mapping[str, Any]]) -> Reading:
    """`text` against the shown `history` (events with `title`, other fields as in `data_schemas/examples.yaml`).

    >>> log = [{"title": "Heat", "year": 1995, "genres": ["Crime"]}, {"title": "Seven", "year": 1995}]
    >>> reading = read_text("Heat (1995); loves crime", log)
    >>> reading.kept, [(s.text, s.kind) for s in reading.spans if s.kind != "plain"]
    ((0,), [('Heat', 'kept'), ('1995', 'fact'), ('loves', 'added'), ('crime', 'fact')])
    """
    titles = sanitise_titles([event["title"] or "" for event in history])
    places: dict[str, list[int]] = defaultdict(list)
    for place, title in enumerate(titles):
        places[title].append(place)
    facts = {word.casefold() for event in history for word in _facts(event)}
    genres = {str(genre) for event in history for genre in event.get("genres") or ()}
    spans: list[Span] = []
    kept: set[int] = set()
    end = 0
    for title, begin, after in TitleIndex(titles, genres).spans(text):
        spans += _words(text[end:begin], facts)
        unused = [place for place in places[title] if place not in kept]
        place = unused[0] if unused else places[title][-1]
        kept.add(place)
        spans.append(Span(text[begin:after], "kept", place))
        end = after
    spans += _words(text[end:], facts)
    return Reading(tuple(spans), tuple(sorted(kept)))


def _facts(event: Mapping[str, Any]) -> Iterable[str]:
    """Words that state something the event's fields hold, in the forms our templates write them."""
    if event.get("year") is not None:
        yield f"{event['year']}"
        yield f"{int(event['year']) // 10 * 10}s"
    for genre in event.get("genres") or ():
        yield from _WORD.findall(str(genre))
    for name in ("rating", "completion"):
        if event.get(name) is not None:
            yield f"{event[name]:g}"
            yield f"{float(event[name]):.1f}"
    if event.get("duration_s") is not None:
        yield f"{round(event['duration_s'] / 60, 2)}"
        yield f"{event['duration_s'] / 60:.0f}"
    if event.get("event_type"):
        yield from _WORD.findall(str(event["event_type"]).replace("_", " "))
    if event.get("event_time") is not None:
        moment = event["event_time"]
        yield from (f"{moment:%Y%m%d}", f"{moment:%Y-%m-%d}", f"{moment:%A}", f"{moment:%B}", f"{moment:%H:%M}")


def _words(text: str, facts: set[str]) -> list[Span]:
    """The stretches of a text that names no title."""
    spans, end = [], 0
    for match in _WORD.finditer(text):
        if match.start() > end:
            spans.append(Span(text[end : match.start()]))
        spans.append(Span(match.group(), "fact" if match.group().casefold() in facts else "added"))
        end = match.end()
    if end < len(text):
        spans.append(Span(text[end:]))
    return spans
