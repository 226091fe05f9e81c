"""Any file under a mapping, whatever it holds and however it is damaged, becomes a log or a refusal."""

import json
from pathlib import Path
from typing import Any

import foreign_tables as foreign
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import CorruptFileError, InputError
from recsys.logs.sources import SourceConfig
from recsys.logs.tables import Log

SECTIONS = st.sampled_from(["events", "plays", "impressions"])
UNITS = st.sampled_from(["s", "s", "s", "ms", "us", "ns", "iso"])


def outcome(folder: Path, section: str, file: str, unit: str = "s", rows: int | None = None) -> Log | InputError:
    config = SourceConfig("table", str(folder), inline=foreign.mapping(section, file, unit))
    return foreign.log_or_refusal(config, rows)


CELLS = st.one_of(foreign.WORDS, st.text(st.characters(codec="utf-8"), max_size=6))


@foreign.fuzz(80)
@given(SECTIONS, st.lists(st.tuples(*[CELLS] * 6), max_size=4), st.booleans(), st.sampled_from(["", "bom", "bytes"]))
def test_csv(tmp_path: Path, section: str, rows: list[tuple[str, ...]], quoted: bool, spoilt: str) -> None:
    def line(cells: tuple[str, ...]) -> str:
        return ",".join('"' + cell.replace('"', '""') + '"' if quoted else cell for cell in cells)

    lines = [line(tuple(map(str, foreign.TYPICAL.values()))), *map(line, rows)]
    data = "\n".join([",".join(foreign.COLUMNS), *lines, ""]).encode()
    data = b"\xef\xbb\xbf" + data if spoilt == "bom" else data.replace(b"Title", b"\xff\xe9") if spoilt else data
    (tmp_path / "log.csv").write_bytes(data)
    found = outcome(tmp_path, section, "log.csv", rows=len(lines) if quoted else None)
    assert not (spoilt == "bytes" and isinstance(found, Log)), "bytes that are no text were taken for text"


@foreign.fuzz(120)
@given(SECTIONS, foreign.typed_tables(), UNITS)
def test_parquet_of_any_types(tmp_path: Path, section: str, frame: pl.DataFrame, unit: str) -> None:
    frame.write_parquet(tmp_path / "log.parquet")
    outcome(tmp_path, section, "log.parquet", unit, len(frame))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    foreign.INTEGERS,
    st.sampled_from([0.5, 3.0, 1e300, 2**64, 10**30]),
    foreign.WORDS,
    st.lists(foreign.WORDS, max_size=2),
    st.fixed_dictionaries({"a": st.integers(0, 3)}),
    st.fixed_dictionaries({"b": foreign.WORDS}),
)
NO_OBJECTS = ["null", "3", "[1]", '{"who": 1', '{"who": "x', "{", '{"who":1}{"who":2}', "\ufeff{}"]
NO_NUMBERS = ['{"who": NaN}', '{"who": 1e400}']
STRAY = st.sampled_from([*NO_OBJECTS, *NO_NUMBERS, "{}", '{"who": "\\ud800"}', '{"who":"a","who":"b"}'])


@st.composite
def json_lines(draw: st.DrawFn) -> bytes:
    lines = []
    for _ in range(draw(st.integers(0, 4))):
        row: dict[str, Any] = dict(foreign.TYPICAL)
        for name in draw(st.sets(st.sampled_from(foreign.COLUMNS), max_size=2)):
            row[name] = draw(VALUES)
        if draw(st.integers(0, 5)) == 0:
            del row[draw(st.sampled_from(foreign.COLUMNS))]
        lines.append(draw(STRAY) if draw(st.integers(0, 6)) == 0 else json.dumps(row, ensure_ascii=draw(st.booleans())))
    data = "\n".join(lines).encode("utf-8")
    end = draw(st.sampled_from(["\n", "", "bom", "bytes", "cut"]))
    if end == "cut":
        return data[: draw(st.integers(0, len(data)))]
    return {"\n": data + b"\n", "bom": b"\xef\xbb\xbf" + data, "bytes": data.replace(b"Title", b"\xff")}.get(end, data)


@foreign.fuzz(100)
@given(SECTIONS, json_lines(), UNITS)
def test_json_lines(tmp_path: Path, section: str, data: bytes, unit: str) -> None:
    (tmp_path / "log.jsonl").write_bytes(data)
    rows = sum(1 for line in data.split(b"\n") if line.strip())
    found = outcome(tmp_path, section, "log.jsonl", unit, rows)
    if isinstance(found, CorruptFileError) and data.strip():
        assert "line " in found.rule or "byte-order mark" in found.rule


SIGNALS = ["start", "stop", "heartbeat", "pause", "resume", "seek", "ad", "play"]
SIGNAL = st.tuples(
    st.sampled_from(["u1", "u2", "", None]),
    st.sampled_from(["i1", "i2", "i1\x00"]),
    st.integers(-90, 400).map(lambda seconds: foreign.SECOND + seconds),  # in no order, with gaps around gap_s
    st.sampled_from(SIGNALS),
)


