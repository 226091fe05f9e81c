"""Fuzzed files in the layouts that are known by name: MIND, Netflix, MovieLens. Each becomes a log or a refusal."""

import csv
import io
from pathlib import Path
from typing import Any

import foreign_tables as foreign
import polars as pl
from hypothesis import assume, given
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.logs.sources import SourceConfig
from recsys.logs.tables import Log

SHOWN = ["N1-1", "N2-0", "N3-1", "N4-0", "N1", "-1", "N2-2", "N1-1-0", "", "é-1", "\ufeffN1-0", "x" * 30 + "-0"]
TIMES = [
    "11/11/2019 9:05:58 AM",
    "11/12/2019 12:00:00 PM",
    "2019-11-13 00:00:01",
    "2019/11/11",
    "",
    "1/1/0001 1:00:00 AM",
]
FAR = "11/11/+12345 9:05:58 AM"  # a year that Polars reads and Python cannot hold
NEWS = "".join(f'N{n}\tsports\tgolf\tTitle "{n}\tAn abstract\thttp://x\t[]\t[]\n' for n in range(1, 5))


@st.composite
def behaviours(draw: st.DrawFn) -> list[list[str]]:
    lines = [["0", "U0", TIMES[0], "N1 N2", "N3-1 N4-0"]]
    for number in range(draw(st.integers(0, 4))):
        tidy = draw(st.booleans())
        cells = [
            str(draw(st.integers(0, 3)) if not tidy else number + 10),
            draw(st.sampled_from(["U1", "U2", "", " "] if not tidy else ["U1", "U2"])),
            draw(st.sampled_from([*TIMES, FAR] if not tidy else TIMES[:3])),
            " ".join(draw(st.lists(st.sampled_from(["N1", "N2", "", "N9"]), max_size=3))),
            " ".join(draw(st.lists(st.sampled_from(SHOWN if not tidy else SHOWN[:4]), max_size=4))),
        ]
        lines.append(cells if tidy else cells[: draw(st.integers(1, 5))] + draw(st.sampled_from([[], [], ["more"]])))
    return lines


@foreign.fuzz(80)
@given(behaviours(), st.sampled_from([NEWS, NEWS * 2, NEWS + "\tno\tid\tT\t\t\t\t\n", "N1\tshort\n" + NEWS, "\n"]))
def test_mind(tmp_path: Path, lines: list[list[str]], news: str) -> None:
    (tmp_path / "behaviors.tsv").write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    (tmp_path / "news.tsv").write_text(news, encoding="utf-8")
    shown = [token for line in lines for token in (line[4].split(" ") if len(line) > 4 else []) if token]
    found = foreign.log_or_refusal(SourceConfig("mind", str(tmp_path)), len(shown))
    if isinstance(found, Log):
        assert found.counts["behaviors_read"] == len(lines)
        assert found.counts["behaviors_showing_nothing"] == sum(len(line) < 5 or not line[4].strip() for line in lines)


LONG = ("Profile Name", "Start Time", "Duration", "Attributes", "Title", "Supplemental Video Type", "Device Type")
VIEW = ["Anna", "2023-01-15 20:31:02", "00:42:13", "", "Dark: Season 1: Secrets (Episode 1)", "", "Chrome"]
ODD: dict[int, list[str]] = {
    0: ["Bob", "", " ", "\u202e", "Zoë; 'x'"],
    1: [
        "2023-01-15 20:31",
        "15.01.2023 20:31:02",
        "2099-01-01 00:00:00",
        "",
        "1997-12-31 23:59:59",
        "٢٠٢٣-01-15 00:00:00",
    ],
    2: ["0:00:00", "123:59:59", "42:13", "00:61:00", "", "-1:00:00", "1e3:00:00", "9" * 400 + ":00:00", "٠٠:٤٢:١٣"],
    3: ["Autoplayed: user action: None; ", "Wiedergabe automatisch gestartet; ", "View was hidden ", "\n", '"'],
    4: [
        "A: B: C",
        'Say "Hi"',
        "Two\nlines",
        "愛の不時着：シーズン1：第1話",
        " ",
        "",
        "_hook_x",
        "Film (19٣٤)",
        ": : :",
        "\x00",
    ],
    5: ["TRAILER", "HOOK", "\ufeff"],
    6: ["", "Téléviseur", "a,b"],
}


