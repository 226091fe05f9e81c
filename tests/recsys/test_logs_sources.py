"""Sources: every layout reads to the same log; units, columns and mappings that are wrong are refused with a remedy."""

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.errors import CorruptFileError, InputError
from recsys.logs.events import canonicalise
from recsys.logs.examples import ExamplesConfig, build_examples
from recsys.logs.sources import SourceConfig, open_source, table
from recsys.logs.tables import Log
from recsys.logs.text import article_first, clean, without_year, year_suffix

ROOT = Path(__file__).parents[2]
MOVIETWEETINGS = ROOT.parent / "shared/data/movietweetings-100k"
MAPPING = ROOT / "experiments/mappings/movietweetings.yaml"

RATINGS = [("1", "10", 5, 874965758), ("1", "20", 3, 874965759), ("2", "10", 4, 874965760), ("2", "30", 1, 874965761)]


def movies(articles: bool) -> list[tuple[str, str, int, list[str]]]:
    matrix = "Matrix, The" if articles else "The Matrix"
    return [
        ("10", matrix, 1999, ["Action", "Sci-Fi"]),
        ("20", 'Amélie: "le" film', 2001, ["Comedy"]),
        ("30", "12 Angry Men", 1957, []),
    ]


def write_layout(folder: Path, layout: str) -> Path:
    """The same four ratings of three films in one of the layouts MovieLens circulates in."""
    rows = movies(articles=True)
    if layout == "atomic":
        (folder / "tiny.inter").write_text(
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
            + "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in RATINGS)
        )
        (folder / "tiny.item").write_text(
            "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
            + "".join(f"{i}\t{title}\t{year}\t{' '.join(genres) or 'unknown'}\n" for i, title, year, genres in rows)
            + "40\tunkonwn\tunkonwn\tunknown\n",
            encoding="utf-8",
        )
    elif layout == "csv":
        quoted = [(i, title.replace('"', '""'), year, genres) for i, title, year, genres in rows]
        (folder / "ratings.csv").write_text(
            "userId,movieId,rating,timestamp\n" + "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in RATINGS)
        )
        (folder / "movies.csv").write_text(
            "movieId,title,genres\n"
            + "".join(
                f'{i},"{title} ({year})",{"|".join(genres) or "(no genres listed)"}\n'
                for i, title, year, genres in quoted
            ),
            encoding="utf-8",
        )
    elif layout == "dat":
        (folder / "ratings.dat").write_text("".join(f"{u}::{i}::{r}::{t}\n" for u, i, r, t in RATINGS))
        (folder / "movies.dat").write_text(
            "".join(f"{i}::{title} ({year})::{'|'.join(genres)}\n" for i, title, year, genres in rows),
            encoding="latin-1",
        )
    else:
        names = [
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
        ]
        (folder / "u.data").write_text("".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in RATINGS))
        (folder / "u.item").write_text(
            "".join(
                f"{i}|{title} ({year})|01-Jan-{year}||http://x|{'|'.join(str(int(name in genres)) for name in names)}\n"
                for i, title, year, genres in rows
            )
            + "40|unknown||||"
            + "|".join("1" + "0" * 18)
            + "\n",
            encoding="latin-1",
        )
    return folder


@pytest.mark.parametrize("layout", ["atomic", "csv", "dat", "u"])
def test_every_movielens_layout_reads_the_same(tmp_path: Path, layout: str) -> None:
    raw = open_source(SourceConfig(kind="movielens", path=str(write_layout(tmp_path, layout))))
    log = canonicalise(raw)
    assert log.items.select("item_id", "title", "year", "genres").rows() == movies(articles=False)
    found = log.events.select("user_id", "item_id", "rating", pl.col("event_time").dt.epoch("s")).rows()
    assert found == [(u, i, float(r), t) for u, i, r, t in RATINGS]
    assert log.events["event_type"].unique().to_list() == ["rating"]
    assert raw.engaged is not None and raw.engaged.rating_at_least == 4


