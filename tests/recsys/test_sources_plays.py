"""Play logs: the fold equals a state machine that reads one signal at a time, and every treatment is counted."""

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.logs.sources import SourceConfig, read_log
from recsys.logs.sources.plays import SIGNALS, FoldConfig, fold

START = dt.datetime(2024, 3, 1, 20, tzinfo=dt.UTC)
MAPPING = Path(__file__).parents[2] / "experiments/mappings/plays.yaml"
Row = tuple[str, str, str | None, float, str]  # user, item, device, seconds after START, signal


def signals(rows: list[Row], **columns: list[Any]) -> pl.LazyFrame:
    return pl.DataFrame(
        {
            "user_id": [row[0] for row in rows],
            "item_id": [row[1] for row in rows],
            "device": [row[2] for row in rows],
            "event_time": [START + dt.timedelta(seconds=row[3]) for row in rows],
            "signal": [row[4] for row in rows],
            **columns,
        },
        schema_overrides={
            "user_id": pl.String,
            "item_id": pl.String,
            "device": pl.String,
            "signal": pl.String,
            "event_time": pl.Datetime("us", "UTC"),
        },
    ).lazy()


def one_view(*said: tuple[float, str], **settings_: Any) -> tuple[list[tuple[float, float]], dict[str, int]]:
    """(start, seconds played) of the views of one user, item and device."""
    views, counts = fold(signals([("u", "i", "tv", at, what) for at, what in said]), FoldConfig(600, **settings_))
    return list(zip(seconds(views), views["duration_s"].to_list(), strict=True)), counts


def seconds(views: pl.DataFrame) -> list[float]:
    return [(time - START).total_seconds() for time in views["event_time"]]


@pytest.mark.parametrize(
    ("said", "expected", "count"),
    [
        ([(0, "start"), (60, "heartbeat"), (90, "stop")], [(0, 90)], None),
        ([(0, "start"), (60, "heartbeat"), (120, "heartbeat")], [(0, 120)], "views_without_stop"),
        ([(60, "heartbeat"), (120, "heartbeat"), (150, "stop")], [(60, 90)], "views_without_start"),
        ([(0, "start"), (60, "pause"), (360, "resume"), (400, "stop")], [(0, 100)], None),
        ([(0, "start"), (60, "pause"), (360, "heartbeat"), (400, "stop")], [(0, 100)], None),
        ([(0, "start"), (10, "seek"), (30, "stop")], [(0, 30)], None),
        ([(0, "start"), (60, "stop"), (90, "heartbeat"), (95, "stop")], [(0, 60)], "signals_after_stop_ignored"),
        ([(0, "start"), (60, "stop"), (90, "resume"), (100, "stop")], [(0, 60), (90, 10)], None),
        ([(0, "start"), (60, "heartbeat"), (900, "heartbeat"), (910, "stop")], [(0, 60), (900, 10)], None),
        ([(0, "start"), (2, "start"), (50, "stop")], [(0, 48)], None),
        ([(0, "start"), (60, "heartbeat"), (100, "start"), (130, "stop")], [(0, 60), (100, 30)], "views_without_stop"),
        ([(0, "pause"), (5, "stop")], [], "views_never_playing_dropped"),
        ([(0, "start")], [(0, 0)], "views_without_stop"),
        ([(90, "stop"), (0, "start"), (60, "heartbeat")], [(0, 90)], "signals_out_of_order"),
        ([(0, "start"), (60, "heartbeat"), (60, "heartbeat"), (90, "stop")], [(0, 90)], "signals_repeated_dropped"),
    ],
)
def test_what_becomes_of_signals(
    said: list[tuple[float, str]], expected: list[tuple[float, float]], count: str | None
) -> None:
    views, counts = one_view(*said)
    assert views == expected
    if count is not None:
        assert counts[count] == (2 if said[-2:] == [(90, "heartbeat"), (95, "stop")] else 1)


