"""The lines of a text, and the pattern of each: what is left of it once all that differs between users is masked.

A *line* ends at a line end, at `;`, at `.`, `!` or `?` before a space or an end, and between two JSON objects; nothing
ends inside parentheses, inside a title, or at the number of a list ("1. Heat"). A line holds at least one word.

In its *pattern* a title of the catalogue is `T`, a genre `G`, a weekday or month `D`, a year from 1800 to 2099 `Y`, any
other number `N` (digits, or a word from "two" to "twelve"). Words are in lower case, so only masks are capitals, and
lists of like parts are one part: "Loves Toy Story, Big Fish and Due Date from 1995" is "loves T from Y".

Genres are matched without regard to case, also as plurals ("dramas", "comedies"), titles as `title_matching` says. An
abbreviation ("Dr. No" where no title) ends a line: the known error.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from verbalize.verbalizers.title_matching import TitleIndex

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_NUMBER_WORDS = "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_HIDDEN = "\x00"
_END = re.compile(
    r"^[ \t]*\d{1,3}[.)](?=\s)|\([^()\n]*\)|(\n|;|[.!?]+(?=\s|$)|(?<=\}),[ \t]*(?=\{))",
    re.MULTILINE,
)
_HOLDS_WORD = re.compile(rf"[\w{_HIDDEN}]")
_TOKEN = re.compile(r"\w+(?:['’]\w+)*")
_QUOTE = "[\"'“”]?"
_LIST = re.compile(
    r"(?<!\w)(?P<part>[TGDYN]s?(?: \([^()]*\))?)"
    rf"(?:{_QUOTE}(?:,? (?:and|or|&) |, ?| ?/ ?| ){_QUOTE}(?P=part)(?!\w| \())+"
)


@dataclass(frozen=True)
class Line:
    """A stretch of a text without its end mark.

    `mentions`: (sanitised title, begin, end) of the titles it names, places within `text`. `masked`: the pattern before
    lists are joined. `verbatim`: `text` in lower case with only titles masked.
    """

    text: str
    mentions: tuple[tuple[str, int, int], ...]
    masked: str
    verbatim: str

    @property
    def pattern(self) -> str:
        """See the module."""
        return _LIST.sub(r"\g<part>", self.masked)

    @property
    def tokens(self) -> list[str]:
        """Words in lower case and numbers as written; every title is one token, in its own spelling."""
        found, end = [], 0
        for title, begin, after in (*self.mentions, ("", len(self.text), len(self.text))):
            found += _TOKEN.findall(self.text[end:begin].casefold())
            found += [title] if title else []
            end = after
        return found

    @property
    def words(self) -> list[str | None]:
        """What `masked` consists of: words of the text's own, and None for each word that is or touches a mask."""
        found = _TOKEN.findall(self.masked)
        return [None if any("A" <= letter <= "Z" for letter in word) else word for word in found]


