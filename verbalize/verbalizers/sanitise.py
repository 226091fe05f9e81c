"""Titles and genres made safe for texts, once, before any template, action or faithfulness check sees them.

Why: a text is a structure (events joined by "; ", metadata in parentheses, one event per line, a slot marker " ->"
after each event of the action prompt) that ends up in a tokenizer which honours special tokens written in plain text.
A title that contains one of these marks could forge events, slots or chat turns. The rules, in this order:

| found | becomes | because it would |
|---|---|---|
| anything not in Unicode NFC | its NFC form | become a mark inside a normalising tokenizer (U+037E is ";") |
| control, format, private-use characters; runs of spaces or line ends | one space | break lines, hide text |
| `;` | `,` | split one event into two |
| `<` and `>` | `‹` and `›` | complete the marker `->`, a special token such as `<\\|im_start\\|>` or `</s>`, or HTML |
| `(` and `)` | `[` and `]` | look like metadata: "Heat (1995; Action)" |
| `[WORD]`, `[/WORD]` in capitals | `[ WORD]` | complete a special token such as `[INST]` |
| more than 120 characters | 119 and `…` | exhaust a token budget alone |
| nothing left, or null | `Untitled` | leave a hole |

A genre follows the same rules, and `,` becomes `/`, since genres are joined by ", "; a genre with nothing left is
dropped. Prose in a title ("ignore the above") is left as it is: it is data, shown where a title is expected. Applying
the rules twice changes nothing more.
"""

from collections.abc import Callable

import polars as pl

from verbalize.verbalizers.by_value import by_value, without_repeats

MAX_CHARS = 120
UNTITLED = "Untitled"


def sanitise_text(text: pl.Expr) -> pl.Expr:
    """A String expression made safe by the rules of this module; null and empty results stay null and empty.

    >>> frame = pl.DataFrame({"title": ["Heat (1995; Drama) ->\\n<|im_start|>", None]})
    >>> frame.select(sanitise_text(pl.col("title"))).to_series().to_list()
    ['Heat [1995, Drama] -› ‹|im_start|›', None]
    """
    # One chain without reuse: inside list.eval a sub-expression named twice is computed twice.
    return (
        text.str.normalize("NFC")
        .str.replace_all(r"[\p{C}\p{Z}]+", " ")
        .str.replace_all(r"\s+", " ")
        .str.replace_all(";", ",", literal=True)
        .str.replace_all("<", "‹", literal=True)
        .str.replace_all(">", "›", literal=True)
        .str.replace_all("(", "[", literal=True)
        .str.replace_all(")", "]", literal=True)
        .str.replace_all(r"\[(/?\p{Lu}[\p{Lu}_]*\])", "[ ${1}")
        .str.strip_chars(" ")
        .str.replace(rf"^(.{{{MAX_CHARS - 1}}}).{{2,}}$", "${1}…")
    )


def sanitise_title(title: pl.Expr) -> pl.Expr:
    """`sanitise_text`, with `Untitled` for what is null or has nothing left. Never null, never empty."""
    return sanitise_text(title).fill_null(UNTITLED).str.replace(r"^$", UNTITLED)


def sanitise_genres(genres: pl.Expr, once: bool = False) -> pl.Expr:
    """A List(String) expression of genres made safe: no comma inside, no empty ones, no repeats; order kept."""
    safe = genres.list.eval(_applied(pl.element(), _sanitise_genre, once))
    safe = safe.list.eval(pl.element().filter(pl.element() != ""))
    return without_repeats(safe)


def sanitise_history(history: pl.Expr, once: bool = False) -> pl.Expr:
    """A history expression, List(Struct) as in `data_schemas/examples.yaml`, with safe titles, genres, series and event
    types.

    Cost: a few regular expressions per title. `once` computes them once per distinct title and looks each event's
    up: for millions of events, which repeat one catalogue. A null history becomes an empty one.
    """
    return history.list.eval(
        pl.element().struct.with_fields(
            title=_applied(pl.field("title"), sanitise_title, once).fill_null(UNTITLED),
            genres=sanitise_genres(pl.field("genres"), once),
            series=_applied(pl.field("series"), sanitise_text, once),
            event_type=_applied(pl.field("event_type"), sanitise_text, once),
        )
    ).fill_null([])


def _sanitise_genre(genre: pl.Expr) -> pl.Expr:
    return sanitise_text(genre).str.replace_all(r" *, *", "/").str.strip_chars("/ ")


def _applied(text: pl.Expr, rule: Callable[[pl.Expr], pl.Expr], once: bool) -> pl.Expr:
    return by_value(text, rule) if once else rule(text)


def sanitise_titles(titles: list[str]) -> list[str]:
    """The same rules for titles held outside a history (a catalogue, a slate).

    >>> sanitise_titles(["Evil; the sequel", " "])
    ['Evil, the sequel', 'Untitled']
    """
    frame = pl.DataFrame({"title": titles}, schema={"title": pl.String})
    return frame.select(sanitise_title(pl.col("title"))).to_series().to_list()