@foreign.fuzz(60)
@given(st.lists(SIGNAL, min_size=1, max_size=14))
def test_signals_in_any_order(tmp_path: Path, signals: list[tuple[Any, ...]]) -> None:
    columns = dict(zip(("who", "what", "at", "kind"), zip(*signals, strict=True), strict=True))
    frame = pl.DataFrame({name: list(values) for name, values in columns.items()}, schema_overrides={"who": pl.String})
    frame = frame.with_columns(name=pl.lit("T"), n=pl.lit(1))
    frame.write_parquet(tmp_path / "log.parquet")
    found = outcome(tmp_path, "plays", "log.parquet", rows=len(frame))
    if isinstance(found, InputError):
        assert "nothing is left" in found.rule  # these signals have no other fault
        return
    spans = found.events.select("user_id", "duration_s", end=pl.col("event_time").dt.epoch("s") + pl.col("duration_s"))
    assert (spans["duration_s"] >= 0).all()
    assert (spans["end"] <= max(columns["at"])).all(), "a view outlasts the log"


@pytest.fixture(scope="module")
def whole() -> pl.DataFrame:
    columns = {name: [value] * 20 for name, value in foreign.TYPICAL.items()}
    return pl.DataFrame(columns).with_columns(what=pl.format("i{}", pl.int_range(20)))


@foreign.fuzz(40)
@given(st.data())
def test_damaged_parquet(tmp_path: Path, whole: pl.DataFrame, data: st.DataObject) -> None:
    path = tmp_path / "log.parquet"
    whole.write_parquet(path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
            content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    # A flipped bit of a value can go unnoticed (the format's checksums are optional); whatever is read must be a log.
    outcome(tmp_path, "events", "log.parquet")


BROKEN = [
    # section, column of the file, the values as they are stored, the type they are read as, words of the rule
    ("events", "at", [2**58 + 1_577_836_800], pl.Int64, "not a time"),
    ("events", "at", [2**62, -(2**63)], pl.Datetime("us"), "not a time"),
    ("events", "at", [2**62], pl.Datetime("ms", "UTC"), "not a time"),
    ("events", "at", [None], pl.Int64, "missing or not a time"),
    ("events", "n", [float("nan"), float("inf")], pl.Float64, "NaN or infinite"),
    ("events", "n", [101], pl.Int64, "at most 100"),
    ("events", "n", [-0.5], pl.Float64, "at least 0"),
    ("plays", "kind", ["stop!"], pl.String, "not among the declared values"),
    ("impressions", "kind", ["maybe", None], pl.String, "is neither of"),
    ("impressions", "n", [0], pl.Int64, "outside 1"),
    ("impressions", "n", [1.5, float("nan")], pl.Float64, "cannot be read as Int32"),
    ("impressions", "at", [2**31 - 1], pl.Date, "not a time"),
]


@foreign.fuzz(40)
@given(st.sampled_from(BROKEN), st.integers(1, 8), st.sampled_from(["log.parquet", "log.jsonl"]), st.data())
def test_broken_values_are_refused_with_their_number_and_one_of_them(
    tmp_path: Path, case: tuple[str, str, list[Any], Any, str], rows: int, file: str, data: st.DataObject
) -> None:
    section, name, values, dtype, words = case
    physical = pl.Int32 if dtype == pl.Date else pl.Int64
    bad = data.draw(st.sets(st.integers(0, rows - 1), min_size=1))
    times = dtype.is_temporal()
    moment = foreign.MOMENT.date() if dtype == pl.Date else foreign.MOMENT
    good = moment if times else foreign.TYPICAL[name]
    kept = pl.Series([good] * rows, dtype=dtype)
    drawn = [data.draw(st.sampled_from(values)) for _ in range(rows)]
    broken = pl.Series(drawn, dtype=physical if times else dtype).cast(dtype)
    column = pl.select(pl.when(pl.Series([row in bad for row in range(rows)])).then(broken).otherwise(kept)).to_series()
    frame = pl.DataFrame({other: [value] * rows for other, value in foreign.TYPICAL.items()})
    numbers = [f"{row}" for row in range(rows)]  # rows that repeat a key would go, and what is wrong in them
    frame = frame.with_columns(pl.Series("what", numbers), pl.Series("name", numbers), column.alias(name))
    if file.endswith("parquet") or times or dtype == pl.Float64:  # JSON has no types of time and no NaN
        frame.write_parquet(tmp_path / "log.parquet")
        file = "log.parquet"
    else:
        frame.write_ndjson(tmp_path / file)
    found = outcome(tmp_path, section, file)
    assert isinstance(found, InputError) and words in found.rule, found
    foreign.shown(found, "column '", len(bad), rows)
