"""Folders and patterns as one source: the same log as one file, in the order of names, refusals that name the file."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.errors import CorruptFileError, InputError
from recsys.logs.sources import SourceConfig, open_source, read_log
from recsys.logs.sources.files import FileConfig, scan

ROWS = [(f"u{n % 5}", f"i{n % 7}", n % 5 + 1, 1_577_836_800 + 3_600 * n) for n in range(60)]
FRAME = pl.DataFrame(ROWS, ["user", "item", "stars", "at"], orient="row")
ITEMS = "item,name\n" + "".join(f"i{n},Film {n}\n" for n in range(7))


def mapping(file: str, **options: Any) -> dict[str, Any]:
    columns = {
        "user_id": "user",
        "item_id": "item",
        "rating": {"from": "stars", "scale": [0, 5]},
        "event_time": {"from": "at", "unit": "s"},
    }
    return {
        "events": {"file": file, "event_type": "rating", "columns": columns, **options},
        "items": {"file": "items.csv", "columns": {"item_id": "item", "title": "name"}},
    }


def write(frame: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        frame.write_csv(path)
    elif path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_ndjson(path)


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("file", ["days", "days/*.{kind}", "**/part-?.{kind}"])
def test_parts_are_the_log_of_one_file(tmp_path: Path, kind: str, file: str) -> None:
    (tmp_path / "items.csv").write_text(ITEMS)
    write(FRAME, tmp_path / f"whole.{kind}")
    for number, columns in enumerate((["user", "item", "stars", "at"], ["at", "stars", "item", "user"])):
        write(FRAME[number * 30 : number * 30 + 30].select(columns), tmp_path / "days" / f"part-{number}.{kind}")
    (tmp_path / "days" / "_SUCCESS").touch()
    (tmp_path / "days" / ".part-2.crc").write_text("x")
    whole = read_log(SourceConfig("table", str(tmp_path), inline=mapping(f"whole.{kind}")))
    parts = read_log(SourceConfig("table", str(tmp_path), inline=mapping(file.format(kind=kind))))
    assert parts.events.equals(whole.events) and parts.counts == whole.counts


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/1.csv", "a/2.csv", "a/1.csv", "c.csv"):
        write(pl.DataFrame({"from": [name]}), tmp_path / "logs" / name)
    frame = scan(FileConfig("logs"), tmp_path).collect()
    assert frame["from"].to_list() == ["a/1.csv", "a/2.csv", "b/1.csv", "c.csv"]
    assert scan(FileConfig(""), tmp_path / "logs").collect().equals(frame)
    for number in range(3):
        (tmp_path / f"{2 - number}.dat").write_text(f"{2 - number}::x\n")
    wide = scan(FileConfig("*.dat", separator="::", header=("n", "x")), tmp_path).collect()
    assert wide["n"].to_list() == ["0", "1", "2"]


def test_guessed_types_of_json_lines_meet_and_written_types_must_agree(tmp_path: Path) -> None:
    lines = ('{"r": 4, "g": [], "t": null}\n', '{"r": 4.5, "g": ["War"], "t": "x"}\n')
    for number, line in enumerate(lines):
        (tmp_path / f"{number}.jsonl").write_text(line)
    frame = scan(FileConfig("*.jsonl"), tmp_path).collect()
    assert frame.to_dict(as_series=False) == {"r": [4.0, 4.5], "g": [[], ["War"]], "t": [None, "x"]}
    write(pl.DataFrame({"user": [1, 2]}), tmp_path / "typed" / "a.parquet")
    write(pl.DataFrame({"user": [1.0, None]}), tmp_path / "typed" / "b.parquet")
    with pytest.raises(
        InputError, match=r"typed/b\.parquet: column 'user' of type Float64.*Int64 in.*typed/a\.parquet"
    ):
        scan(FileConfig("typed"), tmp_path)
    write(pl.DataFrame({"user": [3]}, {"user": pl.Int32}), tmp_path / "typed" / "b.parquet")
    assert scan(FileConfig("typed"), tmp_path).collect()["user"].to_list() == [1, 2, 3]


def test_a_file_that_does_not_fit_is_named_with_its_column(tmp_path: Path) -> None:
    for name in ("day-1.csv", "day-2.csv", "day-3.csv"):
        write(FRAME[:3], tmp_path / name)
    write(FRAME[:3].drop("stars"), tmp_path / "day-2.csv")
    with pytest.raises(InputError, match=r"day-2\.csv: column 'stars': is in day-1\.csv and not in day-2\.csv"):
        scan(FileConfig("day-*.csv"), tmp_path)
    write(FRAME[:3].with_columns(extra=1), tmp_path / "day-2.csv")
    with pytest.raises(InputError, match=r"day-2\.csv: column 'extra': is in day-2\.csv and not in day-1\.csv"):
        scan(FileConfig("day-*.csv"), tmp_path)
    write(FRAME[:3], tmp_path / "day-2.csv")
    (tmp_path / "day-3.csv").write_text("")
    with pytest.raises(CorruptFileError, match=r"day-3\.csv.*empty"):
        scan(FileConfig("day-*.csv"), tmp_path)
    (tmp_path / "items.csv").write_text(ITEMS)
    (tmp_path / "day-3.csv").write_text((tmp_path / "day-1.csv").read_text() + "u1,i1,5,1577836800,6,7\n")
    with pytest.raises(CorruptFileError, match=r"^day-3\.csv: could not be read"):
        open_source(SourceConfig("table", str(tmp_path), inline=mapping("day-*.csv")))
    (tmp_path / "LICENCE").write_text("ours")
    with pytest.raises(InputError, match=r"LICENCE.*csv, parquet or jsonl.*pattern"):
        scan(FileConfig("LICENCE"), tmp_path)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("days/*.csv", "names no file"),
        ("empty", "names no file; in empty: nothing"),
        ("../*.csv", "leaves the source's path"),
        ("/etc/*.csv", "leaves the source's path"),
        ("..", "leaves the source's path"),
        ("a**b/*.csv", "no pattern|names no file"),
        ("day.csv", r"no such file; beside it: \['days.csv'\]"),
        ("s3://bucket/logs/*.parquet", "is an address.*mount the bucket"),
        ("file:///logs/a.csv", "is an address.*without file://"),
    ],
)
def test_what_names_nothing_is_refused(tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    write(FRAME, tmp_path / "days.csv")
    with pytest.raises(InputError, match=message):
        scan(FileConfig(file), tmp_path)


@pytest.mark.parametrize("kind", ["table", "movielens", "simulator"])
def test_a_source_is_no_address(kind: str) -> None:
    with pytest.raises(InputError, match=r"source\.path 's3://bucket/logs': is an address.*copy the files"):
        open_source(SourceConfig(kind, "s3://bucket/logs"))