def test_titles() -> None:
    frame = pl.DataFrame(
        {
            "title": [
                "Matrix, The (1999)",
                "Good, the Bad and the Ugly, The (1966)",
                "Blue Angel, The (Blaue Engel, Der) (1930)",
                "2001: A Space Odyssey (1968)",
                "1984",
                "Avventura, L' (1960)",
                "Broken (Hearts)",
                "Doctor Who (2005-2010)",
                "Love, Actually (2003)",
                "Les Misérables (1998)",
            ]
        }
    )
    year, title = year_suffix(pl.col("title")), article_first(without_year(pl.col("title")))
    assert frame.select(title.alias("t"), year.alias("y")).rows() == [
        ("The Matrix", 1999),
        ("The Good, the Bad and the Ugly", 1966),
        ("The Blue Angel (Der Blaue Engel)", 1930),
        ("2001: A Space Odyssey", 1968),
        ("1984", None),
        ("L'Avventura", 1960),
        ("Broken (Hearts)", None),
        ("Doctor Who", 2005),
        ("Love, Actually", 2003),
        ("Les Misérables", 1998),
    ]
    assert (
        pl.select(clean(pl.lit("Ignore\r\n\u2028all\u200b <b>rules</b>\x1b[31m"))).item()
        == "Ignore all <b>rules</b> [31m"
    )


BASE: dict[str, Any] = {
    "file": "log.csv",
    "columns": {"user_id": "who", "item_id": "what", "event_time": {"from": "when", "unit": "s"}, "title": "name"},
    "event_type": "play",
}


def csv_log(folder: Path, when: list[object], **columns: list[object]) -> Path:
    data = {
        "who": ["a"] * len(when),
        "what": [f"i{n}" for n in range(len(when))],
        "when": when,
        "name": [f"T{n}" for n in range(len(when))],
        **columns,
    }
    pl.DataFrame(data, strict=False).write_csv(folder / "log.csv")
    return folder


def with_columns(**columns: object) -> dict[str, Any]:
    return {"events": {**BASE, "columns": {**BASE["columns"], **columns}}}


def times(folder: Path, mapping: dict[str, Any]) -> list[str]:
    return [time.isoformat() for time in table.read(folder, mapping).events.collect()["event_time"]]


@pytest.mark.parametrize(
    ("value", "unit", "zone"),
    [
        (1577836800, "s", None),
        (1577836800000, "ms", None),
        (1577836800000000, "us", None),
        (1577836800000000000, "ns", None),
        ("2020-01-01", "iso", None),
        ("2020-01-01T00:00:00Z", "iso", None),
        ("2020-01-01 02:00:00+02:00", "iso", None),
        ("2020-01-01 01:00", "iso", "Europe/Berlin"),
        ("2020-01-01 01:00:00.000", "iso", "Europe/Berlin"),
    ],
)
def test_units_of_time(tmp_path: Path, value: object, unit: str, zone: str | None) -> None:
    spec = {"from": "when", "unit": unit, **({"zone": zone} if zone else {})}
    assert times(csv_log(tmp_path, [value]), with_columns(event_time=spec)) == ["2020-01-01T00:00:00+00:00"]


def test_microseconds_are_kept(tmp_path: Path) -> None:
    assert times(csv_log(tmp_path, ["1577836800000001"]), with_columns(event_time={"from": "when", "unit": "us"})) == [
        "2020-01-01T00:00:00.000001+00:00"
    ]
    assert times(csv_log(tmp_path, ["1577836800.25"]), with_columns()) == ["2020-01-01T00:00:00.250000+00:00"]


@pytest.mark.parametrize(
    ("value", "unit", "remedy"),
    [
        (1577836800000, "s", "declare unit: ms"),
        (1577836800, "ms", "declare unit: s"),
        (1577836800000000, "ms", "declare unit: us"),
        (12, "s", "declare the right unit"),
    ],
)
def test_swapped_units_are_refused(tmp_path: Path, value: int, unit: str, remedy: str) -> None:
    with pytest.raises(
        InputError,
        match=rf"events\.event_time \(column 'when'\), 1 of 1 rows, e\.g\. '{value}'.*outside 1990.*{remedy}",
    ):
        times(csv_log(tmp_path, [value]), with_columns(event_time={"from": "when", "unit": unit}))


