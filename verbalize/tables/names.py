"""Names within a table: what an arm is called, and what a name may be."""

import re
from collections.abc import Iterable

from recsys.errors import InputError
from verbalize.recipe_sections import LEARNED, SHUFFLED

PLACE = "{set}"
"""Stands for the data set's name in ids and statements of claims."""


def parts_of(place: str) -> tuple[str, str, str]:
    """An arm of the table as (cell, arm, crossing); no crossing is "".

    >>> parts_of("rewrite/learned@listwise"), parts_of("rewrite/ease")
    (('rewrite', 'learned', 'listwise'), ('rewrite', 'ease', ''))
    """
    cell, separator, rest = place.partition("/")
    arm, _, crossing = rest.partition("@")
    if not (separator and cell and arm):
        raise InputError(f"arm {place!r}", "is written cell/arm or cell/arm@crossing", "for example actions/learned")
    return cell, arm, crossing


def reference_of(place: str) -> tuple[str, str]:
    """What a cell is compared with, as (cell, arm): its learned text where only a cell is named.

    >>> reference_of("actions"), reference_of("actions/concatenation")
    (('actions', 'learned'), ('actions', 'concatenation'))
    """
    if "/" not in place:
        return place, LEARNED
    cell, arm, crossing = parts_of(place)
    if crossing:
        raise InputError(f"compare_with {place!r}", "names a crossing", "name a cell, or cell/arm")
    return cell, arm


def shuffled_of(place: str) -> str:
    """The arm with the same cell's texts in other users' hands."""
    return f"{parts_of(place)[0]}/{SHUFFLED}"


def check_word(what: str, word: str) -> None:
    """Refuse a name that could not stand in an id."""
    if not re.fullmatch(r"[a-z0-9_]+", word):
        raise InputError(f"{what} {word!r}", "is part of ids: lower-case letters, digits and '_'", "rename it")


def check_among(where: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that nothing bears."""
    if name not in known:
        raise InputError(f"{where} {name}", "is not known", f"choose from {', '.join(known) or 'none yet'}")
