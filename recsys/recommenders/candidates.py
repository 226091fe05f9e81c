"""How a candidate is shown: rendered once, before any arm, and part of the hash that proves all saw the same slates."""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import polars as pl

from recsys.errors import InputError

FIELDS = ("title", "year", "genres")
Shown = TypeVar("Shown")


@dataclass(frozen=True)
class CandidateDisplay:
    """Which fields a candidate shows, in this order: "Title", "Title (1995)", "Title (Drama, War)", "Title (1995;
    Drama, War)".
    """

    fields: tuple[str, ...] = ("title",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        unknown = [field for field in self.fields if field not in FIELDS]
        if unknown or self.fields[:1] != ("title",) or len(set(self.fields)) != len(self.fields):
            raise InputError(
                f"candidate fields {list(self.fields)}",
                f"must be distinct, of {', '.join(FIELDS)}, title first",
                "use fields: [title] or [title, year, genres]",
            )


def render_candidates(items: pl.DataFrame, config: CandidateDisplay) -> dict[str, str]:
    """`items` (item_id, title, year, genres) -> text per item id. Titles are data: control characters and line breaks
    become single spaces. Raises InputError for an item whose title is missing or blank.
    """
    texts = {}
    for row in items.select("item_id", *config.fields).iter_rows(named=True):
        title = one_line(row["title"] or "")
        if not title:
            raise InputError(
                f"item {row['item_id']!r}", "has no title to show as a candidate", "drop items without titles"
            )
        details = [_field(row[name]) for name in config.fields[1:] if row[name] is not None]
        inside = "; ".join(detail for detail in details if detail)
        texts[row["item_id"]] = f"{title} ({inside})" if inside else title
    return texts


def look_up(items: Sequence[str], table: Mapping[str, Shown]) -> list[Shown]:
    """What is known of each item, from its id. Raises InputError for an item that is not in `table`."""
    try:
        return [table[item] for item in items]
    except KeyError as error:
        raise InputError(
            f"item {error.args[0]!r}",
            "is not in the catalogue shown to the recommender",
            "render candidates from the items table the slates were drawn from",
        ) from None


def one_line(text: str) -> str:
    """Visible characters and single spaces only: no line breaks, control or invisible formatting characters."""
    visible = "".join(
        " "
        if unicodedata.category(char) in ("Cc", "Zl", "Zp")
        else ""
        if unicodedata.category(char) in ("Cf", "Cs")
        else char
        for char in text
    )
    return " ".join(visible.split())


def slates_hash(slates: pl.DataFrame, candidate_texts: Mapping[str, str]) -> str:
    """sha256 over every slate, in example order, as shown. `slates` has example_id, slate and, for redraws,
    slate_index.
    """
    keys = [name for name in ("example_id", "slate_index") if name in slates.columns]
    digest = hashlib.sha256()
    for row in slates.select(*keys, "slate").sort(keys).iter_rows():
        *key, slate = row
        unknown = [item for item in slate if item not in candidate_texts]
        if unknown:
            raise InputError(
                f"item {unknown[0]!r} in slate {key}",
                "has no candidate text",
                "render candidates of the same catalogue",
            )
        shown = [part for item in slate for part in (item, candidate_texts[item])]
        digest.update("\x1f".join([*map(str, key), *shown]).encode() + b"\x1e")
    return digest.hexdigest()


def _field(value: int | list[str]) -> str:
    return ", ".join(map(one_line, value)) if isinstance(value, list) else str(value)