def written(header: tuple[str, ...], rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode()


@st.composite
def views(draw: st.DrawFn) -> list[list[str]]:
    rows = [VIEW]
    for _ in range(draw(st.integers(0, 3))):
        row = list(VIEW)
        for place in draw(st.sets(st.integers(0, 6), max_size=2)):
            row[place] = draw(st.sampled_from(ODD[place]))
        rows.append(row)
    return rows


def activity(folder: Path, data: bytes, rows: int | None, **options: Any) -> Log | InputError:
    (folder / "ViewingActivity.csv").write_bytes(data)
    return foreign.log_or_refusal(SourceConfig("netflix", str(folder), inline=options or None), rows)


@foreign.fuzz(80)
@given(views(), st.integers(0, 12), st.data())
def test_netflix_views(tmp_path: Path, rows: list[list[str]], damage: int, data: st.DataObject) -> None:
    content = written(LONG, rows)
    if damage == 0:
        content = content[: data.draw(st.integers(0, len(content)))]
    elif damage == 1:
        content = content.replace(b"Anna", b"\xff\xe4", 1)
    activity(tmp_path, content, len(rows) if damage > 1 else None)


DATES = [
    "15/01/2023",
    "1/2/23",
    "31.12.2022",
    "2023-01-05",
    "0/0/0",
    "1/1/1",
    "99/99/99",
    "someday",
    "",
    "٣/١/٢٣",
    "31/2/23",
]


@foreign.fuzz(60)
@given(
    st.lists(st.tuples(st.sampled_from(ODD[4]), st.sampled_from(DATES)), max_size=4),
    st.sampled_from(["", "dmy", "mdy", "ymd"]),
    st.sampled_from(["UTC", "Asia/Beirut"]),
)
def test_netflix_lists(tmp_path: Path, rows: list[tuple[str, str]], order: str, zone: str) -> None:
    content = written(("Title", "Date"), [list(row) for row in rows])
    activity(tmp_path, content, len(rows), date_order=order, zone=zone)


FIELDS = ["1", "10", "5", "874965758", "", "::", ":", "x", "6", "-1", "1e400", "2.5", "\x1e", "Ü", '"', "8" * 25]
LAYOUTS = {
    "dat": ("ratings.dat", "movies.dat", "::", "", "10::Matrix, The (1999)::Action|Sci-Fi"),
    "u": ("u.data", "u.item", "\t", "", "10|Matrix, The (1999)|01-Jan-1999||http://x|" + "|".join("0" * 19)),
    "inter": (
        "tiny.inter",
        "tiny.item",
        "\t",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n",
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n10\tMatrix, The\t1999\tAction",
    ),
}


@foreign.fuzz(100)
@given(
    st.sampled_from(list(LAYOUTS)),
    st.lists(st.lists(st.sampled_from(FIELDS), min_size=3, max_size=5), max_size=3),
    st.sampled_from(["", "", "", "\n20", "\n10 more::(no genres listed)", "\n\n"]),
    st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xff\xfe"]),
)
def test_movielens(tmp_path: Path, layout: str, rows: list[list[str]], extra: str, mark: bytes) -> None:
    ratings, films, separator, header, item = LAYOUTS[layout]
    folder = tmp_path / layout
    folder.mkdir(exist_ok=True)
    lines = [["1", "10", "5", "874965758"], *rows]
    assume(not any("\x1e" in cell for row in rows for cell in row) or separator == "::")
    text = header + "".join(separator.join(row) + "\n" for row in lines)
    (folder / ratings).write_bytes(mark + text.encode("utf-8" if header else "latin-1"))
    (folder / films).write_bytes(mark + (item + extra + "\n").encode())
    found = foreign.log_or_refusal(SourceConfig("movielens", str(folder)))
    if isinstance(found, Log) and layout != "dat":
        assert found.counts["events_read"] == len(lines)
        assert found.events["rating"].is_between(0, 5).all() and found.events.schema["rating"] == pl.Float64
