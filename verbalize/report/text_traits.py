"""What texts do to the histories they stand for, counted by rules: how much is kept, which metadata, which syntax.

Every measure is a part of a whole, both summed over texts (`MEASURES` says of what), so an arm's value is
Σ part / Σ whole; its interval resamples users. Seeds of an arm are summed; what is common to many texts (a pattern,
a phrase) is sought in each seed's own texts, and taken as given by the interval.

Every arm's texts meet the history of their own example: texts handed to other users show what the rules find by chance.
Limits are those of `title_matching` (a one-word title in prose is not found) and of `text_lines`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from recsys.significance import bootstrap_means, interval
from verbalize.report.data import TRAIT_COLUMNS
from verbalize.report.text_measures import MEASURES, is_count, is_summary
from verbalize.verbalizers.faithfulness import faithfulness
from verbalize.verbalizers.metadata_use import FIELDS, beside, fields_beside, present_fields
from verbalize.verbalizers.sanitise import sanitise_history
from verbalize.verbalizers.text_lines import Line, LineReader, distinct_ngrams, repeats_phrase
from verbalize.verbalizers.title_matching import with_leading_article

PARTS = ("arm", "example_id", "user_id", "measure", "part", "whole")
RESAMPLES = 1000
_COUNTED = {"example_id": pl.String, "measure": pl.String, "part": pl.Float64, "whole": pl.Float64}
_SHARED_USERS = 3  # of fewer users, more than half is no crowd


class Shown(NamedTuple):
    """A history as texts are held against it: its events, made safe, and their places by title."""

    events: Sequence[Mapping[str, Any]]
    places: Mapping[str, Sequence[int]]


def traits_of_texts(texts: pl.DataFrame, examples: pl.DataFrame, catalogue_titles: Collection[str]) -> pl.DataFrame:
    """Parts and wholes of every measure but those of noise: columns arm, example_id, user_id, measure, part, whole.

    `texts` follows the contract `verbalizations`; "arm@1" is another seed of "arm". `examples` needs example_id,
    user_id and history of every text. Cost: each text is read twice against the whole catalogue, once for
    its lines and once for its faithfulness.
    """
    examples = examples.filter(pl.col("example_id").is_in(texts["example_id"].unique().implode())).with_columns(
        sanitise_history(pl.col("history"))
    )
    shown = {key: _shown(history) for key, history in examples.select("example_id", "history").iter_rows()}
    users = dict(examples.select("example_id", "user_id").iter_rows())
    genres = {genre for one in shown.values() for event in one.events for genre in event["genres"] or ()}
    watched = {name for one in shown.values() for event in one.events for name in (event["title"], event["series"])}
    reader = LineReader([*catalogue_titles, *sorted(name for name in watched if name)], genres)
    parts = []
    for (label,), mine in texts.group_by("verbalizer", maintain_order=True):
        rows = mine.join(examples.select("example_id", "history"), on="example_id", maintain_order="left")
        faithful = faithfulness(rows["text"].to_list(), rows, catalogue_titles, genres)
        counted = _counted(rows["example_id"].to_list(), rows["text"].to_list(), users, shown, reader)
        tables = [pl.DataFrame(counted, schema=_COUNTED, orient="row")]
        for name, values in (("length", rows["compression"]), ("faithful", faithful["share_faithful"])):
            tables.append(rows.select("example_id", measure=pl.lit(name), part=values, whole=pl.lit(1.0)))
        parts.append(pl.concat(tables).with_columns(arm=pl.lit(re.sub(r"@\d+$", "", str(label)))))
    named = pl.DataFrame({"example_id": list(users), "user_id": list(users.values())})
    return pl.concat(parts).join(named, on="example_id", maintain_order="left").select(*PARTS)


def summarise_traits(parts: pl.DataFrame, resamples: int = RESAMPLES) -> pl.DataFrame:
    """`traits_of_texts` -> one row (TRAIT_COLUMNS) per arm and measure that has a whole: Σ part / Σ whole and its
    95% interval over users, null with fewer than two. `texts` and `users` are those with a whole.
    """
    rows = []
    for (arm,), mine in parts.filter(pl.col("whole") > 0).group_by("arm", maintain_order=True):
        sums = mine.group_by("example_id", "user_id", "measure").agg(pl.col("part", "whole").sum())
        wide = sums.pivot("measure", index=["example_id", "user_id"], values=["part", "whole"]).fill_null(0.0)
        wide = wide.sort("example_id")
        names = [measure.name for measure in MEASURES if f"whole_{measure.name}" in wide.columns]
        columns = [f"{side}_{name}" for side in ("part", "whole") for name in names]
        boot = bootstrap_means(wide.select(columns).to_numpy(), wide["user_id"].to_numpy(), resamples=resamples)
        for place, name in enumerate(names):
            asked = wide.filter(pl.col(f"whole_{name}") > 0)
            whole = boot.draws[:, len(names) + place]
            draws = boot.draws[whole > 0, place] / whole[whole > 0]
            users = asked["user_id"].n_unique()
            low, high = interval(draws, users)
            value = boot.estimate[place] / boot.estimate[len(names) + place]
            ends = (None, None) if np.isnan(low) else (low, high)
            rows.append((str(arm), name, float(value), *ends, len(asked), users))
    types = (pl.String, pl.String, pl.Float64, pl.Float64, pl.Float64, pl.Int64, pl.Int64)
    return pl.DataFrame(rows, schema=dict(zip(TRAIT_COLUMNS, types, strict=True)), orient="row")


def _shown(history: Sequence[Mapping[str, Any]]) -> Shown:
    places: dict[str, list[int]] = defaultdict(list)
    for place, event in enumerate(history):
        if re.search(r"\w", event["title"]):  # no rule finds any other title
            places[with_leading_article(event["title"])].append(place)
    return Shown(history, places)


def _counted(
    keys: Sequence[str],
    texts: Sequence[str],
    users: Mapping[str, str],
    shown: Mapping[str, Shown],
    reader: LineReader,
) -> Iterator[tuple[str, str, float, float]]:
    """(example, measure, part, whole) of one arm's texts by one seed."""
    read = [reader.lines(text) for text in texts]
    patterns = [[line.pattern for line in lines] for lines in read]
    forms = [_form(found) for found in patterns]
    usual_line = _most_frequent([pattern for found in patterns for pattern in found])
    usual_form = _most_frequent([form for form in forms if form])
    common = _common_lines(keys, read, users)
    for key, lines, found, form in zip(keys, read, patterns, forms, strict=True):
        yield from ((key, name, part, whole) for name, part, whole in _kept(lines, shown[key], reader))
        yield key, "aggregated", sum(map(is_count, found)), len(found)
        yield key, "summaries", sum(map(is_summary, found)), len(found)
        yield key, "line_pattern", found.count(usual_line), len(found)
        yield key, "text_pattern", form == usual_form, bool(form)
        yield key, "distinct_4", *distinct_ngrams(lines)
        yield key, "repeats", repeats_phrase(lines), bool(lines)
        if common is not None:
            own = [sum(word is not None for word in line.words) for line in lines]
            said = sum(n for n, line in zip(own, lines, strict=True) if line.verbatim in common)
            yield key, "shared", said, sum(own)


