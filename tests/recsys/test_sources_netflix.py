"""A member's viewing activity: episodes and their series, previews, durations, times; long and short form."""

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.logs.discovery import discoveries, series_of
from recsys.logs.sources import SourceConfig, read_log
from recsys.logs.sources.netflix_titles import episode, hook
from recsys.logs.tables import Log

HEADER = (
    "Profile Name,Start Time,Duration,Attributes,Title,Supplemental Video Type,Device Type,Bookmark,Latest Bookmark,"
    "Country"
)


def row(title: str, **changes: str) -> str:
    values = {
        "profile": "Anna",
        "start": "2023-01-15 20:31:02",
        "duration": "00:42:13",
        "attributes": "",
        "kind": "",
        "device": "Chrome PC (Cadmium)",
        **changes,
    }
    quoted = title.replace('"', '""')
    return (
        f'{values["profile"]},{values["start"]},{values["duration"]},{values["attributes"]},"{quoted}",{values["kind"]},'
        f"{values['device']},00:42:13,Not latest view,DE (Germany)"
    )


def activity(folder: Path, *rows: str, header: str = HEADER) -> SourceConfig:
    (folder / "ViewingActivity.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return SourceConfig(kind="netflix", path=str(folder))


def short(folder: Path, *rows: str, **options: Any) -> Log:
    (folder / "NetflixViewingHistory.csv").write_text("\n".join(["Title,Date", *rows]) + "\n", encoding="utf-8")
    return read_log(SourceConfig("netflix", str(folder), inline=options or None))


@pytest.mark.parametrize(
    ("title", "series"),
    [
        ("Stranger Things: Season 1: Chapter One: The Vanishing of Will Byers (Episode 1)", "Stranger Things"),
        ("Star Trek: The Next Generation: Season 2: The Child (Episode 1)", "Star Trek: The Next Generation"),
        ("American Horror Story: Coven: Bitchcraft (Episode 1)", "American Horror Story"),
        ("Unorthodox: Limited Series: Part 1 (Episode 1)", "Unorthodox"),
        ("Chilling Adventures of Sabrina: Part 1: Chapter One: October Country", "Chilling Adventures of Sabrina"),
        ("Avatar: The Last Airbender: Book 1: The Boy in the Iceberg", "Avatar: The Last Airbender"),
        ("Dark: Staffel 2: Anfänge und Enden (Folge 1)", "Dark"),
        ("Lupin : Partie 1 : Chapitre 1", "Lupin"),
        ("Kaamelott\u00a0: Saison 3\u00a0: Le Retour (Épisode 4)", "Kaamelott"),
        ("La casa de papel: Temporada 1: Efectuar lo acordado (Episodio 1)", "La casa de papel"),
        ("The Crown: 4. Sezon: Altın Fırsat (Bölüm 1)", "The Crown"),
        ("愛の不時着：シーズン1：第1話", "愛の不時着"),
        ("暗黑 : 第一季 : 秘密", "暗黑"),
        ("Re:ZERO: Season 1: The End of the Beginning", "Re:ZERO"),
        ("9-1-1: Season 3: 12:30", "9-1-1"),
        ("Quicksand (Episode 3)", None),
        ("Mission: Impossible", None),
        ("Kill Bill: Vol. 1", None),
        ("The Hunger Games: Mockingjay: Part 1", None),
        ("Season 1: The Movie", None),
        ("Star Wars: Episode IV: A New Hope", None),
        ("2001: A Space Odyssey (1968)", None),
        ("Heat", None),
    ],
)
def test_which_titles_are_episodes(title: str, series: str | None) -> None:
    found = pl.DataFrame({"title": [title]}).select(episode("title")).unnest("episode")["series"]
    assert found.to_list() == [series]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), min_size=1, max_size=6))
def test_a_series_is_always_the_beginning_of_its_title(titles: list[str]) -> None:
    frame = pl.DataFrame(
        {"title": [title if place % 2 else f"A: Season 1: {title}" for place, title in enumerate(titles)]}
    )
    for title, series in zip(frame["title"], frame.select(episode("title")).unnest("episode")["series"], strict=True):
        start = title.replace("：", ": ").lstrip()
        assert series is None or start.startswith(series.split(": ")[0])


