"""Fixed verbalizations: named Polars expressions from a history to a text.

They are the baselines, the warm-start pool and the vocabulary of the action executor. `TEMPLATES` maps a name to a
`Template`; `TemplateVerbalizer` puts one behind the verbalizer protocol. Each template lists the history fields it
may show, so that a learned verbalizer is compared with the best template *allowed the same fields*
(`templates_within`).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import polars as pl

from recsys.errors import InputError
from verbalize.verbalizers import template_expressions as expressions
from verbalize.verbalizers.base import guard_inputs
from verbalize.verbalizers.sanitise import sanitise_history
from verbalize.verbalizers.series import titles_by_series

TITLE = frozenset({"title"})
METADATA = TITLE | {"year", "genres"}
LOG = TITLE | {"event_time", "event_type", "duration_s", "rating"}


@dataclass(frozen=True)
class Template:
    """A named text of a history.

    `build` maps a sanitised history expression to a String expression; `fields` are the history fields the text may
    show.
    """

    name: str
    description: str
    build: Callable[[pl.Expr], pl.Expr]
    fields: frozenset[str]

    def expression(self, history: str = "history", recent: int | None = None) -> pl.Expr:
        """The text as one lazy expression over column `history`, of its last `recent` events only if given.

        Cost: titles are sanitised once per place where the text reads the history (about ten in a profile);
        `TemplateVerbalizer` sanitises once.

        >>> import datetime as dt
        >>> from recsys.contracts import schema
        >>> day = dt.datetime(2025, 6, 8, tzinfo=dt.timezone.utc)
        >>> event = {"item_id": "1", "title": "Heat", "year": 1995, "genres": ["Action", "Crime"], "event_time": day,
        ...          "event_type": "rating", "rating": 4.0, "duration_s": None, "completion": None}
        >>> frame = pl.DataFrame({"history": [[event, event | {"title": "Alien", "year": None, "genres": ["Horror"]}]]},
        ...                      schema_overrides={"history": schema("examples")["history"]})
        >>> for name in ("titles", "titles_metadata", "concatenation", "profile"):
        ...     print(frame.lazy().select(TEMPLATES[name].expression()).collect().item())
        Heat; Alien
        Heat (1995; Action, Crime); Alien (Horror)
        20250608, Sunday, Heat, Rating, rating 4.0
        20250608, Sunday, Alien, Rating, rating 4.0
        2 events. Top genres: Action (1), Crime (1), Horror (1). Median year 1995, decades 1990s (1). Mean rating 4.0.
        """
        return self.build(_events(history, recent)).fill_null("")


def _events(history: str, recent: int | None, once: bool = False) -> pl.Expr:
    return sanitise_history(pl.col(history) if recent is None else pl.col(history).list.tail(recent), once)


@dataclass(frozen=True)
class EventTexts:
    """A template's `build` whose texts are those of single events, joined; of the `last` events only if given.

    `event` is an expression over one sanitised event (`template_expressions`): what is said of an event depends on that
    event alone, so whoever holds a log may write it once (`log_texts`).
    """

    event: pl.Expr
    separator: str = expressions.EVENT_SEPARATOR
    last: int | None = None

    def __call__(self, history: pl.Expr) -> pl.Expr:
        shown = history if self.last is None else history.list.tail(self.last)
        return expressions.joined(shown, self.event, self.separator)


_TITLE, _DETAILED = expressions.field("title"), expressions.event_title_with_metadata()


def _registry(*templates: Template) -> dict[str, Template]:
    return {template.name: template for template in templates}


TEMPLATES: dict[str, Template] = _registry(
    Template(
        "concatenation",
        "The paper's log: date, weekday, title, event type, duration and rating of every event, one per line.",
        EventTexts(expressions.event_log_line(_TITLE), "\n"),
        LOG,
    ),
    Template(
        "concatenation_metadata",
        "The paper's log with year and genres after each title.",
        EventTexts(expressions.event_log_line(_DETAILED), "\n"),
        LOG | METADATA,
    ),
    Template("titles", "Bare titles: A; B; C", EventTexts(_TITLE), TITLE),
    Template(
        "titles_metadata",
        "Titles with metadata: A (1995; Animation, Comedy); B (Drama)",
        EventTexts(_DETAILED),
        METADATA,
    ),
    Template(
        "json",
        "A JSON array, one object per event, missing fields left out.",
        expressions.json_array,
        LOG | METADATA | {"completion"},
    ),
    Template(
        "sessions",
        "Titles grouped by gaps of more than 30 minutes, each group headed by its date: Sunday 8 June 2025: A; B.",
        expressions.sessions,
        TITLE | {"event_time"},
    ),
    Template(
        "titles_series",
        "Titles with consecutive episodes of a series joined: A; 5 episodes of B; C.",
        lambda history: titles_by_series(history, _TITLE),
        TITLE | {"series"},
    ),
    Template(
        "titles_series_metadata",
        "The same with metadata after every title that stands alone.",
        lambda history: titles_by_series(history, _DETAILED),
        METADATA | {"series"},
    ),
    Template("recent_5", "The 5 most recent titles.", EventTexts(_TITLE, last=5), TITLE),
    Template("recent_10", "The 10 most recent titles.", EventTexts(_TITLE, last=10), TITLE),
    Template(
        "recent_5_metadata",
        "The 5 most recent titles with metadata.",
        EventTexts(_DETAILED, last=5),
        METADATA,
    ),
    Template(
        "recent_10_metadata",
        "The 10 most recent titles with metadata.",
        EventTexts(_DETAILED, last=10),
        METADATA,
    ),
    Template(
        "profile",
        "A statistical taste profile: number of events, top genres and decades with counts, median year, mean rating.",
        expressions.profile,
        frozenset({"year", "genres", "rating"}),
    ),
    Template(
        "profile_unrated",
        "The taste profile without ratings: what year and genres alone can say.",
        lambda history: expressions.profile(history, ratings=False),
        frozenset({"year", "genres"}),
    ),
    Template(
        "profile_recent",
        "The taste profile and the 3 most recent titles.",
        expressions.profile_and_recent,
        METADATA | {"rating"},
    ),
    Template(
        "profile_recent_unrated",
        "The taste profile without ratings and the 3 most recent titles.",
        lambda history: expressions.profile_and_recent(history, ratings=False),
        METADATA,
    ),
)


def template(name: str) -> Template:
    """Look a template up. Raises InputError listing the known names."""
    if name not in TEMPLATES:
        raise InputError(f"template {name!r}", "is not a known template", f"use one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def templates_within(fields: Collection[str]) -> list[str]:
    """Names of the templates that show no field outside `fields`, in registry order.

    >>> templates_within({"title"})
    ['titles', 'recent_5', 'recent_10']
    """
    return [name for name, entry in TEMPLATES.items() if entry.fields <= set(fields)]


def candidate_texts(inputs: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Several templates over the same B inputs: one String column per name, (B, len(names)).

    Histories are sanitised once, and the templates run side by side. `log_texts` writes the same faster where the log
    is at hand. Raises InputError for an unknown name.
    """
    chosen = [template(name) for name in names]
    safe = guard_inputs(inputs).select(history=_events("history", None, once=True))
    return safe.select(entry.build(pl.col("history")).fill_null("").alias(entry.name) for entry in chosen)


class TemplateVerbalizer:
    """A template behind the verbalizer protocol, optionally over the `recent` last events only.

    Raises InputError for an unknown name or `recent` < 1.
    """

    def __init__(self, name: str, recent: int | None = None) -> None:
        if recent is not None and recent < 1:
            raise InputError(f"recent {recent}", "must keep at least one event", "set recent >= 1 or leave it out")
        self.template = template(name)
        self.recent = recent
        self.name = name if recent is None else f"{name}@{recent}"

    def verbalize(self, inputs: pl.DataFrame) -> list[str]:
        """B rows of example_id, cutoff_time, history -> B texts, in row order."""
        # Sanitised once and then read: `expression` alone would sanitise again wherever its text reads the history.
        safe = guard_inputs(inputs).select(history=_events("history", self.recent, once=True))
        return safe.select(text=self.template.build(pl.col("history")).fill_null("")).to_series().to_list()
