"""What fuzzing found, each with the input that showed it: types, sizes and damage that slipped through or crashed."""

import json
from pathlib import Path
from typing import Any

import foreign_tables as foreign
import polars as pl
import pytest

from recsys.errors import CorruptFileError, InputError
from recsys.logs.sources import SourceConfig, read_log, table
from recsys.logs.sources.files import collect
from recsys.logs.sources.mapping import load_mapping

ROW = {name: [value] for name, value in foreign.TYPICAL.items()}


def read(folder: Path, changes: dict[str, Any], section: str = "events", **columns: Any) -> pl.DataFrame:
    """The events of one typical row with some of its columns changed, and some of the mapping's."""
    pl.DataFrame({**ROW, **changes}).write_parquet(folder / "log.parquet")
    mapping = foreign.mapping(section, "log.parquet")
    mapping[section]["columns"] |= columns
    return table.read(folder, mapping).events.collect()


def refusal(folder: Path, changes: dict[str, Any], section: str = "events", **columns: Any) -> str:
    with pytest.raises(InputError) as refused:
        read(folder, changes, section, **columns)
    return str(refused.value)


def of(dtype: Any, value: Any) -> pl.Series:
    return pl.Series([value], dtype=dtype)


def test_seconds_that_wrap_around_to_a_plausible_time_are_refused(tmp_path: Path) -> None:
    # (2**58 + 2020-01-01) * 1,000,000 is 2020-01-01 again, modulo 2**64
    text = refusal(tmp_path, {"at": [2**58 + foreign.SECOND]})
    assert "1 of 1 rows, e.g. 288230377729548544: is missing or not a time in unit 's'" in text


@pytest.mark.parametrize("value", [pl.Series([2**62]).cast(pl.Datetime("ms")), pl.Series([2**31 - 1]).cast(pl.Int32)])
def test_times_beyond_the_calendar_are_refused_and_do_not_panic(tmp_path: Path, value: pl.Series) -> None:
    values = value.cast(pl.Date) if value.dtype == pl.Int32 else value
    text = refusal(tmp_path, {"at": values})
    assert f"1 of 1 rows, e.g. {value.to_physical()[0]}: is missing or not a time" in text
    text = refusal(tmp_path, {"since": values}, available_from={"from": "since", "unit": "s"})
    assert "events.available_from (column 'since'), 1 of 1 rows" in text and "is not a time" in text


def test_a_typed_time_outside_the_range_is_not_blamed_on_the_declared_unit(tmp_path: Path) -> None:
    text = refusal(tmp_path, {"at": pl.Series([foreign.SECOND]).cast(pl.Datetime("us"))})
    assert "outside 1990" in text and "its type says these times by itself" in text


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("who", of(pl.List(pl.String), ["u1"])),
        ("who", of(pl.Struct({"id": pl.Int64}), {"id": 1})),  # was read as the user "{1}"
        ("name", of(pl.Array(pl.Int64, 2), [1, 2])),
        ("name", of(pl.Duration("us"), foreign.dt.timedelta(1))),
        ("kind", of(pl.Date, foreign.MOMENT.date())),
        ("n", of(pl.Date, foreign.MOMENT.date())),  # was read as days since 1970
        ("at", of(pl.Boolean, True)),
        ("at", of(pl.List(pl.Int64), [1])),
    ],
)
def test_types_without_a_plain_reading_are_refused(tmp_path: Path, column: str, values: pl.Series) -> None:
    text = refusal(tmp_path, {column: values})
    assert f"(column {column!r} of type {values.dtype}), 1 rows, e.g. " in text and "cannot be read as" in text


def test_categories_bytes_arrays_and_spans_are_read(tmp_path: Path) -> None:
    changes = {
        "who": of(pl.Categorical, "u1"),
        "what": of(pl.Binary, b"i1"),
        "kind": of(pl.Enum(["play"]), "play"),
        "genres": of(pl.Array(pl.String, 2), ["War", "Drama"]),
        "span": of(pl.Duration("ms"), foreign.dt.timedelta(minutes=2)),
    }
    extra = {"genres": "genres", "duration_s": {"from": "span", "unit": "h"}}  # a span's type knows its own unit
    row = read(tmp_path, changes, **extra).row(0, named=True)
    assert (row["user_id"], row["item_id"], row["event_type"]) == ("u1", "i1", "play")
    assert (row["genres"], row["duration_s"]) == (["War", "Drama"], 120.0)


def test_bytes_that_are_no_text_are_counted_and_shown(tmp_path: Path) -> None:
    text = refusal(tmp_path, {"who": of(pl.Binary, b"\xff")})
    assert "column 'who', 1 of 1 rows, e.g. b'\\xff': are bytes that are not UTF-8" in text


