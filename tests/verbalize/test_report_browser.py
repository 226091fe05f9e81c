"""The reports in a real browser: silent, self-sufficient, obeying their policy, usable by keyboard, in both schemes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_pipe import Browser, find_chromium
from report_sample import sample_report
from sweep_sample import SAMPLE_FINAL, sample_sweep

from verbalize.report.html import render_html
from verbalize.report.sets import runs_report
from verbalize.report.sweep import sweep_report

PAGES = ("report", "sweep", "runs")
OPEN = "[...document.querySelectorAll('details.example')].findIndex((e) => e.open)"
FOCUS = "document.activeElement.tagName + ' ' + (document.activeElement.dataset.trial || document.activeElement.id)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = find_chromium()
    if found is None:
        if os.environ.get("VERBALIZE_REQUIRE_SERVICES") == "1":
            pytest.fail("chromium not installed, and VERBALIZE_REQUIRE_SERVICES=1 requires it")
        pytest.skip("chromium not installed")
    driven = Browser(found)
    yield driven
    driven.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    data, folder = sample_report(users=20), tmp_path_factory.mktemp("pages")
    made = {
        "report": render_html(data),
        "sweep": sweep_report(sample_sweep(40), SAMPLE_FINAL),
        "runs": runs_report({"first": data, "second": data}),
    }
    for name, html in made.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_silent_and_asks_for_nothing(browser: Browser, pages: dict[str, Path], name: str) -> None:
    browser.open(pages[name])
    assert browser.messages == [] and browser.requests == [pages[name].as_uri()]
    title = {
        "report": "Learned verbalization on made-up films",
        "sweep": "Sweep learning rate and keep",
        "runs": "2 runs: first, second",
    }
    assert browser.run("document.title") == title[name]
    assert browser.run("document.querySelectorAll('h2, h3').length") > 4


@pytest.mark.parametrize(
    "injected",
    [
        "<script>document.title='pwned'</script>",
        "<img src=x onerror=\"document.title='pwned'\">",
        "<svg onload=\"document.title='pwned'\"></svg>",
        "<iframe srcdoc=\"<script>parent.document.title='pwned'</script>\"></iframe>",
        "<p style='position:fixed'>styled</p>",
        "<img src='https://example.invalid/pixel.png'>",
    ],
)
def test_the_policy_stops_what_escaping_would_have_let_through(
    browser: Browser, pages: dict[str, Path], tmp_path: Path, injected: str
) -> None:
    page = tmp_path / "injected.html"
    whole = pages["report"].read_text(encoding="utf-8")
    page.write_text(whole.replace("</header>", f"</header>{injected}", 1), encoding="utf-8")
    browser.open(page)
    assert browser.run("document.title") == "Learned verbalization on made-up films"
    assert any("Content Security Policy" in message for message in browser.messages)
    assert not any("example.invalid" in address for address in browser.requests)


def test_the_probe_hears_scripts_messages_and_requests_where_no_policy_forbids_them(
    browser: Browser, tmp_path: Path
) -> None:
    page = tmp_path / "control.html"
    page.write_text(
        "<title>calm</title><script>document.title='pwned'; console.error('heard')</script><img src='absent.png'>",
        encoding="utf-8",
    )
    browser.open(page)
    assert browser.run("document.title") == "pwned" and "heard" in browser.messages
    assert any(address.endswith("absent.png") for address in browser.requests)


def test_keys_walk_through_the_examples(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["report"])
    seen = [browser.run(OPEN)]
    for key in ("j", "j", "ArrowDown", "k", "ArrowUp"):
        browser.press(key)
        seen.append(browser.run(OPEN))
    assert seen == [0, 1, 2, 3, 2, 1]
    assert browser.run("document.activeElement.tagName") == "SUMMARY"
    assert browser.run("document.querySelectorAll('details.example[open]').length") == 1
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert browser.run(f"document.activeElement.matches(':focus-visible') && {outline}") == "solid"


def test_the_skip_link_is_first_and_arrows_still_scroll(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["report"])
    browser.press("Tab")
    assert browser.run("document.activeElement.className") == "skip"
    assert browser.run("document.activeElement.getBoundingClientRect().left") >= 0
    browser.press("Enter")
    assert browser.run("document.activeElement.id") == "main" and browser.run(OPEN) == 0
    browser.press("ArrowDown")  # not on an example: the browser's own scrolling
    assert browser.run(OPEN) == 0


def test_a_user_or_an_outcome_is_chosen(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["report"])
    visible = (
        "[...document.querySelectorAll('details.example')].filter((e) => e.offsetParent).map((e) => e.dataset.user)"
    )
    assert len(browser.run(visible)) == 5
    browser.run("document.getElementById('choose-user').focus()")
    for key in ("U", "s", "e", "r", " ", "3"):  # typed, as in any list of choices
        browser.press(key)
    assert (
        browser.run(visible) == ["User 3"] and browser.run("document.getElementById('chosen').value") == "1 of 5 shown"
    )
    assert browser.run(f"document.querySelectorAll('details.example')[{browser.run(OPEN)}].dataset.user") is not None


def test_arrow_keys_mark_a_trial_in_every_figure(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["sweep"])
    first, second = browser.run(
        "[...document.querySelectorAll('table.trials tbody tr')].slice(0, 2).map((r) => r.dataset.trial)"
    )
    browser.run("document.querySelector('table.trials tbody tr').focus()")
    marked = "[...new Set([...document.querySelectorAll('.on')].map((e) => e.dataset.trial))].join()"
    assert browser.run(marked) == first
    browser.press("ArrowDown")
    assert browser.run(marked) == second and browser.run(FOCUS) == f"TR {second}"
    assert browser.run("document.querySelectorAll('svg .on').length") >= 3
    assert browser.run("document.querySelectorAll('table.trials tr[tabindex=\"0\"]').length") == 1
    browser.press("ArrowUp")
    browser.press("ArrowUp")
    assert browser.run(marked) == first


@pytest.mark.parametrize("dark", [False, True])
def test_the_scheme_follows_the_reader_and_the_button(browser: Browser, pages: dict[str, Path], dark: bool) -> None:
    browser.open(pages["report"], dark=dark)
    ground = "getComputedStyle(document.body).backgroundColor"
    light, night = "rgb(251, 250, 247)", "rgb(22, 24, 27)"
    assert browser.run(ground) == (night if dark else light)
    assert browser.run("document.getElementById('theme').textContent") == ("Light" if dark else "Dark")
    browser.run("document.getElementById('theme').focus()")
    browser.press("Enter")
    assert browser.run(ground) == (light if dark else night) and browser.messages == []


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width, dark", [(1280, False), (1280, True), (420, False)])
def test_it_paints_and_never_scrolls_sideways(
    browser: Browser, pages: dict[str, Path], name: str, width: int, dark: bool
) -> None:
    browser.open(pages[name], width=width, height=1600, dark=dark)
    assert browser.run("document.documentElement.scrollWidth - innerWidth") <= 0
    picture = browser.picture()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000


def test_ids_are_unique_and_everything_to_reach_has_a_name(browser: Browser, pages: dict[str, Path]) -> None:
    for name in PAGES:
        browser.open(pages[name])
        assert (
            browser.run(
                "(() => { const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);"
                "return ids.length - new Set(ids).size })()"
            )
            == 0
        )
        tree = browser.call("Accessibility.getFullAXTree")["nodes"]
        kinds = ("button", "link", "combobox", "region", "image")
        nameless = [
            node["role"]["value"]
            for node in tree
            if not node.get("ignored")
            and node.get("role", {}).get("value") in kinds
            and not node.get("name", {}).get("value", "").strip()
        ]
        assert nameless == []
