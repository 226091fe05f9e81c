"""Which catalogue titles a text mentions: one pass over its words against a word index of the catalogue.

Matching is case-sensitive and delimited, on sanitised titles (`sanitise`), longest title first, left to right,
without overlap. What counts as delimited depends on how easily a title is an ordinary word:

- two words or more ("The Rock"): no word character touches it on either side; one that is also a genre ("Science
  Fiction") follows the third rule;
- one word ("Seven", "It"): besides, it is quoted or emphasised, or is followed by a year in brackets, or fills an
  item of a list: a text or line edge, `;`, `,`, `:`, a bullet or a number before it, and `;`, `,`, a bracket, a text
  or line edge after it (a full stop before that edge is allowed);
- one word that is also a number, genre, weekday, month or kind of event ("1984", "Action", "Sunday"): it is
  followed by a year in brackets, or fills an item between text or line edges and `;` (commas and quotes are how genres
  and log fields are written).

A title with its article at the end ("Rock, The") is also recognised with it in front, and the other way round. Titles
without any letter or digit are not looked for. A one-word title as an ordinary word between commas ("It, then, ...")
is the known false positive.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from verbalize.verbalizers.sanitise import sanitise_titles

_WORD = re.compile(r"\w+")
_ARTICLES = "The|A|An|Le|La|Les|Il|El|Los|Las|Der|Die|Das"
_TRAILING_ARTICLE = re.compile(rf"^(.+), ({_ARTICLES})$")
_LEADING_ARTICLE = re.compile(rf"^({_ARTICLES}) (.+)$")
_YEAR_AFTER = re.compile(r" ?[(\[]\d{4}\b")
_HARD_BEFORE = re.compile(r"(?:^|\n|; ?)$")
_HARD_AFTER = re.compile(r" ?(?:;|\n|$|\.(?:\n|$)| \((?!\d))")
_ITEM_BEFORE = re.compile(r"(?:^|[\n;,:] *|\n *(?:[-*•]|\d+[.)]) *|^(?:[-*•]|\d+[.)]) *)$")
_ITEM_AFTER = re.compile(r" ?(?:[;,\n]|$|\.(?:\n|$)|\()")
_QUOTED = (('"', '"'), ("“", "”"), ("‘", "’"), ("'", "'"), ("*", "*"), ("_", "_"), ("«", "»"), ("`", "`"))
_MONTHS = "january february march april may june july august september october november december"
_WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday"
_EVENTS = "rating play click impression duration recent untitled"
_COMMON = frozenset(f"{_MONTHS} {_WEEKDAYS} {_EVENTS}".split())
_CONTEXT = 12  # characters before a word that a delimiter pattern may need


class TitleIndex:
    """Finds mentions of `titles` in texts.

    `common_words` (genres, usually) are treated by the third rule of the module, with weekdays, months and kinds of
    events. Building costs one pass over the titles; finding costs one dictionary look-up per word of a text.
    """

    def __init__(self, titles: Iterable[str], common_words: Collection[str] = ()) -> None:
        self._common = _COMMON | {word.casefold() for word in common_words}
        # Keyed by the first two words (or the only one): the many titles that begin with "The" do not share a bucket.
        self._buckets: dict[tuple[str, ...], list[tuple[str, str, int]]] = defaultdict(list)
        unique = list(dict.fromkeys(titles))
        for safe in dict.fromkeys(sanitise_titles(unique)):
            for form in _forms(safe):
                words = _WORD.findall(form)
                if words:
                    lead = _WORD.search(form).start()  # type: ignore[union-attr]
                    self._buckets[tuple(words[:2])].append((form, safe, lead))
        for bucket in self._buckets.values():
            bucket.sort(key=lambda entry: -len(entry[0]))

    def mentions(self, text: str) -> list[str]:
        """Sanitised titles mentioned in `text`, each once, in order of first mention."""
        return list(dict.fromkeys(title for title, _, _ in self.spans(text)))

    def spans(self, text: str) -> list[tuple[str, int, int]]:
        """Every mention as (sanitised title, begin, end), left to right, without overlap."""
        return list(self._scan(text))

    def _scan(self, text: str) -> Iterator[tuple[str, int, int]]:
        words = [(match.group(), match.start()) for match in _WORD.finditer(text)]
        end = 0
        for place, (word, start) in enumerate(words):
            following = words[place + 1][0] if place + 1 < len(words) else None
            candidates = self._buckets.get((word,), ()), self._buckets.get((word, following or ""), ())
            for form, title, lead in sorted((*candidates[0], *candidates[1]), key=lambda entry: -len(entry[0])):
                begin = start - lead
                if (
                    begin >= end
                    and text.startswith(form, begin)
                    and self._delimited(text, begin, begin + len(form), form)
                ):
                    end = begin + len(form)
                    yield title, begin, end
                    break

    def _delimited(self, text: str, begin: int, end: int, form: str) -> bool:
        before, after = text[max(0, begin - _CONTEXT) : begin], text[end : end + _CONTEXT]
        if (_is_word(before[-1:]) and _is_word(form[0])) or (_is_word(after[:1]) and _is_word(form[-1])):
            return False
        words = _WORD.findall(form)
        common = form.casefold() in self._common
        if len(words) > 1 and not common:
            return True
        if _YEAR_AFTER.match(after):
            return True
        if common or words[0].casefold() in self._common or words[0].isdigit():
            return bool(_HARD_BEFORE.search(before) and _HARD_AFTER.match(after))
        if any(before.endswith(left) and after.startswith(right) for left, right in _QUOTED):
            return True
        return bool(_ITEM_BEFORE.search(before) and _ITEM_AFTER.match(after))


def _is_word(character: str) -> bool:
    return bool(character) and bool(_WORD.match(character))


def with_leading_article(title: str) -> str:
    """The form under which two spellings of one title are equal.

    >>> with_leading_article("Rock, The")
    'The Rock'
    """
    trailing = _TRAILING_ARTICLE.match(title)
    return f"{trailing.group(2)} {trailing.group(1)}" if trailing else title


def _forms(title: str) -> list[str]:
    """The title and, if it has an article at one end, the title with the article at the other."""
    leading = _LEADING_ARTICLE.match(title)
    moved = f"{leading.group(2)}, {leading.group(1)}" if leading else with_leading_article(title)
    return list(dict.fromkeys([title, moved]))
