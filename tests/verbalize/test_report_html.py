"""The HTML and console reports as text: complete, escaped, self-contained, reproducible, honest about small samples."""

import base64
import hashlib
import math
import re
from html.parser import HTMLParser

import polars as pl
import pytest
from report_sample import HOSTILE, sample_report

from recsys.errors import ContractError
from verbalize.report.claims import Claim, Estimator
from verbalize.report.console import render_console
from verbalize.report.data import ReportData, curves_from_metrics
from verbalize.report.figures import Mark, Scale, curves, interval_marks, scale_for
from verbalize.report.html import render_html
from verbalize.report.text import visible
from verbalize.report.views import claim_verdict, tradeoff_rows


class Page(HTMLParser):
    """Collects tags with their attributes, and the text outside style and script."""

    VOID = ("meta", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"unbalanced </{tag}>"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


@pytest.fixture(scope="module")
def data() -> ReportData:
    return sample_report(users=40)


@pytest.fixture(scope="module")
def html(data: ReportData) -> str:
    return render_html(data)


def test_every_section_is_there_and_tags_balance(html: str) -> None:
    page = Page(html)
    assert page.open == []
    anchors = [a["href"] for tag, a in page.tags if tag == "a"]
    ids = {"#" + str(a["id"]) for _, a in page.tags if "id" in a}
    assert set(anchors) <= ids and len(anchors) == 10
    text = " ".join(page.words)
    for phrase in (
        "too small to conclude",
        "not measured",
        "look 2",
        "chance-corrected",
        "Example CPU, 2 cores",
        "every target is a discovery",
        "failures first",
    ):
        assert phrase in text, phrase


def test_nothing_is_loaded_from_anywhere_and_only_our_style_and_script_may_run(html: str) -> None:
    page = Page(html)
    assert {tag for tag, _ in page.tags}.isdisjoint({"img", "link", "iframe", "object", "form", "base"})
    assert [tag for tag, _ in page.tags].count("script") == 1 and [tag for tag, _ in page.tags].count("style") == 1
    for tag, attributes in page.tags:
        assert not {a for a in attributes if a.startswith("on") or a in ("style", "src")}, (tag, attributes)
        assert str(attributes.get("href", "#")).startswith("#")
    policy = next(
        str(a["content"]) for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for tag in ("style", "script"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert content is not None
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
        assert "http" not in content[1] and "url(" not in content[1]


def test_hostile_titles_are_shown_as_they_are_and_do_nothing(html: str) -> None:
    text = "".join(Page(html).words)
    assert not re.search(r"[\u202a-\u202e\u2066-\u2069\x00-\x08\x1b]", html)
    assert all(visible(title) in text for title in HOSTILE if title in text or visible(title) != title)
    assert (
        "<script>document" not in html
        and "<img" not in html
        and "49" not in re.findall(r"\{\{ 7 \* 7 \}\}|49 \{", text)
    )


def test_every_field_of_the_data_is_escaped() -> None:
    bad = "</style></title><script>1</script>"
    claim = Claim("a.b", bad, "seconds", Estimator(bad), note=bad)
    page = Page(
        render_html(
            ReportData(
                bad,
                bad,
                (claim,),
                notes=(bad,),
                provenance={bad: bad},
                looks=({"claim_id": bad, "arms": [bad], "when": bad},),
                curves={bad: pl.DataFrame({"step": [0, 1], bad: [0.0, 1.0]})},
            )
        )
    )
    assert page.open == [] and [tag for tag, _ in page.tags].count("script") == 1
    assert "".join(page.words).count("<script>1</script>") >= 8


def test_an_empty_report_renders_and_the_same_data_gives_the_same_bytes(data: ReportData, html: str) -> None:
    empty = render_html(ReportData("Nothing yet"))
    assert Page(empty).open == [] and "<section" not in empty
    assert render_console(ReportData("Nothing yet")).startswith("Nothing yet\n===")
    assert render_html(data) == html


def test_missing_columns_are_named() -> None:
    with pytest.raises(ContractError, match="n_effective"):
        ReportData("x", arms=pl.DataFrame({"verbalizer": [], "recommender": [], "metric": []}))
    with pytest.raises(ContractError, match="step"):
        ReportData("x", curves={"seed 0": pl.DataFrame({"reward": [1.0]})})


def test_console_tells_the_same_story(data: ReportData) -> None:
    text = render_console(data)
    best = data.arms.filter(metric="recall@1", verbalizer="actions")["value"].item()
    assert f"{best:.3f}" in text and "* learned" in text and "chance 0.100" in text
    assert "missed · too small to conclude" in text and "opened 2 times" in text
    assert max(map(len, text.splitlines())) < 200 and "\x1b" not in text


@pytest.mark.parametrize(
    "low, high, n_effective, reading",
    [
        (-0.01, 0.03, 400, "missed · too small to conclude"),
        (0.01, 0.03, 400, "met"),
        (-0.01, 0.03, 4000, "missed"),
        (-0.03, -0.01, 400, "missed"),
    ],
)
def test_small_samples_are_called_small_unless_the_interval_excludes_zero(
    low: float, high: float, n_effective: float, reading: str
) -> None:
    claim = Claim(
        "a.b",
        "",
        "recall@1 difference",
        Estimator("paired_difference"),
        (low + high) / 2,
        low,
        high,
        target=0.0,
        n_effective=n_effective,
    )
    assert claim_verdict(claim) == reading


def test_failures_come_first_and_users_are_numbers(data: ReportData, html: str) -> None:
    ranks = [example.worst_rank for example in data.examples]
    assert ranks == sorted(ranks, reverse=True) and len(set(ranks)) > 1
    assert [example.user for example in data.examples] == [f"User {i}" for i in range(1, 6)]
    assert [example.label for example in data.examples] == [f"Example {i}" for i in range(1, 6)]
    outcomes = [str(a["data-outcome"]) for tag, a in Page(html).tags if tag == "details" and "data-outcome" in a]
    assert len(outcomes) == 5 and set(outcomes) <= {"missed by all", "arms disagree", "found by all"}


def test_texts_show_what_they_keep_add_and_drop(html: str) -> None:
    kinds = {str(a.get("class")) for tag, a in Page(html).tags if tag == "mark"}
    assert kinds == {"kept", "fact", "added"}
    assert '<mark class="added">westerns</mark>' in html and '<mark class="fact">drama</mark>' in html
    assert html.count("<del>") > 5 and 'aria-label="dropped"' in html and 'aria-label="kept"' in html


def test_the_trade_off_names_the_texts_nothing_beats(data: ReportData, html: str) -> None:
    rows = {row["verbalizer"]: row for row in tradeoff_rows(data)}
    assert "–" not in rows  # the logit reads no text
    for name, row in rows.items():
        beaten = any(
            other["value"] >= row["value"] and other["tokens"] <= row["tokens"] and other is not row
            for other in rows.values()
        )
        assert row["front"] == (not beaten), name
    assert 'id="tradeoff"' in html and f"{rows['actions']['tokens']:,.0f} tokens" in html


def test_curves_split_series_from_quantities() -> None:
    frame = pl.DataFrame(
        {
            "step": [0, 1, 0, 0],
            "name": ["seed 0/kl", "seed 0/kl", "seed 1/reward/margin", "loss"],
            "value": [0.1, 0.2, 0.3, 0.4],
        }
    )
    found = curves_from_metrics(frame)
    assert {name: part.columns for name, part in found.items()} == {
        "run": ["step", "loss"],
        "seed 0": ["step", "kl"],
        "seed 1": ["step", "reward/margin"],
    }
    assert found["seed 0"]["kl"].to_list() == [0.1, 0.2]


def test_figures_place_values_and_leave_gaps_at_non_finite_ones() -> None:
    marks = [Mark(0.5, 0.25, 0.75, label="half"), Mark(math.nan, 0, 1)]
    svg = interval_marks(marks, Scale(0.0, 1.0), reference=0.0)
    assert svg.count("<circle") == 1
    assert all(text in svg for text in ('cx="50.00%"', 'x1="26.00%"', 'x2="74.00%"'))
    line = curves({"a": ([0, 1, 2, 3], [0.0, math.nan, 1.0, 2.0])}, "kl")
    assert re.search(r'd="M[\d.]+ [\d.]+ M[\d.]+ [\d.]+ L', line)
    for numbers in ([], [math.nan], [0.3], [0.0], [-1e-9, 1e9], [5.0, 5.0]):
        scale, finite = scale_for(numbers), [x for x in numbers if math.isfinite(x)]
        assert scale.low < scale.high
        assert all(scale.low - 1e-6 <= x <= scale.high + 1e-6 for x in finite)
        assert "nan" not in curves({"a": (list(range(len(numbers))), numbers)}, "x")