def test_a_missing_id_in_a_column_of_floats_is_no_user_called_nan(tmp_path: Path) -> None:
    columns = {**{name: value * 2 for name, value in ROW.items()}, "who": [float("nan"), 1.0]}
    pl.DataFrame(columns).write_parquet(tmp_path / "log.parquet")
    log = read_log(SourceConfig("table", str(tmp_path), inline=foreign.mapping("events", "log.parquet")))
    assert log.events["user_id"].to_list() == ["1.0"] and log.counts["events_without_user_or_item_dropped"] == 1


def test_a_place_or_a_year_between_two_is_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, {"year": [1999.5]}, year="year")
    assert "events.year (column 'year'), 1 of 1 rows, e.g. 1999.5: cannot be read as Int32" in text


def test_a_title_whose_year_is_not_in_ascii_digits_keeps_it(tmp_path: Path) -> None:
    row = read(tmp_path, {"name": ["Film (19٣٤)"]}, title={"from": "name", "year": "suffix"}).row(0, named=True)
    assert (row["title"], row["year"]) == ("Film (19٣٤)", None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"who": 1, "wh', 'line 3, \'{"who": 1, "wh\' is not JSON'),
        ("[1]", "line 3, '[1]' is no object"),
        ('{"at": true}', "line 3, '{\"at\": true}': column 'at' holds a truth value, and a number in the lines before"),
        ('{"at": NaN}', "NaN is no number of JSON"),
    ],
)
@pytest.mark.parametrize("before", [1, 10_001])  # types are inferred from the first 10,000 lines
def test_json_lines_name_the_line_that_broke(tmp_path: Path, line: str, words: str, before: int) -> None:
    good = json.dumps(foreign.TYPICAL) + "\n"
    (tmp_path / "log.jsonl").write_text(good * before + "\n" + line)
    with pytest.raises(CorruptFileError) as refused:
        table.read(tmp_path, foreign.mapping("events", "log.jsonl"))
    assert words.replace("line 3", f"line {before + 2}") in str(refused.value)


def test_a_byte_order_mark_before_json_lines_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(foreign.TYPICAL).encode())
    with pytest.raises(CorruptFileError, match="begins with a byte-order mark"):
        table.read(tmp_path, foreign.mapping("events", "log.jsonl"))


def test_an_item_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.inter").write_text("user_id:token\titem_id:token\trating:float\ttimestamp:float\n")
    (tmp_path / "a.item").write_bytes(b"item_id:token\tmovie_title:token_seq\tclass:token_seq\n1\tAm\xe9lie\tDrama\n")
    with pytest.raises(CorruptFileError, match=r"a\.item: could not be read"):
        read_log(SourceConfig("movielens", str(tmp_path)))


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("plays", {"gap_s": float("inf")}, "gap_s inf: must be positive and at most a year"),
        ("events", {"header": 3}, r"events\.header: 3: must be a list"),
        ("events", {"file": 3}, r"events\.file: 3: must be text"),
        ("events", {"at": {"from": "at", "unit": "s", "zone": "Berlin"}}, r"zone: 'Berlin': is not a time zone"),
        ("events", {"rating": {"from": "n", "scale": ["a", "b"]}}, r"must be \[lowest, highest\]"),
        ("events", {"title": {"from": "name", "missing": 3}}, r"missing: 3: must be a list"),
        ("plays", {"signal": {"from": "kind", "values": "play"}}, r"values: 'play': must be \{theirs: ours\}"),
    ],
)
def test_mappings_of_the_wrong_types_are_refused(section: str, changes: dict[str, Any], message: str) -> None:
    mapping = foreign.mapping(section)
    for name, value in changes.items():
        own = mapping[section] if name in ("gap_s", "header", "file") else mapping[section]["columns"]
        own["event_time" if name == "at" else name] = value
    with pytest.raises(InputError, match=message):
        load_mapping(mapping)


def test_rules_of_engagement_of_the_wrong_types_are_refused() -> None:
    for rule, message in (({"event_types": 3}, "must be a list"), ({"rating_at_least": "4"}, "must be a number")):
        with pytest.raises(InputError, match=message):
            load_mapping({**foreign.mapping("events"), "engaged": rule})


def test_a_reader_that_panics_is_a_file_that_cannot_be_read() -> None:
    # Damaged Parquet does so, at about one byte in two hundred; this date does so always.
    far = pl.Series("at", [2**31 - 1], pl.Int32).cast(pl.Date)
    with pytest.raises(CorruptFileError, match=r"log\.parquet: could not be read \(out-of-range date\)"):
        collect(far.to_frame().lazy().select(pl.col("at").cast(pl.String)), "log.parquet")
