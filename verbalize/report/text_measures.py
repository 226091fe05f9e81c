"""What is measured of texts: names, column heads and definitions; and which lines count or summarise.

Every measure is a part of a whole (`text_traits` sums both); `about` says what is a part of what.
"""

import re
from typing import NamedTuple

from verbalize.verbalizers.metadata_use import FIELDS

_UNITS = "films?|movies?|titles?|episodes?|events?|shows?|series|seasons?|works?|plays?|viewings?|times|ratings?"
_COUNT = re.compile(
    rf"(?<!\w)N (?:\w+ ){{0,2}}(?:{_UNITS})\b|(?<!\w)[x×]N(?!\w)|(?<!\w)N[x×]|(?:G|[YN]s) \(N\)|\btwice\b"
)
_STATED = re.compile(r"(?<!\w)(?:G|[YN]s?)(?!\w)")


class Measure(NamedTuple):
    """`label` heads a column; `about` says what is a part of what."""

    name: str
    label: str
    about: str


TRAITS = (
    Measure("events_kept", "events kept", "events that the text names by title, of those of its history"),
    Measure("noise_kept", "noise kept", "planted noise that a learned action policy keeps (simulated logs)"),
    Measure("signal_kept", "others kept", "events that are no noise and that it keeps (simulated logs)"),
    Measure("length", "length", "tokens of the text, of those of the paper's log of the same history"),
    Measure(
        "aggregated",
        "counted",
        'lines with a count: "5 episodes of", "3 films", "×3", "twice", "Drama (5)", "1990s (8)"',
    ),
    Measure("summaries", "summaries", "lines that name no title, and a genre, a year, a decade or a number"),
    Measure(
        "line_pattern",
        "one line",
        "lines of the arm's most frequent pattern, with titles, genres, dates and numbers masked",
    ),
    Measure("text_pattern", "one form", "texts whose lines follow the arm's most frequent sequence of patterns"),
    Measure("distinct_4", "distinct 4-grams", "different runs of four words within a text, a title being one word"),
    Measure(
        "repeats",
        "repeats itself",
        "texts that say the same four words in a row, none of them masked, three times or more",
    ),
    Measure(
        "shared",
        "said of most",
        "unmasked words, in lines that, but for titles, are word for word in the texts of more than half of the users",
    ),
    Measure("faithful", "faithful", "asserted titles, genres and counts that hold, mean over texts"),
)
METADATA = tuple(
    Measure(f"beside.{field}", field.replace("_", " "), f"kept events whose {field.replace('_', ' ')} stands beside")
    for field in FIELDS
)
MEASURES = (*TRAITS, *METADATA)


def is_count(pattern: str) -> bool:
    """Whether a line of this pattern (`text_lines`) counts something.

    >>> [is_count(p) for p in ("N episodes of T", "N G films", "T xN", "top genres: G (N)", "T (Y; G)", "rating N")]
    [True, True, True, True, False, False]
    """
    return bool(_COUNT.search(pattern))


def is_summary(pattern: str) -> bool:
    """Whether a line of this pattern names no title, and a genre, year, decade or other number.

    >>> [is_summary(p) for p in ("loves G from the Ys", "mean rating N", "loves T (G)", "has taste")]
    [True, True, False, False]
    """
    return bool(_STATED.search(pattern)) and not re.search(r"(?<!\w)T(?!\w)", pattern)