def test_hooks_lose_their_file_name() -> None:
    frame = pl.DataFrame(
        {"title": ["Dark_hook_primary_16x9", "Dark: Season 3_hook_02_16x9", "Captain Hook", "_hook_x"]}
    )
    assert frame.with_columns(hook("title")).rows() == [
        ("Dark", True),
        ("Dark: Season 3", True),
        ("Captain Hook", False),
        ("_hook_x", True),
    ]


def test_rows_become_events_of_their_kind(tmp_path: Path) -> None:
    config = activity(
        tmp_path,
        row("Dark: Season 1: Secrets (Episode 1)", start="2023-03-26 01:30:00"),
        row("Dark: Season 1: Lies (Episode 2)", start="2023-03-26 02:30:00", duration="00:01:00"),
        row("Heat", start="2023-03-26 05:00:00", duration="11:05:09", attributes="Has branched playback; "),
        row("Alien", start="2023-03-26 06:00:00", attributes="Autoplayed: user action: None; "),
        row("Big", start="2023-03-26 07:00:00", attributes="Autoplayed: user action: User_Interaction; "),
        row("Dark_hook_primary_16x9", start="2023-03-26 08:00:00", kind="HOOK"),
        row("Dark: Season 2 (Trailer)", start="2023-03-26 09:00:00", kind="TRAILER", profile="Bob"),
        row("Dune", start="2023-03-26 10:00:00", attributes="View was hidden from viewing history; "),
    )
    log = read_log(config)
    assert dict(log.events.select("item_id", "event_type").iter_rows()) == {
        "Dark: Season 1: Secrets (Episode 1)": "play",
        "Dark: Season 1: Lies (Episode 2)": "short_play",
        "Heat": "play",
        "Alien": "autoplay",
        "Big": "play",
        "preview:Dark": "preview",
        "preview:Dark: Season 2 (Trailer)": "preview",
        "Dune": "play",
    }
    first = log.events.row(0, named=True)
    assert first["event_time"] == dt.datetime(2023, 3, 26, 1, 30, tzinfo=dt.UTC)  # an hour that Berlin skipped
    assert log.events.filter(pl.col("item_id") == "Heat")["duration_s"].item() == 11 * 3600 + 5 * 60 + 9
    assert log.events["surface"].unique().to_list() == ["Chrome PC (Cadmium)"]
    assert log.counts["previews_recognised"] == 2 and log.counts["views_hidden_by_member"] == 1
    kinds = dict(log.items.select("item_id", "kind").iter_rows())
    assert kinds["Heat"] == "film" and kinds["preview:Dark"] == "preview"
    episodes = log.items.filter(pl.col("kind") == "episode")
    assert episodes["series"].to_list() == ["Dark", "Dark"] and episodes["parent_id"].n_unique() == 1
    # The second episode is no discovery, and a preview of the show is not the show.
    found = discoveries(log.codes, series_of(log.items), pl.int_range(len(log.events), eager=True).to_numpy())
    assert dict(zip(log.events["item_id"], found.tolist(), strict=True)) == {
        name: "Lies" not in name for name in log.events["item_id"]
    }


def test_options(tmp_path: Path) -> None:
    config = activity(tmp_path, row("Heat", duration="0:06:00"), row("Dune_hook_x", kind="HOOK"))
    options = {"previews": "drop", "engaged_min_s": 600}
    log = read_log(SourceConfig("netflix", config.path, inline=options))
    assert log.events["event_type"].to_list() == ["short_play"] and log.counts["previews_dropped"] == 1
    for wrong, message in (
        ({"preview": "drop"}, "did you mean 'previews'"),
        ({"previews": "hide"}, "is keep or drop"),
        ({"engaged_min_s": "10"}, "is not float"),
        ({"zone": "Berlin"}, "is not a time zone"),
        ({"date_order": "ydm"}, "is one of"),
    ):
        with pytest.raises(InputError, match=message):
            read_log(SourceConfig("netflix", config.path, inline=wrong))
    with pytest.raises(InputError, match="the layout of netflix is known"):
        read_log(SourceConfig("netflix", config.path, mapping="x.yaml"))


