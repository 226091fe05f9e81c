"""Impression logs and logged slates: honest negatives, stated rules for short and long pages, nothing of the future."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from impressions_factory import ITEMS, START, Page, hour, log_of, shown_frame

from recsys.errors import ContractError, InputError
from recsys.logs.bucketed_log import BucketedLog, buckets_in
from recsys.logs.events import canonicalise
from recsys.logs.examples import ExamplesConfig, build_examples
from recsys.logs.impressions import carried, click_events
from recsys.logs.partitioned import write_tables
from recsys.logs.slates import SlateConfig, draw_counted, draw_slates
from recsys.logs.sources import SourceConfig, read_log
from recsys.logs.splits import SplitConfig
from recsys.logs.tables import Log, RawLog
from recsys.storage import read_parquet, write_parquet

MAPPING = Path(__file__).parents[2] / "experiments/mappings/impressions.yaml"


def queries(log: Log) -> pl.DataFrame:
    """Every click as an example."""
    return log.events.with_row_index("n").select(
        pl.concat_str(pl.lit("e"), "n").alias("example_id"),
        "user_id",
        cutoff_time="event_time",
        target_item_id="item_id",
    )


def test_buckets_hold_the_impressions_of_their_users(tmp_path: Path) -> None:
    """A log read whole may be worked on by buckets all the same (`engine: ray`)."""
    generator = np.random.default_rng(0)
    pages: list[Page] = [
        (f"u{user}", at, generator.permutation(ITEMS)[:5].tolist(), {int(generator.integers(5))})
        for user in range(9)
        for at in range(0, 60, 3)
    ]
    log = log_of(pages)
    split = SplitConfig(0.4, 0.3, 0.3, hour(30).isoformat(), hour(40).isoformat())
    config = ExamplesConfig(history_min=1, split=split, discovery_only=False, slate=SlateConfig("logged", 4))
    expected, counts = build_examples(log, config)
    redrawn = draw_slates(expected.filter(pl.col("split") != "test"), log, config.slate, 2, config.seed)
    assert log.impressions is not None and len(expected) > 20 and counts["slates_logged_cut"]
    write_parquet(log.events, tmp_path / "events.parquet")
    write_parquet(log.impressions, tmp_path / "impressions.parquet")
    buckets = buckets_in(tmp_path / "events.parquet", 40)
    bucketed = BucketedLog(buckets, log.items, log.engaged, str(tmp_path / "impressions.parquet"))
    assert len(buckets) > 3
    assert write_tables(bucketed, config, 2, tmp_path) == counts
    assert read_parquet(tmp_path / "examples.parquet").equals(expected)
    assert read_parquet(tmp_path / "slates.parquet").equals(redrawn)


def slates(log: Log, size: int, n_slates: int = 1, examples: pl.DataFrame | None = None) -> dict[str, list[list[str]]]:
    frame, _ = draw_counted(
        queries(log) if examples is None else examples, log, SlateConfig("logged", size), n_slates, 0
    )
    grouped = frame.group_by("example_id", maintain_order=True).agg("slate")
    return dict(zip(grouped["example_id"], grouped["slate"].to_list(), strict=True))


PAGES = st.lists(
    st.tuples(
        st.sampled_from(["u", "v"]),
        st.integers(0, 30),
        st.lists(st.sampled_from(ITEMS[:14]), min_size=1, max_size=7, unique=True),
        st.sets(st.integers(0, 6), max_size=2),
    ),
    min_size=1,
    max_size=12,
).filter(lambda pages: any(place < len(items) for _, _, items, clicks in pages for place in clicks))


@settings(max_examples=30, deadline=None)
@given(PAGES, st.integers(2, 5))
def test_slates_are_what_was_shown_filled_only_where_it_was_too_little(pages: list[Page], size: int) -> None:
    log = log_of(pages)
    examples = queries(log)
    drawn, counts = draw_counted(examples, log, SlateConfig("logged", size), 2, 0)
    filled = 0
    for row in drawn.join(examples, on="example_id").iter_rows(named=True):
        user, at, target, slate = row["user_id"], row["cutoff_time"], row["target_item_id"], row["slate"]
        own = [page for page in pages if page[0] == user and hour(page[1]) == at]
        own = [page for page in own if any(target == page[2][place] for place in page[3] if place < len(page[2]))]
        touched = {
            items[place] for who, when, items, clicks in pages for place in clicks
            if who == user and hour(when) < at and place < len(items)
        }  # fmt: skip
        # Pages of one user and moment are told apart by their ids only: the slate is of one of them.
        honest = [
            {item for place, item in enumerate(items) if place not in clicks} - touched - {target}
            for _, _, items, clicks in own
        ]
        assert len(slate) == size == len(set(slate)) and slate[row["target_index"]] == target
        assert not set(slate) & touched - {target}
        negatives = set(slate) - {target}
        assert any(negatives <= usable if len(usable) >= size - 1 else usable <= negatives for usable in honest)
        clicked = {items[place] for _, _, items, clicks in own for place in clicks if place < len(items)}
        if len(own) == 1:
            assert not negatives & clicked, "another clicked item is no negative"
            filled += len(negatives - honest[0]) if row["slate_index"] == 0 else 0
    assert counts["slates_logged_negatives_filled"] >= filled
    again, _ = draw_counted(examples, log, SlateConfig("logged", size), 2, 0)
    assert again.equals(drawn)


def test_each_rule_is_counted() -> None:
    pages: list[Page] = [
        ("u", 0, ["i00"], {0}),
        ("u", 1, ["i01", "i02", "i03", "i04", "i05"], {0}),  # more than needed
        ("u", 2, ["i06", "i00", "i07"], {0, 2}),  # i00 was touched before, i07 was clicked as well
    ]
    log = log_of(pages)
    found, counts = draw_counted(queries(log).tail(3), log, SlateConfig("logged", 3), 1, 0)
    assert counts == {
        "slates_logged_in_several_impressions": 0,
        "slates_logged_other_clicks_left_out": 2,
        "slates_logged_touched_left_out": 2,
        "slates_logged_cut": 1,
        "slates_logged_filled": 2,
        "slates_logged_negatives_filled": 4,
    }
    assert set(found["slate"][0]) < {"i01", "i02", "i03", "i04", "i05"}


def test_redraws_of_a_long_page_differ_and_are_uniform() -> None:
    log = log_of([("u", 0, ITEMS[:9], {0})])
    drawn = [slate for slates_ in slates(log, 3, 400).values() for slate in slates_]
    negatives = np.array([[item in slate for item in ITEMS[1:9]] for slate in drawn]).mean(axis=0)
    assert np.abs(negatives - 2 / 8).max() < 0.09  # 4 standard deviations of 400 draws
    places = np.bincount([slate.index("i00") for slate in drawn], minlength=3) / 400
    assert np.abs(places - 1 / 3).max() < 0.1


@settings(max_examples=25, deadline=None)
@given(PAGES, PAGES)
def test_what_happens_later_changes_no_slate(pages: list[Page], later: list[Page]) -> None:
    log = log_of(pages)
    examples = queries(log)
    cutoff = 31
    future = [(user, at + cutoff, items, clicks) for user, at, items, clicks in later]
    assert slates(log, 4) == slates(log_of(pages + future), 4, examples=examples)  # type: ignore[arg-type]


def test_examples_take_logged_slates() -> None:
    pages: list[Page] = [
        (f"u{n}", at, [ITEMS[(n + 7 * at + place) % 30] for place in range(6)], {at % 6})
        for n in range(12)
        for at in range(8)
    ]
    split = SplitConfig(0.4, 0.2, 0.4, hour(3).isoformat(), hour(5).isoformat())
    config = ExamplesConfig(history_min=2, split=split, slate=SlateConfig("logged", 4), discovery_only=False)
    log = log_of(pages)
    examples, counts = build_examples(log, config)
    assert len(examples) > 10 and counts["slates_logged_filled"] == 0
    shown = {(user, hour(at)): set(items) for user, at, items, _ in pages}
    for user, at, slate in examples.select("user_id", "cutoff_time", "slate").iter_rows():
        assert len(slate) == 4 and set(slate) <= shown[user, at]
    with pytest.raises(InputError, match=r"slate\.policy 'logged'.*needs a log that says what was shown"):
        build_examples(dataclasses.replace(log, impressions=None), config)


def test_refusals_name_the_remedy() -> None:
    log = log_of([("u", 0, ["i00", "i01"], {0}), ("u", 1, ["i02", "i03"], {0})])
    wrong = queries(log).with_columns(target_item_id=pl.lit("i01"))
    with pytest.raises(InputError, match=r"2 of 2 examples, e\.g\. .*'i01'.*no clicked row.*event_types: \[click\]"):
        draw_counted(wrong, log, SlateConfig("logged", 2), 1, 0)
    with pytest.raises(InputError, match=r"1 items shown beside the target.*a slate of 40 needs 39"):
        draw_counted(queries(log), log, SlateConfig("logged", 40), 1, 0)


def test_cleaning_is_counted_and_rows_of_one_impression_agree() -> None:
    shown = shown_frame([("u", 0, ["i00", "i01", "i02"], {0})])
    extra = shown.with_columns(item_id=pl.Series([" i00\x00", "nowhere", None]), clicked=pl.lit(False))
    items = pl.DataFrame({"item_id": ITEMS, "title": ITEMS})
    raw = RawLog(click_events(shown, "click").lazy(), items, {}, None, pl.concat([shown, extra]))
    log = carried(raw, canonicalise(raw))
    assert log.impressions is not None and log.impressions["item_id"].to_list() == ["i00", "i01", "i02"]
    assert log.impressions["clicked"].to_list() == [True, False, False]  # of repeats the clicked row stays
    wanted = {"rows_repeated": 1, "rows_of_unknown_items": 1, "rows_without_an_id": 1}
    assert {name: log.counts[f"impression_{name}_dropped"] for name in wanted} == wanted
    several = pl.concat([shown, shown.head(1).with_columns(user_id=pl.lit("w"), item_id=pl.lit("i09"))])
    with pytest.raises(
        ContractError, match=r"column 'impression_id', [13] of 4 rows, e\.g\..*share user_id and shown_at"
    ):
        carried(dataclasses.replace(raw, impressions=several), canonicalise(raw))


def write_shown(folder: Path, label: str = "1") -> Path:
    at = int(START.timestamp())
    (folder / "shown.csv").write_text(
        "request,user,item,at,place,label,page\n"
        f"r1,a,x,{at},1,0,home\nr1,a,y,{at},2,{label},home\nr1,a,z,{at},3,0,home\nr2,a,x,{at + 9},1,0,search\n"
    )
    (folder / "items.csv").write_text("item,name,topics\nx,X,War\ny,Y,\nz,Z,\n")
    return folder


def test_the_mapping_in_the_repository_reads_an_impression_log(tmp_path: Path) -> None:
    config = SourceConfig("table", str(write_shown(tmp_path)), str(MAPPING))
    log = read_log(config)
    assert log.events.select("user_id", "item_id", "event_type", "surface").rows() == [("a", "y", "click", "home")]
    assert log.impressions is not None
    assert log.impressions.select("impression_id", "item_id", "position", "clicked").rows() == [
        ("r1", "x", 1, False),
        ("r1", "y", 2, True),
        ("r1", "z", 3, False),
        ("r2", "x", 1, False),
    ]
    assert log.counts["impressions_kept"] == 2 and log.counts["impressions_without_click"] == 1


@pytest.mark.parametrize(
    ("change", "label", "message"),
    [
        ({}, "maybe", "1 of 4 rows, e.g. 'maybe': is neither of"),
        ({"event_type": None}, "1", r"impressions\.event_type.*required where nothing else gives events"),
        ({"items": None}, "1", "need a catalogue"),
        ({"clicked": {"from": "label", "values": {"1": "yes"}}}, "1", r"clicked\.values\.1: 'yes'.*True"),
        ({"position": "at"}, "1", r"impressions\.position.*outside 1"),
        ({"shown_at": "at"}, "1", "no unit"),
        ({"impression_id": None}, "1", "does not map impression_id"),
    ],
)
def test_wrong_impression_mappings_name_the_remedy(
    tmp_path: Path, change: dict[str, Any], label: str, message: str
) -> None:
    columns: dict[str, Any] = {"impression_id": "request", "user_id": "user", "item_id": "item", "clicked": "label"}
    columns |= {"shown_at": {"from": "at", "unit": "s"}, "position": "place"}
    columns |= {name: value for name, value in change.items() if name in columns}
    mapping: dict[str, Any] = {
        "impressions": {
            "file": "shown.csv",
            "columns": {name: value for name, value in columns.items() if value is not None},
            **({} if "event_type" in change else {"event_type": "click"}),
        },
        **(
            {}
            if "items" in change
            else {"items": {"file": "items.csv", "columns": {"item_id": "item", "title": "name"}}}
        ),
    }
    with pytest.raises(InputError, match=message):
        read_log(SourceConfig("table", str(write_shown(tmp_path, label)), inline=mapping))