@pytest.mark.parametrize(
    ("columns", "data", "message"),
    [
        (
            {"event_time": {"from": "when", "unit": "s"}},
            {"when": ["x", 1577836800]},
            "1 of 2 rows, e.g. 'x'.*not a time in unit 's'",
        ),
        (
            {"event_time": {"from": "when", "unit": "iso"}},
            {"when": ["2020-13-01", "2020-01-01"]},
            "not a time in unit 'iso'",
        ),
        (
            {"rating": {"from": "stars", "scale": [0, 5]}},
            {"stars": [3, 8]},
            r"events\.rating.*1 of 2 rows, e\.g\. '8'.*outside 0 \.\. 5",
        ),
        ({"rating": "stars"}, {"stars": ["good", "3"]}, "'good'.*cannot be read as Float64"),
        ({"completion": {"from": "share", "unit": "share"}}, {"share": [0.5, 80]}, r"'80\.0'.*outside 0 \.\. 1"),
        ({"duration_s": {"from": "length", "unit": "min"}}, {"length": [5, -1]}, r"'-1'.*outside 0"),
        (
            {"event_type": {"from": "kind", "values": {"p": "play"}}},
            {"kind": ["p", "q"]},
            "'q'.*not among the declared values",
        ),
    ],
)
def test_values_against_their_declaration(
    tmp_path: Path, columns: dict[str, Any], data: dict[str, list[object]], message: str
) -> None:
    mapping = with_columns(**columns)
    if "event_type" in columns:
        mapping["events"].pop("event_type")
    with pytest.raises(InputError, match=message):
        table.read(csv_log(tmp_path, data.pop("when", [1577836800, 1577836801]), **data), mapping)


