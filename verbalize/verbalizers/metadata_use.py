"""Which fields of an event a text states beside the event's title, by exact patterns.

*Beside* is the line (`text_lines`) that names the title; where it names several, what follows the title up to the next
one, and for the first also what precedes it. A field counts when the words there state the event's own value:

| field | is stated by |
|---|---|
| `date` | 20250608, 2025-06-08, 8 June 2025, June 8, 2025, June 2025, or the weekday |
| `rating` | the number after "rating", "rated" or "score", or before "/5", "stars", "★", "out of 5" |
| `duration` | minutes before "min", "mins" or "minutes"; seconds after "duration_s" |
| `completion` | a percentage; a share after "completion" |
| `year` | four digits, no decade ("1990s") and no part of a date |
| `event_type` | the type in words, where it does not belong to a rating ("rating 4.0") |
| `genres` | at least one of the event's genres, as `text_lines` reads them |

A number agrees when it is the value rounded to the digits shown. Fields that an event does not have are not counted.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from verbalize.verbalizers.text_lines import MONTHS, GenreWords, Line

FIELDS = ("year", "genres", "rating", "date", "duration", "completion", "event_type")
_NUMBER = r"(?<![\d.])(\d+(?:\.\d+)?)"
_RATINGS = re.compile(
    rf"\b(?:rating|rated|scored?)\W{{0,3}}{_NUMBER}|{_NUMBER} ?(?:/ ?\d+|stars?\b|★|out of \d+)", re.IGNORECASE
)
_MINUTES = re.compile(rf"{_NUMBER} ?min(?:ute)?s?\b", re.IGNORECASE)
_SECONDS = re.compile(rf"duration_s\W{{0,3}}{_NUMBER}")
_PERCENT = re.compile(rf"{_NUMBER} ?%")
_SHARE = re.compile(rf"completion\W{{0,3}}{_NUMBER}", re.IGNORECASE)
_MONTH = "|".join(MONTHS)
_DATES = re.compile(rf"(?<!\d)(?:\d{{8}}|\d{{4}}-\d\d-\d\d|(?:\d{{1,2}} )?(?:{_MONTH})(?: \d{{1,2}},)? \d{{4}})(?!\d)")


def present_fields(event: Mapping[str, Any]) -> set[str]:
    """The `FIELDS` that an event (fields as in `data_schemas/examples.yaml`) has a value of."""
    return {field for field in FIELDS if event.get(_column(field)) not in (None, [], "")}


def fields_beside(words: str, event: Mapping[str, Any], genres: GenreWords) -> set[str]:
    """The fields of `event` that `words` state, see the module.

    >>> event = {"year": 1995, "genres": ["Crime"], "rating": 4.0, "event_type": "rating"}
    >>> sorted(fields_beside("(1995; Drama), rating 4", event, GenreWords(["Crime", "Drama"])))
    ['rating', 'year']
    """
    present = present_fields(event)
    found: set[str] = set()
    if "date" in present and any(_delimited(form, words) for form in _date_forms(event["event_time"])):
        found.add("date")
    words = _DATES.sub(" ", words)
    if "rating" in present and _agrees(_RATINGS, words, event["rating"]):
        found.add("rating")
    if "duration" in present:
        seconds = event["duration_s"]
        if _agrees(_MINUTES, words, seconds / 60) or _agrees(_SECONDS, words, seconds):
            found.add("duration")
    if "completion" in present:
        share = event["completion"]
        if _agrees(_PERCENT, words, 100 * share) or _agrees(_SHARE, words, share):
            found.add("completion")
    for stated in (_RATINGS, _MINUTES, _SECONDS, _PERCENT, _SHARE):
        words = stated.sub(" ", words)
    if "year" in present and re.search(rf"(?<!\w){event['year']}(?!\w)", words):
        found.add("year")
    kind = str(event.get("event_type")).replace("_", " ")
    if "event_type" in present and _delimited(kind.casefold(), words.casefold().replace("_", " ")):
        found.add("event_type")
    if "genres" in present and genres.named(words) & set(event["genres"]):
        found.add("genres")
    return found


def beside(line: Line, place: int) -> str:
    """The words of `line` that stand beside its mention number `place`.

    >>> line = Line("In 1995 Heat, then Alien (1979)", (("Heat", 8, 12), ("Alien", 19, 24)), "", "")
    >>> beside(line, 0), beside(line, 1)
    ('In 1995 , then ', ' (1979)')
    """
    _, begin, end = line.mentions[place]
    before = line.text[:begin] if place == 0 else ""
    last = place + 1 == len(line.mentions)
    return before + line.text[end : None if last else line.mentions[place + 1][1]]


def _column(field: str) -> str:
    return {"date": "event_time", "duration": "duration_s"}.get(field, field)


def _date_forms(moment: Any) -> Sequence[str]:
    month, day = f"{moment:%B}", moment.day
    return (
        f"{moment:%Y%m%d}",
        f"{moment:%Y-%m-%d}",
        f"{day} {month} {moment.year}",
        f"{month} {day}, {moment.year}",
        f"{month} {moment.year}",
        f"{moment:%A}",
    )


def _delimited(form: str, words: str) -> bool:
    return bool(re.search(rf"(?<!\w){re.escape(form)}(?!\w)", words))


def _agrees(pattern: re.Pattern[str], words: str, value: float) -> bool:
    """Whether a number that `pattern` finds is `value`, rounded to the digits that are written."""
    for match in pattern.finditer(words):
        written = next(group for group in match.groups() if group)
        decimals = len(written.partition(".")[2])
        if abs(float(written) - value) <= 0.5 * 10**-decimals + 1e-9:
            return True
    return False
