"""Does a text say only what the history supports? Titles, counts and genres it asserts are checked against the history.

Claims that are checked, by deterministic rules on sanitised text:
- *titles*: every catalogue title the text mentions (rules in `title_matching`) must be in the history, as an event or
  as the series of one. A mention is read as "watched"; negations are not understood for titles.
- *genre counts*: "Drama (5)", "5 Drama films" must equal the number of events that carry the genre.
- *event counts*: "12 events" must equal the number of events, "12 films" (movies, titles, episodes) must not exceed it:
  it may be a part.
- *genres*: a genre named (as spelled in the catalogue, case-sensitive, not inside a title or after "no", "not",
  "never", "avoids", "without", "dislikes") must be carried by at least one event.

The target and the slate play no part here. `mentions_target_or_slate` audits them *after* scoring; its result must
never enter a reward, since that would leak the target.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import polars as pl

from recsys.errors import InputError
from verbalize.verbalizers.sanitise import sanitise_history, sanitise_titles
from verbalize.verbalizers.title_matching import TitleIndex, with_leading_article

_EVENT_COUNT = re.compile(r"(?<![\w.])(\d+) (events?|films|movies|titles|episodes)\b")
_NEGATION = re.compile(r"\b(?:no|not|never|avoids?|without|dislikes?|rarely)\b[^.;\n]{0,30}$", re.IGNORECASE)


@dataclass(frozen=True)
class Claims:
    """What one text asserts: mentioned titles, and other claims as (text, whether it holds)."""

    titles: tuple[str, ...]
    others: tuple[tuple[str, bool], ...]


def faithfulness(
    texts: Sequence[str],
    inputs: pl.DataFrame,
    catalogue_titles: Collection[str],
    catalogue_genres: Collection[str] | None = None,
) -> pl.DataFrame:
    """B texts against B histories -> B rows: example_id, share_faithful, asserted, unfaithful_titles,
    unfaithful_claims.

    share_faithful: Float64 in [0, 1], the share of asserted claims that hold; 1 for a text that asserts nothing (an
    empty text is the length reward's business). asserted: Int32, number of claims. The two lists hold the false ones.
    `catalogue_genres` defaults to the genres of all histories in `inputs`. Histories' own titles need not be in
    `catalogue_titles`. Raises InputError unless there is one text per input.
    """
    if len(texts) != len(inputs):
        raise InputError(f"{len(texts)} texts", f"need one for each of {len(inputs)} inputs", "pass them in row order")
    histories = inputs.select(sanitise_history(pl.col("history"))).to_series()
    titles, genres, lengths = (column.to_list() for column in _facts(histories))
    own = {genre for row in genres for genre in row}
    vocabulary = catalogue_genres if catalogue_genres is not None else own
    known_titles = [*catalogue_titles, *dict.fromkeys(title for row in titles for title in row)]
    index = TitleIndex(known_titles, own.union(vocabulary))  # a genre that a text shows asserts no film of its name
    genre_pattern = _genre_pattern(vocabulary)
    rows = []
    for key, text, watched, carried, length in zip(inputs["example_id"], texts, titles, genres, lengths, strict=True):
        claims = _claims(text, index, genre_pattern, Counter(carried), length)
        known = set(map(with_leading_article, watched))
        false_titles = [title for title in claims.titles if with_leading_article(title) not in known]
        false_claims = [claim for claim, holds in claims.others if not holds]
        asserted = len(claims.titles) + len(claims.others)
        share = 1.0 - (len(false_titles) + len(false_claims)) / asserted if asserted else 1.0
        rows.append((key, share, asserted, false_titles, false_claims))
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "example_id": pl.String,
        "share_faithful": pl.Float64,
        "asserted": pl.Int32,
        "unfaithful_titles": pl.List(pl.String),
        "unfaithful_claims": pl.List(pl.String),
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def mentions_target_or_slate(texts: Sequence[str], examples: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Audit after scoring, never a reward: which texts name their target or other candidates of their slate.

    `examples` as in its contract, `items` with item_id and title. B rows: example_id, mentions_target (Boolean),
    slate_mentions (Int32: candidates other than the target), from_history (Int32: how many of all those mentioned
    share their title with a history event, which is an innocent reason). Raises InputError unless there is one text
    per example, or when a slate's item is unknown.
    """
    if len(texts) != len(examples):
        raise InputError(
            f"{len(texts)} texts", f"need one for each of {len(examples)} examples", "pass them in row order"
        )
    titles = dict(
        zip(items["item_id"], map(with_leading_article, sanitise_titles(items["title"].to_list())), strict=True)
    )
    absent = sorted({item for slate in examples["slate"] for item in slate if item not in titles})
    if absent:
        raise InputError(f"slate items {absent[:3]}", "are not in the items table", "pass the slates' own catalogue")
    index = TitleIndex(titles.values())
    histories = examples.select(sanitise_history(pl.col("history"))).to_series()
    watched = _facts(histories)[0].to_list()
    rows = []
    columns = (examples["example_id"], examples["target_item_id"], examples["slate"].to_list(), texts, watched)
    for key, target, slate, text, seen in zip(*columns, strict=True):
        mentioned = set(map(with_leading_article, index.mentions(text)))
        negatives = {titles[item] for item in slate if item != target} & mentioned
        hit = titles.get(target) in mentioned
        innocent = (negatives | ({titles[target]} if hit else set())) & set(map(with_leading_article, seen))
        rows.append((key, hit, len(negatives), len(innocent)))
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "example_id": pl.String,
        "mentions_target": pl.Boolean,
        "slate_mentions": pl.Int32,
        "from_history": pl.Int32,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _facts(histories: pl.Series) -> tuple[pl.Series, pl.Series, pl.Series]:
    """Titles (of events and of their series), genres (one entry per event that carries it) and number of events of each
    history."""
    field = pl.element().struct.field
    facts = histories.to_frame("history").select(
        titles=pl.concat_list(
            pl.col("history").list.eval(field("title")), pl.col("history").list.eval(field("series").drop_nulls())
        ),
        genres=pl.col("history").list.eval(field("genres").explode().drop_nulls()),
        n=pl.col("history").list.len(),
    )
    return facts["titles"], facts["genres"], facts["n"]


def _genre_pattern(genres: Collection[str]) -> re.Pattern[str] | None:
    """Delimited genres, longest first. Groups: count before ("5 Drama films"), genre, count after ("Drama (5)")."""
    if not genres:
        return None
    names = "|".join(re.escape(genre) for genre in sorted(genres, key=lambda genre: (-len(genre), genre)))
    before = rf"(?:(?<![\w.])(\d{{1,3}}) (?=(?:{names}) (?:events?|films?|movies?|titles?)\b))?"
    after = r"(?: \((\d{1,3})\))?"
    return re.compile(rf"{before}(?<![\w-])({names})(?![\w-]){after}")


def _claims(
    text: str, index: TitleIndex, genre_pattern: re.Pattern[str] | None, carried: Counter[str], length: int
) -> Claims:
    spans = index.spans(text)
    titles = tuple(dict.fromkeys(title for title, _, _ in spans))
    # Titles are blanked before anything else is read: "The Drama Queen" claims no genre, "9 films" no count.
    for _, begin, end in spans:
        text = text[:begin] + "\x00" * (end - begin) + text[end:]
    others = []
    for match in _EVENT_COUNT.finditer(text):
        claimed, total = int(match.group(1)), match.group(2).startswith("event")
        others.append((match.group(), claimed == length if total else claimed <= length))
    for match in genre_pattern.finditer(text) if genre_pattern else ():
        genre, count = match.group(2), match.group(1) or match.group(3)
        if _NEGATION.search(text[max(0, match.start() - 60) : match.start()]):
            continue
        others.append((match.group(), carried[genre] == int(count) if count else carried[genre] > 0))
    return Claims(titles, tuple(dict.fromkeys(others)))
