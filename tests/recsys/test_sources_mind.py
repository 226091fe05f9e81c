"""MIND's behaviours and news: logged slates, undated clicks placed no earlier than they can have happened."""

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from recsys.errors import CorruptFileError, InputError
from recsys.logs.examples import ExamplesConfig, build_examples
from recsys.logs.slates import SlateConfig
from recsys.logs.sources import SourceConfig, read_log
from recsys.logs.splits import SplitConfig

NEWS = "".join(f'N{n}\tsports\tgolf\tTitle "{n}\tAn abstract\thttp://x\t[]\t[]\n' for n in range(1, 13))
BEHAVIORS = [
    "1\tU1\t11/11/2019 9:05:58 AM\tN1 N2 N1\tN3-1 N4-0 N5-0",
    "2\tU1\t11/12/2019 9:05:58 PM\tN1 N2 N1 N3\tN4-0 N6-1 N7-1",
    "3\tU2\t11/12/2019 12:00:00 AM\t\tN4-0 N8-1",
]


def mind(folder: Path, behaviors: list[str] = BEHAVIORS, news: str = NEWS) -> SourceConfig:
    (folder / "behaviors.tsv").write_text("".join(line + "\n" for line in behaviors))
    (folder / "news.tsv").write_text(news)
    return SourceConfig(kind="mind", path=str(folder))


def test_clicks_with_and_without_times(tmp_path: Path) -> None:
    log = read_log(mind(tmp_path))
    first = dt.datetime(2019, 11, 11, 9, 5, 58, tzinfo=dt.UTC)
    own = log.events.filter(pl.col("user_id") == "U1").select("item_id", "event_type", "event_time").rows()
    assert own[:4] == [
        ("N1", "click_undated", first - dt.timedelta(microseconds=3)),
        ("N2", "click_undated", first - dt.timedelta(microseconds=2)),
        ("N1", "click_undated", first - dt.timedelta(microseconds=1)),
        ("N3", "click", first),
    ]
    assert sorted(own[4:]) == [(n, "click", dt.datetime(2019, 11, 12, 21, 5, 58, tzinfo=dt.UTC)) for n in ("N6", "N7")]
    assert log.events.filter(pl.col("user_id") == "U2")["event_time"].to_list() == [
        dt.datetime(2019, 11, 12, tzinfo=dt.UTC)
    ]
    # The longer list of the second behaviour holds a click that its impression already gave.
    assert log.counts["undated_clicks_placed_before_first_impression"] == 3
    assert log.counts["later_click_lists_that_differ"] == 1
    assert log.engaged is not None and log.engaged.event_types == ("click",)


def test_impressions_and_articles(tmp_path: Path) -> None:
    log = read_log(mind(tmp_path))
    assert log.impressions is not None
    second = log.impressions.filter(pl.col("impression_id") == "2")
    assert second.select("item_id", "position", "clicked").rows() == [
        ("N4", 1, False),
        ("N6", 2, True),
        ("N7", 3, True),
    ]
    article = log.items.filter(pl.col("item_id") == "N4").row(0, named=True)
    assert article["title"] == 'Title "4' and article["genres"] == ["sports"] and article["tags"] == ["golf"]
    assert article["available_from"] == dt.datetime(2019, 11, 11, 9, 5, 58, tzinfo=dt.UTC)
    assert log.items.filter(pl.col("item_id") == "N12")["available_from"].item() is None


def test_logged_slates_of_news(tmp_path: Path) -> None:
    behaviors = [
        f"{user}{day}\tU{user}\t11/{day}/2019 9:00:00 AM\tN1 N2\tN{3 + day % 5}-1 N{8 + user % 3}-0 N{11 + day % 2}-0"
        for user in range(8)
        for day in range(11, 20)
    ]
    split = SplitConfig(0.4, 0.2, 0.4, "2019-11-13", "2019-11-15")
    config = ExamplesConfig(history_min=2, split=split, slate=SlateConfig("logged", 3), discovery_only=False)
    examples, _ = build_examples(read_log(mind(tmp_path, behaviors)), config)
    assert len(examples) > 8
    targets = set(examples["target_item_id"])
    assert targets <= {f"N{n}" for n in range(3, 8)}, "undated clicks are no targets"
    for target, slate in examples.select("target_item_id", "slate").iter_rows():
        assert len(set(slate)) == 3 and not (set(slate) - {target}) & targets


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("9\tU1\t2019/11/11\t\tN1-1", r"'time', 1 of 4 rows, e\.g\..*2019/11/11.*not a time"),
        ("9\tU1\t11/11/2019 9:05:58 AM\t\tN1 N2", r"'shown', 2 of 10 rows, e\.g\..*no label -0 or -1"),
        ("9\t\t11/11/2019 9:05:58 AM\t\tN1-1", "'user_id', 1 of 4 rows.*is empty"),
        ("1\tU2\t11/11/2019 9:05:58 AM\t\tN1-1", "share user_id and shown_at"),
    ],
)
def test_bad_behaviours_are_shown(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_log(mind(tmp_path, [*BEHAVIORS, line]))


def test_files_of_another_shape(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match=r"news\.tsv: has 2 tab-separated columns, expected 8"):
        read_log(mind(tmp_path, news="N1\tsports\n"))
    (tmp_path / "news.tsv").unlink()
    with pytest.raises(InputError, match=r"news\.tsv: no such file"):
        read_log(SourceConfig("mind", str(tmp_path)))