def test_a_heartbeat_resumes_unless_players_send_them_while_paused() -> None:
    said = [(0, "start"), (60, "pause"), (120, "heartbeat"), (180, "heartbeat"), (240, "resume"), (300, "stop")]
    assert one_view(*said)[0] == [(0, 240)]
    assert one_view(*said, heartbeats_while_paused=True)[0] == [(0, 120)]


def test_views_that_overlap_on_two_devices_are_one() -> None:
    rows: list[Row] = [("u", "i", "phone", at, what) for at, what in [(0, "start"), (300, "heartbeat"), (320, "stop")]]
    rows += [("u", "i", "tv", at, what) for at, what in [(310, "start"), (500, "stop")]]
    rows += [("u", "j", "tablet", 400, "start"), ("u", "j", "tablet", 460, "stop")]
    views, counts = fold(signals(rows), FoldConfig(600))
    assert views.select("item_id", "duration_s", "surface").rows() == [("i", 500.0, "phone"), ("j", 60.0, "tablet")]
    assert counts["views_merged_across_devices"] == 1
    assert counts["views_running_at_the_next_start"] == 1  # j began while i was still running


def test_completion_is_time_played_by_runtime_and_never_more_than_all() -> None:
    rows: list[Row] = [("u", item, None, at, what) for item in "abc" for at, what in [(0, "start"), (300, "stop")]]
    runtimes = pl.DataFrame({"item_id": ["a", "b", "c"], "runtime_s": [600.0, 200.0, None]})
    views, counts = fold(signals(rows), FoldConfig(600), runtimes)
    assert dict(views.select("item_id", "completion").iter_rows()) == {"a": 0.5, "b": 1.0, "c": None}
    assert counts["views_longer_than_runtime"] == 1


def reference(rows: list[Row], gap: float, while_paused: bool) -> list[tuple[str, str, float, float]]:
    """One signal at a time, one dictionary of open views; hand-overs merged by intervals."""
    per_key: dict[tuple[str, str, str | None], list[tuple[float, int, str]]] = {}
    for user, item, device, at, what in set(rows):
        per_key.setdefault((user, item, device), []).append((at, SIGNALS.index(what), what))
    views: dict[tuple[str, str], list[list[float]]] = {}
    for (user, item, _), said in per_key.items():
        view: dict[str, Any] | None = None
        done: list[dict[str, Any]] = []
        last, before = 0.0, ""
        for at, _, what in sorted(said):
            silent = view is None or at - last > gap
            state = "" if view is None else view["state"]
            if silent or (what == "start" and before != "start") or (what == "resume" and state == "stopped"):
                view = {"start": at, "end": at, "played": 0.0, "real": False, "state": "playing"}
                done.append(view)
            elif state == "playing" and what != "start":
                assert view is not None
                view["played"] += at - last
                if at > last:
                    view["end"] = at
            assert view is not None
            if what in ("start", "resume", "heartbeat"):
                view["real"] = True
            if what in ("start", "resume") or (what == "heartbeat" and view["state"] == "paused" and not while_paused):
                view["state"] = "playing"
            elif what == "stop" or (what == "pause" and view["state"] != "stopped"):
                view["state"] = {"pause": "paused", "stop": "stopped"}[what]
            last, before = at, what
        views.setdefault((user, item), []).extend([v["start"], v["end"], v["played"]] for v in done if v["real"])
    found = []
    for (user, item), spans in views.items():
        merged: list[list[float]] = []
        for start, end, played in sorted(spans):
            if merged and start < merged[-1][1]:
                merged[-1] = [merged[-1][0], max(end, merged[-1][1]), merged[-1][2] + played]
            else:
                merged.append([start, end, played])
        found += [(user, item, start, min(played, end - start)) for start, end, played in merged]
    return sorted(found)


