"""MovieLens in the layouts it circulates in: RecBole's atomic files, GroupLens' 100k, 1M and newer CSV sets, each as a
table mapping.

Titles are put back into reading order ("Matrix, The (1999)" is "The Matrix" of 1999); the placeholders that the sets
use for an unknown title or genre become missing. An engaged target is a rating of at least 4 of 5.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import InputError
from recsys.logs.sources import table
from recsys.logs.sources.files import FileConfig, scan
from recsys.logs.tables import PassingLog, RawLog

_NO_TITLE = ["unknown", "unkonwn"]  # the second spelling is RecBole's
_NO_YEAR = [*_NO_TITLE, "V"]  # one title of RecBole's ends in "(1995) (V)", for video: its year stayed in the title
_NO_GENRE = ["unknown", "(no genres listed)"]
_FLAGS = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_U_ITEM = FileConfig("u.item", "csv", "|", ("item", "title", "date", "video", "url", *_FLAGS), "latin-1")


def read(path: Path | str) -> RawLog:
    """The MovieLens log in a folder (or beside a file), whichever known layout it holds. Raises InputError when it
    holds none."""
    folder, mapping = _layout(Path(path))
    raw = table.read(folder, mapping)
    return dataclasses.replace(raw, items=_flagged(raw.items, folder)) if _is_100k(mapping) else raw


def read_passing(path: Path | str) -> PassingLog:
    """The same, its ratings left in their file."""
    folder, mapping = _layout(Path(path))
    log = table.read_passing(folder, mapping)
    return dataclasses.replace(log, items=_flagged(log.items, folder)) if _is_100k(mapping) else log


def _layout(path: Path) -> tuple[Path, dict[str, Any]]:
    """The folder, and the mapping of what it holds."""
    folder = path.parent if path.is_file() else path
    names = {entry.name for entry in folder.iterdir()}
    atomic = sorted(name.removesuffix(".inter") for name in names if name.endswith(".inter"))
    if atomic and f"{atomic[0]}.item" in names:
        header = scan(FileConfig(f"{atomic[0]}.item"), folder).collect_schema().names()
        return folder, _atomic(atomic[0], header)
    if {"ratings.csv", "movies.csv"} <= names:
        return folder, _grouplens("ratings.csv", "movies.csv", ",", None, "utf-8")
    if {"ratings.dat", "movies.dat"} <= names:
        columns = ["userId", "movieId", "rating", "timestamp"]
        return folder, _grouplens("ratings.dat", "movies.dat", "::", columns, "latin-1")
    if {"u.data", "u.item"} <= names:
        return folder, _hundred_k()
    raise InputError(
        f"folder {folder} with {sorted(names)[:12]}",
        "holds no MovieLens layout",
        "expected *.inter with *.item, ratings.csv with movies.csv, ratings.dat with movies.dat, u.data with u.item; "
        "other logs are read with source.kind: table",
    )


def _mapping(events: dict[str, Any], items: dict[str, Any]) -> dict[str, Any]:
    return {"events": {**events, "event_type": "rating"}, "items": items, "engaged": {"rating_at_least": 4}}


def _title(column: str) -> dict[str, Any]:
    return {"from": column, "article": "suffix", "missing": _NO_TITLE, "year": "suffix"}


def _atomic(name: str, header: list[str]) -> dict[str, Any]:
    columns = {
        "user_id": "user_id:token",
        "item_id": "item_id:token",
        "rating": {"from": "rating:float", "scale": [0, 5]},
        "event_time": {"from": "timestamp:float", "unit": "s"},
    }
    genres = next((field for field in header if field.startswith(("class", "genre"))), "class:token_seq")
    items: dict[str, Any] = {
        "item_id": "item_id:token",
        "title": _title("movie_title:token_seq"),
        "genres": {"from": genres, "separator": " ", "missing": _NO_GENRE},
    }
    if "release_year:token" in header:
        items["year"] = {"from": "release_year:token", "missing": _NO_YEAR}
    return _mapping({"file": f"{name}.inter", "columns": columns}, {"file": f"{name}.item", "columns": items})


def _grouplens(ratings: str, movies: str, separator: str, header: list[str] | None, encoding: str) -> dict[str, Any]:
    columns = {
        "user_id": "userId",
        "item_id": "movieId",
        "rating": {"from": "rating", "scale": [0, 5]},
        "event_time": {"from": "timestamp", "unit": "s"},
    }
    items = {"item_id": "movieId", "title": _title("title"), "genres": {"from": "genres", "missing": _NO_GENRE}}
    shape: dict[str, Any] = {"separator": separator, "encoding": encoding}
    return _mapping(
        {"file": ratings, **shape, **({"header": header} if header else {}), "columns": columns},
        {"file": movies, **shape, **({"header": ["movieId", "title", "genres"]} if header else {}), "columns": items},
    )


def _hundred_k() -> dict[str, Any]:
    columns = {
        "user_id": "user",
        "item_id": "item",
        "rating": {"from": "rating", "scale": [0, 5]},
        "event_time": {"from": "time", "unit": "s"},
    }
    items = {"item_id": "item", "title": _title("title")}
    return _mapping(
        {"file": "u.data", "separator": "\t", "header": ["user", "item", "rating", "time"], "columns": columns},
        {**dataclasses.asdict(_U_ITEM), "columns": items},
    )


def _is_100k(mapping: Mapping[str, Any]) -> bool:
    return bool(mapping["items"]["file"] == _U_ITEM.file)


def _flagged(items: pl.DataFrame | None, folder: Path) -> pl.DataFrame:
    """Items with genres from the nineteen 0/1 columns of u.item (same rows, same order)."""
    flags = scan(_U_ITEM, folder).select(
        pl.concat_list(pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in _FLAGS if genre != "unknown")
        .list.drop_nulls()
        .alias("genres")
    )
    assert items is not None
    return items.with_columns(flags.collect()["genres"])
