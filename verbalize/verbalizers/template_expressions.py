"""Building blocks of the templates: Polars expressions from a (sanitised) history to a text, no loop over events or
rows.

`history` below is always an expression of type List(Struct), oldest event first, as in `data_schemas/examples.yaml`,
already sanitised (`sanitise.sanitise_history`). Functions named `event_*` return expressions over `pl.element()`, one
event, for use inside `history.list.eval(...)`; the others return one String per history. Missing values leave out
their part of the text; an empty history gives "".
"""

from collections.abc import Sequence

import polars as pl

from recsys.errors import InputError
from verbalize.verbalizers.by_value import by_value, dates

SESSION_GAP_MINUTES = 30
PROFILE_GENRES = 5
PROFILE_DECADES = 2
EVENT_SEPARATOR = "; "
METADATA_FIELDS = ("year", "genres")


def field(name: str) -> pl.Expr:
    """One field of the event under evaluation."""
    return pl.element().struct.field(name)


def event_genres(separator: str = ", ") -> pl.Expr:
    """Genres joined, null when there are none."""
    return pl.when(field("genres").list.len() > 0).then(field("genres").list.join(separator))


def event_title_with_metadata(metadata_fields: Sequence[str] = METADATA_FIELDS) -> pl.Expr:
    """The title with metadata: "Heat (1995; Action, Crime)"; what is missing is left out, down to the bare title.

    Raises InputError on a field other than year and genres.
    """
    known = {"year": field("year").cast(pl.String), "genres": event_genres()}
    unknown = [name for name in metadata_fields if name not in known]
    if unknown:
        raise InputError(f"metadata fields {unknown}", f"only {list(known)} can follow a title", "remove the others")
    if not metadata_fields:
        return field("title")
    details = pl.concat_str([known[name] for name in metadata_fields], separator="; ", ignore_nulls=True)
    # Asked of the fields, not of the text: a sub-expression named twice inside list.eval is computed twice.
    present = {"year": field("year").is_not_null(), "genres": field("genres").list.len() > 0}
    shown = pl.any_horizontal(present[name] for name in metadata_fields)
    return pl.concat_str(
        [field("title"), pl.when(shown).then(pl.concat_str(pl.lit(" ("), details, pl.lit(")")))], ignore_nulls=True
    )


def event_log_line(title: pl.Expr) -> pl.Expr:
    """The paper's field concatenation: "20250608, Sunday, <title>, Play, Duration: 80.08 min, rating 4.0"."""
    minutes = (field("duration_s") / 60).round(2).cast(pl.String)
    return pl.concat_str(
        [
            dates(field("event_time"), "%Y%m%d, %A"),
            title,
            by_value(field("event_type"), lambda kind: kind.str.to_titlecase()),
            pl.concat_str(pl.lit("Duration: "), minutes, pl.lit(" min")),
            by_value(field("rating"), lambda rating: pl.concat_str(pl.lit("rating "), rating.round(2).cast(pl.String))),
        ],
        separator=", ",
        ignore_nulls=True,
    )


def event_json() -> pl.Expr:
    """One JSON object per event without its null fields; dates as YYYY-MM-DD."""
    values = {
        "title": field("title"),
        "year": field("year"),
        "genres": pl.when(field("genres").list.len() > 0).then(field("genres")),
        "date": dates(field("event_time"), "%Y-%m-%d"),
        "event": field("event_type"),
        "rating": field("rating").round(2),
        "duration_s": field("duration_s").round(1),
        "completion": field("completion").round(2),
    }
    # Encoding one-field structs and dropping their braces leaves every escape to the encoder and omits null fields.
    members = [
        pl.when(value.is_not_null()).then(
            pl.struct(value.alias(name)).struct.json_encode().str.strip_prefix("{").str.strip_suffix("}")
        )
        for name, value in values.items()
    ]
    return pl.concat_str([pl.lit("{"), pl.concat_str(members, separator=",", ignore_nulls=True), pl.lit("}")])


def joined(history: pl.Expr, event: pl.Expr, separator: str = EVENT_SEPARATOR) -> pl.Expr:
    """`event` for every event, joined."""
    return history.list.eval(event).list.join(separator)