def test_units_and_event_types_are_converted(tmp_path: Path) -> None:
    mapping = with_columns(
        duration_s={"from": "length", "unit": "min"},
        completion={"from": "share", "unit": "percent"},
        event_type={"from": "kind", "values": {"p": "play", "i": None}},
        genres={"from": "tags", "separator": ","},
    )
    mapping["events"].pop("event_type")
    folder = csv_log(
        tmp_path, [1577836800, 1577836801], length=[5, 6], share=[80, 20], kind=["p", "i"], tags=["War, Drama", ""]
    )
    row = table.read(folder, mapping).events.collect()
    assert row.select("duration_s", "completion", "event_type", "genres").rows() == [
        (300.0, 0.8, "play", ["War", "Drama"])
    ]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"events": {**BASE, "seperator": "|"}}, r"events\.seperator.*did you mean 'separator'"),
        ({"event": BASE}, "did you mean 'events'"),
        ({}, "say which file holds the interactions"),
        (with_columns(user="who"), "did you mean 'user_id'"),
        (with_columns(event_time="when"), "no unit.*event_time: {from: when, unit: s}"),
        (with_columns(event_time={"from": "when", "unit": "sec"}), "'sec'.*must be one of"),
        (with_columns(event_time={"from": "when", "unit": "s", "timezone": "UTC"}), "did you mean 'zone'"),
        (with_columns(user_id="whom"), r"column 'whom'.*is not in log\.csv; present: .*did you mean 'who'"),
        (with_columns(rating={"from": "x", "scale": [5, 1]}), r"must be \[lowest, highest\]"),
        (with_columns(title={"from": "name", "year": "prefix"}), "the only known place is `suffix`"),
        ({"events": {**BASE, "columns": {"user_id": "who"}}}, "does not map item_id"),
        ({"events": {key: value for key, value in BASE.items() if key != "event_type"}}, "must be given once"),
        ({"events": BASE, "engaged": {"rating_over": 3}}, "did you mean 'rating_at_least'"),
        ({"events": {**BASE, "file": "logs.csv"}}, r"no such file; beside it: \['log\.csv'\]"),
        ({"events": {**BASE, "format": "xml"}}, "a source is csv, parquet or jsonl"),
        ({"events": {**BASE, "header": ["a", "b"]}}, "names 2 columns, the file has 4"),
    ],
)
def test_wrong_mappings_name_the_remedy(tmp_path: Path, mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        table.read(csv_log(tmp_path, [1577836800]), mapping).events.collect()


def test_csv_parquet_and_json_lines_agree(tmp_path: Path) -> None:
    csv_log(tmp_path, [1577836800, 1577836900], stars=[4.5, 3.0])
    frame = pl.read_csv(tmp_path / "log.csv")
    frame.write_parquet(tmp_path / "log.parquet")
    frame.write_ndjson(tmp_path / "log.jsonl")
    frame.with_columns(pl.from_epoch("when")).write_parquet(tmp_path / "typed.parquet")
    mapping = with_columns(rating="stars")
    expected = table.read(tmp_path, mapping).events.collect()
    for name in ("log.parquet", "log.jsonl", "typed.parquet"):
        assert table.read(tmp_path, {"events": {**mapping["events"], "file": name}}).events.collect().equals(expected)
    whole = {"events": {key: value for key, value in mapping["events"].items() if key != "file"}}
    assert table.read(tmp_path / "log.jsonl", whole).events.collect().equals(expected)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name, content, message in (
        ("empty.csv", b"", "the file is empty"),
        ("bad.parquet", b"PAR1 no", "not readable as parquet"),
        ("bad.jsonl", b"{who: 1", "not readable as jsonl|could not be read"),
        ("latin.csv", b"who,what,when,name\na,b,1577836800,\xe9\n", "latin"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorruptFileError, match=message):
            table.read(tmp_path, {"events": {**BASE, "file": name}}).events.collect()
    (tmp_path / "ragged.dat").write_text("a::b::1577836800::T\na::b::1577836800\n")
    with pytest.raises(CorruptFileError, match=r"'a::b::1577836800'.*has 3 fields, expected 4"):
        table.read(
            tmp_path,
            {"events": {**BASE, "file": "ragged.dat", "separator": "::", "header": ["who", "what", "when", "name"]}},
        )
    (tmp_path / "latin.csv").write_bytes(b"who,what,when,name\na,b,1577836800,\xe9\n")
    assert (
        table.read(tmp_path, {"events": {**BASE, "file": "latin.csv", "encoding": "latin-1"}}).events.collect()[
            "title"
        ][0]
        == "é"
    )


def test_source_refusals(tmp_path: Path) -> None:
    for config, message in (
        (SourceConfig(path=str(tmp_path / "absent")), "does not exist"),
        (SourceConfig(kind="tables", path=str(tmp_path)), "use one of movielens, table.*did you mean 'table'"),
        (SourceConfig(path=str(tmp_path)), "holds no MovieLens layout"),
        (SourceConfig(kind="table", path=str(tmp_path)), "exactly one of them"),
        (SourceConfig(kind="table", path=str(tmp_path), mapping="absent.yaml"), "no such file.*about ten lines"),
    ):
        with pytest.raises(InputError, match=message):
            open_source(config)
    (tmp_path / "broken.yaml").write_text("events: [")
    with pytest.raises(CorruptFileError, match="not valid YAML"):
        table.read(tmp_path, tmp_path / "broken.yaml")


@pytest.fixture(scope="module")
def movietweetings() -> Log:
    if not MOVIETWEETINGS.is_dir():
        pytest.skip("MovieTweetings is not beside this checkout (../shared/data/movietweetings-100k)")
    return canonicalise(open_source(SourceConfig(kind="table", path=str(MOVIETWEETINGS), mapping=str(MAPPING))))


def test_a_second_data_set_through_a_short_mapping(movietweetings: Log) -> None:
    assert sum(1 for line in MAPPING.read_text().splitlines() if not line.startswith("#")) <= 12
    assert movietweetings.counts["events_kept"] == 100_000
    assert movietweetings.events["user_id"].n_unique() == 16_554
    assert movietweetings.items.filter(pl.col("year").is_null()).is_empty()
    assert movietweetings.items.filter(pl.col("item_id") == "0004972").select("title", "year", "genres").row(0) == (
        "The Birth of a Nation",
        1915,
        ["Drama", "History", "Romance", "War"],
    )
    assert (
        dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
        < movietweetings.events["event_time"].min()
        < movietweetings.events["event_time"].max()
    )
    examples, counts = build_examples(movietweetings, ExamplesConfig(history_max=12, targets_per_user=2))
    assert counts["examples_test"] > 1000
    assert (examples["history"].list.len().is_between(5, 12)).all()
    assert examples["is_discovery"].all()