def _kept(lines: Sequence[Line], shown: Shown, reader: LineReader) -> Iterator[tuple[str, float, float]]:
    """Events that are named, equal titles met in order; and of these, which fields stand beside a mention."""
    stated: dict[int, set[str]] = {}
    for line in lines:
        for number, (title, _, _) in enumerate(line.mentions):
            places = shown.places.get(with_leading_article(title))
            if places:
                place = next((place for place in places if place not in stated), places[-1])
                stated.setdefault(place, set()).update(
                    fields_beside(beside(line, number), shown.events[place], reader.genres)
                )
    yield "events_kept", len(stated), sum(map(len, shown.places.values()))
    for field in FIELDS:
        having = [found for place, found in stated.items() if field in present_fields(shown.events[place])]
        yield f"beside.{field}", sum(field in found for found in having), len(having)


def _form(patterns: Sequence[str]) -> str:
    """The patterns of a text's lines, a repeated one once."""
    return "\n".join(p for i, p in enumerate(patterns) if i == 0 or p != patterns[i - 1])


def _most_frequent(values: Sequence[str]) -> str:
    """Of several the first in the alphabet; "" of none."""
    return min(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]), default=("", 0))[0]


def _common_lines(
    keys: Sequence[str], read: Sequence[Sequence[Line]], users: Mapping[str, str]
) -> frozenset[str] | None:
    """Lines, titles masked, in the texts of more than half of the users; None where there are too few users to tell."""
    holders: dict[str, set[str]] = defaultdict(set)
    for key, lines in zip(keys, read, strict=True):
        for line in lines:
            holders[line.verbatim].add(users[key])
    crowd = len({users[key] for key in keys})
    return None if crowd < _SHARED_USERS else frozenset(v for v, who in holders.items() if 2 * len(who) > crowd)