def json_array(history: pl.Expr) -> pl.Expr:
    """A JSON array of `event_json` objects; "" for an empty history, as in every other template."""
    array = pl.concat_str(pl.lit("["), joined(history, event_json(), ", "), pl.lit("]"))
    return pl.when(history.list.len() > 0).then(array).otherwise(pl.lit(""))


def sessions(history: pl.Expr, gap_minutes: float = SESSION_GAP_MINUTES) -> pl.Expr:
    """Titles grouped where consecutive events lie at most `gap_minutes` apart: one line per session, headed by its
    date.

    A single pass: an event that opens a session brings the line break and the heading, any other brings "; ".
    """
    time = field("event_time")
    first = pl.int_range(pl.len()) == 0
    opens = first | (time.diff() > pl.duration(seconds=round(gap_minutes * 60)))
    heading = pl.concat_str(
        pl.when(first).then(pl.lit("")).otherwise(pl.lit(".\n")), time.dt.strftime("%A %-d %B %Y"), pl.lit(": ")
    )
    parts = pl.concat_str(pl.when(opens).then(heading).otherwise(pl.lit(EVENT_SEPARATOR)), field("title"))
    text = pl.concat_str(joined(history, parts, ""), pl.lit("."))
    return pl.when(history.list.len() > 0).then(text).otherwise(pl.lit(""))


def top_counts(values: pl.Expr, n: int) -> pl.Expr:
    """The `n` most frequent values of a list as List(Struct(value, count)): by count, then by value."""
    counts = values.list.eval(pl.element().drop_nulls().value_counts(name="count"))
    value, count = pl.element().struct[0], field("count")
    return counts.list.eval(pl.element().sort_by([count, value], descending=[True, False]).head(n))


def genre_counts(history: pl.Expr, n: int = PROFILE_GENRES) -> pl.Expr:
    """The `n` most frequent genres of a history with the number of events that carry each."""
    return top_counts(history.list.eval(field("genres").explode()), n)


def _named_counts(counts: pl.Expr, suffix: str = "") -> pl.Expr:
    value = pl.element().struct[0].cast(pl.String)
    text = counts.list.eval(
        pl.concat_str(value, pl.lit(f"{suffix} ("), field("count").cast(pl.String), pl.lit(")"))
    ).list.join(", ")
    return pl.when(text.str.len_chars() > 0).then(text)


def profile(history: pl.Expr, ratings: bool = True) -> pl.Expr:
    """ "12 events. Top genres: Drama (5), Comedy (3). Median year 1995, decades 1990s (8), 1980s (4). Mean rating 3.9."

    The median year of an even number of films is rounded down; parts without data are left out.
    """
    n = history.list.len()
    years = history.list.eval(field("year"))
    median = years.list.median().floor().cast(pl.Int32).cast(pl.String)
    decades = _named_counts(top_counts(years.list.eval(pl.element() // 10 * 10), PROFILE_DECADES), "s")
    mean = history.list.eval(field("rating")).list.mean().round(1).cast(pl.String)
    parts = [
        pl.concat_str(n.cast(pl.String), pl.when(n == 1).then(pl.lit(" event.")).otherwise(pl.lit(" events."))),
        pl.concat_str(pl.lit("Top genres: "), _named_counts(genre_counts(history)), pl.lit(".")),
        pl.concat_str(pl.lit("Median year "), median, pl.lit(", decades "), decades, pl.lit(".")),
        *([pl.concat_str(pl.lit("Mean rating "), mean, pl.lit("."))] if ratings else []),
    ]
    text = pl.concat_str(parts, separator=" ", ignore_nulls=True)
    return pl.when(n > 0).then(text).otherwise(pl.lit(""))


def profile_and_recent(history: pl.Expr, recent: int = 3, ratings: bool = True) -> pl.Expr:
    """The profile followed by "Recent: A; B; C."."""
    titles = joined(history.list.tail(recent), field("title"))
    text = pl.concat_str(profile(history, ratings), pl.lit(" Recent: "), titles, pl.lit("."))
    return pl.when(history.list.len() > 0).then(text).otherwise(pl.lit(""))