class LineReader:
    """Reads texts as lines. `titles`: the catalogue's and the histories'. `genres`: all there are, sanitised."""

    def __init__(self, titles: Iterable[str], genres: Collection[str]) -> None:
        self._index = TitleIndex(titles, genres)
        self.genres = GenreWords(genres)
        self._masked = lru_cache(maxsize=1 << 16)(self._mask)
        days = "|".join((*WEEKDAYS, *MONTHS))
        self._pieces = re.compile(
            rf"(?P<G>{self.genres.pattern})|(?P<D>\b(?:{days})\b)"
            r"|(?P<Y>(?<!\w)(?<!\d[.,:/-])(?:18|19|20)\d\d(?!\d|[.,:/-]\d))"
            rf"|(?P<N>\d+(?:[.,:/-]\d+)*%?|\b(?i:{_NUMBER_WORDS})\b)"
        )

    def lines(self, text: str) -> list[Line]:
        """The lines of `text`, in order.

        >>> reader = LineReader(["Heat", "Alien"], ["Drama"])
        >>> for line in reader.lines("Heat (1995; Drama); Alien\\nLiked 3 dramas on Sunday."):
        ...     print(line.text, "|", line.pattern)
        Heat (1995; Drama) | T (Y; G)
        Alien | T
        Liked 3 dramas on Sunday | liked N G on D
        """
        spans = self._index.spans(text)
        hidden = text.replace(_HIDDEN, " ")
        for _, begin, end in spans:
            hidden = hidden[:begin] + _HIDDEN * (end - begin) + hidden[end:]
        found, start, place = [], 0, 0
        for begin, end in (*(match.span() for match in _END.finditer(hidden) if match.group(1)), (len(text),) * 2):
            mentions = []
            while place < len(spans) and spans[place][1] < begin:
                mentions.append(spans[place])
                place += 1
            if _HOLDS_WORD.search(hidden, start, begin):
                found.append(self._line(text[start:begin], [(t, b - start, e - start) for t, b, e in mentions]))
            start = end
        return found

    def _line(self, text: str, mentions: Sequence[tuple[str, int, int]]) -> Line:
        lead = len(text) - len(text.lstrip())
        text = text.strip()
        mentions = [(title, begin - lead, end - lead) for title, begin, end in mentions]
        masked, verbatim, end = [], [], 0
        for _, begin, after in mentions:
            masked += [self._masked(text[end:begin]), "T"]
            verbatim += [text[end:begin].casefold(), "T"]
            end = after
        masked.append(self._masked(text[end:]))
        verbatim.append(text[end:].casefold())
        return Line(text, tuple(mentions), *(" ".join("".join(parts).split()) for parts in (masked, verbatim)))

    def _mask(self, text: str) -> str:
        parts, end = [], 0
        for match in self._pieces.finditer(text):
            parts += [text[end : match.start()].casefold(), str(match.lastgroup)]
            end = match.end()
        return "".join([*parts, text[end:].casefold()])


class GenreWords:
    """The ways a genre may be written. `pattern`: a regular expression, without groups, for any of them, delimited.

    >>> sorted(GenreWords(["Comedy", "Sci-Fi"]).named("comedies and a Sci-Fi, no tragicomedy"))
    ['Comedy', 'Sci-Fi']
    """

    def __init__(self, genres: Collection[str]) -> None:
        self._genre: dict[str, str] = {}
        for genre in sorted(genres):
            plurals = [f"{genre}s", f"{genre[:-1]}ies"] if genre.endswith("y") else [f"{genre}s"]
            for form in (genre, *plurals):
                self._genre.setdefault(form.casefold(), genre)
        forms = "|".join(re.escape(form) for form in sorted(self._genre, key=lambda form: (-len(form), form)))
        self.pattern = rf"(?<![\w-])(?i:{forms})(?![\w-])" if forms else "(?!)"
        self._compiled = re.compile(self.pattern)

    def named(self, text: str) -> set[str]:
        """The genres that `text` names."""
        words = {match.group().casefold() for match in self._compiled.finditer(text)}
        return {self._genre[word] for word in words if word in self._genre}


def distinct_ngrams(lines: Iterable[Line], n: int = 4) -> tuple[int, int]:
    """(different, all) sequences of `n` tokens of a text, over the ends of its lines: a loop has few different ones.

    >>> distinct_ngrams(LineReader(["Heat"], []).lines("Heat; Heat; Heat; Heat; Heat; Heat"))
    (1, 3)
    """
    tokens = [token for line in lines for token in line.tokens]
    grams = [tuple(tokens[place : place + n]) for place in range(len(tokens) - n + 1)]
    return len(set(grams)), len(grams)


def repeats_phrase(lines: Iterable[Line], n: int = 4, times: int = 3) -> bool:
    """Whether the same `n` words in a row occur at least `times` times; what is masked ends a row.

    So equal metadata of different events, and the columns of a log, are no phrase.

    >>> reader = LineReader(["Due Date"], [])
    >>> repeats_phrase(reader.lines("Really likes to watch Due Date. " * 3))
    True
    >>> repeats_phrase(reader.lines("Due Date (2010), rating 4.0; " * 3))
    False
    """
    words = [word for line in lines for word in line.words]
    grams = (tuple(words[place : place + n]) for place in range(len(words) - n + 1))
    return max(Counter(gram for gram in grams if None not in gram).values(), default=0) >= times
