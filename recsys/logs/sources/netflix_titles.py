"""Titles as Netflix writes them in a viewing history: which are episodes, of which series, and which are hooks.

An episode is "Show: Season 1: Name (Episode 3)" in the language of the profile. Parts are separated by a colon and a
space (or a full-width colon), and show, season and episode may each hold more of them, so the *season* decides: the
series is everything before the first part, after the show, that names one (Season 2, Staffel 2, 2. Sezon, Limited
Series, Part 1 ...) and is followed by another part. Without it a closing "(Episode 3)" decides: the last part is the
episode and, of three or more, the one before it the season's own name ("Show: Coven: Name (Episode 3)"). Anything else
is a film, colons or not: "Kill Bill: Vol. 1" ends in its volume.

In the short form, without "(Episode 3)", seasons with names of their own cannot be told from films: they stay single.
"""

import polars as pl

_SEASONS = (
    "seasons?|series|serie|série|staffel|saison|temporada|stagione|seizoen|sesong|säsong|sæson|kausi|sezon|sezona|sezonul"
    "|évad|série|řada|séria|сезон|κύκλος|σεζόν|עונה|الموسم|シーズン|シリーズ|시즌|musim|mùa|ซีซั่น|ปี"
    "|part|parte|partie|teil|deel|del|osa|część|bölüm|часть|volume|volumen|vol\\.?|band|book|buch|livre|libro|chapter"
    "|kapitel|chapitre|capítulo|collection|kollektion"
)
_NUMBER = r"(?:\d+|[ivx]+|one|two|three|four|five|six|seven|eight|nine|ten)"
_ALONE = (
    "limited series|miniseries|mini-series|mini series|miniserie|miniserien|minisérie|mini-série|série limitée|serie"
    " limitada|minissérie|miniserial|мини-сериал|リミテッドシリーズ|리미티드 시리즈|限定シリーズ"
)
SEASON = rf"(?i)^(?:(?:{_SEASONS})\s*{_NUMBER}\b.*|{_NUMBER}\.?\s*(?:{_SEASONS})|第\s*\S+\s*[季期]|{_ALONE})$"
"""Of one part: does it name a season?"""
NUMBERED = r"\([^()\d]+\d+\)$"
"""Of the last part: does it end in an episode's number, "(Folge 3)"?"""
_HOOK = r"(?i)_(?:hook|trailer|teaser|clip|promo)(?:_.*)?$"
_MARK = "\x1f"


def episode(title: str) -> pl.Expr:
    """Of a column of cleaned titles, the struct `episode`: series (its title, null for what is no episode).

    >>> titles = ["Star Trek: Picard: Season 2: Mercy (Episode 8)", "Mission: Impossible", "Kill Bill: Vol. 1"]
    >>> frame = pl.DataFrame({"title": [*titles, "Dark : Saison 1 : Secrets (Épisode 1)"]})
    >>> frame.select(episode("title")).unnest("episode")["series"].to_list()
    ['Star Trek: Picard', None, None, 'Dark']
    """
    marked = pl.col(title).str.replace_all(r"\s*：\s*|\s*:\s+", _MARK)
    parts = marked.str.split(_MARK)
    n = parts.list.len().cast(pl.Int64)
    # Place of the first part, neither the show nor the last, that names a season.
    place = pl.element().str.contains(SEASON) & (pl.int_range(pl.len()) >= 1) & (pl.int_range(pl.len()) < pl.len() - 1)
    season = parts.list.eval(place.arg_true().first()).list.first().cast(pl.Int64)
    numbered = parts.list.last().str.contains(NUMBERED) & (n >= 2)
    show = pl.when(season.is_not_null()).then(season).when(numbered).then(pl.max_horizontal(n - 2, pl.lit(1)))
    series = pl.when(show.is_not_null()).then(parts.list.head(show).list.join(": "))
    return pl.struct(series.alias("series")).alias("episode")


def hook(title: str) -> list[pl.Expr]:
    """Of a column of cleaned titles: `hook`, whether it names a preview by its file ("Dark_hook_primary_16x9"), and the
    column itself without that ending."""
    bare = pl.col(title).str.replace(_HOOK, "").str.strip_chars()
    return [
        pl.col(title).str.contains(_HOOK).fill_null(False).alias("hook"),
        pl.when(bare != "").then(bare).otherwise(pl.col(title)).alias(title),
    ]