ROWS = st.lists(
    st.tuples(
        st.sampled_from("uv"),
        st.sampled_from("ij"),
        st.sampled_from(["tv", "phone", None]),
        st.integers(0, 40).map(lambda step: float(step * 30)),
        st.sampled_from(SIGNALS),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(ROWS, st.sampled_from([60.0, 200.0, 5000.0]), st.booleans(), st.randoms())
def test_equals_reading_one_signal_at_a_time(rows: list[Row], gap: float, while_paused: bool, random: Any) -> None:
    config = FoldConfig(gap, while_paused)
    views, counts = fold(signals(rows), config)
    found = sorted(zip(views["user_id"], views["item_id"], seconds(views), views["duration_s"], strict=True))
    assert found == reference(rows, gap, while_paused)
    assert counts["views"] == len(found) and counts["signals_repeated_dropped"] == len(rows) - len(set(rows))
    shuffled = random.sample(rows, len(rows))
    assert fold(signals(shuffled), config)[0].equals(views), "the order of the input matters"


def test_a_pause_after_the_stop_keeps_the_view_over() -> None:
    assert one_view((0, "start"), (60, "stop"), (70, "pause"), (80, "heartbeat"), (100, "stop"))[0] == [(0, 60)]


def write_plays(folder: Path) -> Path:
    at = [int((START.timestamp() + offset) * 1000) for offset in (0, 60, 120, 5000, 5060, 9000)]
    (folder / "player.csv").write_text(
        "account,title_id,device,at,kind\n"
        f"a,e1,tv,{at[0]},play\na,e1,tv,{at[1]},ping\na,e1,tv,{at[2]},end\n"
        f"a,e2,tv,{at[3]},play\na,e2,tv,{at[4]},end\na,e2,tv,{at[5]},ad\n"
    )
    (folder / "catalogue.csv").write_text(
        "title_id,name,type,show_id,show,minutes,genres\n"
        "e1,Dark: Secrets,episode,s1,Dark,3,Mystery|Drama\ne2,Dark: Lies,episode,s1,Dark,4,\n"
    )
    return folder


def test_the_mapping_in_the_repository_reads_a_play_log(tmp_path: Path) -> None:
    log = read_log(SourceConfig(kind="table", path=str(write_plays(tmp_path)), mapping=str(MAPPING)))
    columns = ("item_id", "event_type", "duration_s", "surface", pl.col("completion").round(3))
    assert log.events.select(columns).rows() == [
        ("e1", "play", 120.0, "tv", 0.667),
        ("e2", "play", 60.0, "tv", 0.25),
    ]
    assert log.items["series"].to_list() == ["Dark", "Dark"]
    assert log.counts["rows_without_signal_left_out"] == 1 and log.counts["signals_read"] == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gap_s": None}, r"plays\.gap_s.*must be declared, in seconds"),
        ({"gap_s": 0}, "must be positive"),
        ({"gap_s": True}, "must be declared"),
        ({"gap": 30}, r"plays\.gap: is not a known key.*did you mean 'gap_s'"),
        ({"heartbeats_while_paused": "no"}, "is not true or false"),
        ({"signal": {"from": "kind", "values": {"play": "begin"}}}, r"signal\.values\.play: 'begin'.*must be one of"),
        ({"signal": {"from": "kind", "values": {"play": "start"}}}, "'ping'.*not among the declared values"),
        ({"signal": "kind"}, "6 of 6 rows, e.g. .*a signal is one of"),
        ({"event_time": {"from": "at", "unit": "s"}}, r"plays\.event_time.*declare unit: ms"),
    ],
)
def test_wrong_play_mappings_name_the_remedy(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    columns = {"user_id": "account", "item_id": "title_id", "event_time": {"from": "at", "unit": "ms"}}
    known = {"play": "start", "ping": "heartbeat", "end": "stop", "ad": None}
    columns["signal"] = {"from": "kind", "values": known}  # type: ignore[assignment]
    plays: dict[str, Any] = {"file": "player.csv", "gap_s": 600, "columns": columns}
    for name, value in change.items():
        (columns if name in columns else plays)[name] = value
    items = {"file": "catalogue.csv", "columns": {"item_id": "title_id", "title": "name"}}
    with pytest.raises(InputError, match=message):
        read_log(SourceConfig("table", str(write_plays(tmp_path)), inline={"plays": plays, "items": items}))
