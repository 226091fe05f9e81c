"""Cleaning of text that came from outside: expressions over string columns, shared by sources and `events`."""

import polars as pl

ARTICLES = (
    "The",
    "A",
    "An",
    "La",
    "Le",
    "Les",
    "L'",
    "Il",
    "Lo",
    "Gli",
    "I",
    "Un",
    "Une",
    "Una",
    "El",
    "Los",
    "Las",
    "Der",
    "Die",
    "Das",
    "Ein",
    "Eine",
    "Det",
    "Den",
    "De",
    "Het",
    "En",
    "Et",
    "O",
    "Os",
    "As",
)
_LIST = "|".join(sorted(ARTICLES, key=len, reverse=True))


def clean(text: pl.Expr) -> pl.Expr:
    """Control characters and line breaks become spaces, invisible format characters vanish, spaces fold; empty becomes
    null.

    What a title *says* is left alone (markup, prompt-like phrases): escaping belongs to whoever prints it.

    >>> pl.select(clean(pl.lit(" The\\nMatrix\\x00 \\u202e(uncut) "))).item()
    'The Matrix (uncut)'
    """
    folded = text.str.replace_all(r"\p{Cf}", "").str.replace_all(r"[\p{Cc}\p{Zl}\p{Zp}\s]+", " ").str.strip_chars()
    return pl.when(folded != "").then(folded)


def year_suffix(title: pl.Expr) -> pl.Expr:
    """The year in the last parentheses of a title, Int32; null when there is none.

    >>> pl.select(year_suffix(pl.lit("Matrix, The (1999)"))).item()
    1999
    """
    return title.str.extract(r"\(((?:18|19|20)[0-9]{2})(?:[-–/][0-9]{0,4})?\)\s*$").cast(pl.Int32)


def without_year(title: pl.Expr) -> pl.Expr:
    """A title without the year in its last parentheses."""
    return title.str.replace(r"\s*\((?:18|19|20)[0-9]{2}(?:[-–/][0-9]{0,4})?\)\s*$", "")


def article_first(title: pl.Expr) -> pl.Expr:
    """Catalogue order back to reading order, for the title and for one alternative in parentheses.

    >>> for title in ("Matrix, The", "Avventura, L'", "Blue Angel, The (Blaue Engel, Der)", "Me, Myself, I"):
    ...     print(pl.select(article_first(pl.lit(title))).item())
    The Matrix
    L'Avventura
    The Blue Angel (Der Blaue Engel)
    Me, Myself, I
    """
    # A bare "I" is far more often the pronoun than the Italian article.
    articles = "|".join(article for article in _LIST.split("|") if article != "I")
    title = title.str.replace(rf"^([^()]*\S), ({articles})(\s*\([^()]*\))?$", "${2} ${1}${3}")
    title = title.str.replace(rf"\(([^()]*\S), ({articles})\)$", "(${2} ${1})")
    return title.str.replace_all(r"(^|\()L' ", "${1}L'")