def test_rolled_up_series_are_the_items(tmp_path: Path) -> None:
    config = activity(
        tmp_path,
        row("Dark: Season 1: Secrets (Episode 1)"),
        row("Dark: Season 1: Lies (Episode 2)", start="2023-01-16 20:00:00"),
        row("Heat", start="2023-01-17 20:00:00"),
    )
    log = read_log(SourceConfig("netflix", config.path, roll_up=True))
    assert log.events["item_id"].to_list() == ["series:Dark", "series:Dark", "Heat"]
    assert log.items.select("item_id", "title", "kind").rows() == [
        ("Heat", "Heat", "film"),
        ("series:Dark", "Dark", "series"),
    ]
    assert log.counts["items_rolled_up"] == 2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row("Heat", start="15.01.2023 20:31"), r"'Start Time', 1 of 2 rows, e\.g\..*15\.01\.2023.*not a UTC time"),
        (row("Heat", start="2099-01-01 00:00:00"), "'Start Time', 1 of 2 rows"),
        (row("Heat", duration="42:13"), "'Duration', 1 of 2 rows.*not a duration h:mm:ss"),
        (row("Heat", duration="00:61:00"), "'Duration'"),
        (row("Heat", profile=""), "'Profile Name', 1 of 2 rows"),
        (row(" "), "'Title', 1 of 2 rows"),
    ],
)
def test_rows_that_are_not_of_the_format_are_shown(tmp_path: Path, bad: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_log(activity(tmp_path, row("Alien"), bad))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"columns \['a', 'b', 'c'\].*are neither"):
        read_log(activity(tmp_path, "1,2,3", header="a,b,c"))
    (tmp_path / "other-viewing.csv").write_text("Title,Date\n")
    with pytest.raises(InputError, match="does not hold exactly one viewing history"):
        read_log(SourceConfig("netflix", str(tmp_path)))


@pytest.mark.parametrize(
    ("dates", "options", "days"),
    [
        (["1/15/23", "12/31/22"], {}, [(2022, 12, 31), (2023, 1, 15)]),
        (["15/01/2023", "31/12/2022"], {}, [(2022, 12, 31), (2023, 1, 15)]),
        (["05.01.23", "03.01.23"], {}, [(2023, 1, 3), (2023, 1, 5)]),
        (["2023-01-05", "2023-01-03"], {}, [(2023, 1, 3), (2023, 1, 5)]),
        (["1/5/23", "1/3/23"], {"date_order": "dmy"}, [(2023, 3, 1), (2023, 5, 1)]),
    ],
)
def test_dates_of_the_short_form(
    tmp_path: Path, dates: list[str], options: dict[str, str], days: list[tuple[int, int, int]]
) -> None:
    log = short(tmp_path, *(f'"T{place}",{date}' for place, date in enumerate(dates)), **options)
    assert [(time.year, time.month, time.day) for time in log.events["event_time"]] == days
    assert log.events["user_id"].unique().to_list() == ["viewer"]


def test_a_day_keeps_its_order_and_begins_where_the_viewer_lives(tmp_path: Path) -> None:
    log = short(tmp_path, "C,25/03/2023", "B,25/03/2023", "A,24/03/2023", zone="Asia/Beirut", user="Anna")
    assert log.events["item_id"].to_list() == ["A", "B", "C"]  # the file lists the newest first
    assert [time.isoformat() for time in log.events["event_time"]] == [
        "2023-03-23T22:00:00+00:00",
        "2023-03-24T22:00:00+00:00",
        "2023-03-24T22:00:01+00:00",
    ]
    skipped = short(tmp_path, "A,28/03/2021", zone="Asia/Beirut")  # clocks went from midnight to one
    assert skipped.events["event_time"][0].isoformat() == "2021-03-27T22:00:00+00:00"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["A,1/5/23", "B,1/3/23"], "the whole file leaves it open.*date_order"),
        (["A,13/1/23", "B,1/13/23"], "changes its order"),
        (["A,31/4/23"], "'date', 1 of 1 rows.*is no day in the order dmy"),
        (["A,someday"], "not a date of three numbers"),
        (['" ",13/1/23'], "'title', 1 of 1 rows"),
    ],
)
def test_dates_that_are_none_are_refused(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        short(tmp_path, *rows)
