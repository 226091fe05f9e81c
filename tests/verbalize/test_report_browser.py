"""The report in a real browser: it paints, is silent on the console, and its policy stops an injected script."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_sample import sample_report

from verbalize.report.html import render_html

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
]


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        if os.environ.get("VERBALIZE_REQUIRE_SERVICES") == "1":
            pytest.fail("chromium not installed, and VERBALIZE_REQUIRE_SERVICES=1 requires it")
        pytest.skip("chromium not installed")
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render_html(sample_report(users=20))


def drive(chromium: str, page: Path, *flags: str) -> tuple[str, list[str]]:
    """Standard output (the DOM after scripts, with --dump-dom) and the console's messages."""
    profile = page.parent / f"profile-{len(list(page.parent.glob('profile-*')))}"
    done = subprocess.run(
        [chromium, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def test_the_report_is_silent_and_whole(chromium: str, report: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(report, encoding="utf-8")
    dom, messages = drive(chromium, page, "--dump-dom")
    assert messages == []
    assert "<title>Learned verbalization on made-up films</title>" in dom
    assert dom.count("<section") == report.count("<section") and dom.count("<details") == report.count("<details")


@pytest.mark.parametrize(
    "injected",
    [
        "<script>document.title='pwned'</script>",
        "<img src=x onerror=\"document.title='pwned'\">",
        "<svg onload=\"document.title='pwned'\"></svg>",
        "<iframe srcdoc=\"<script>parent.document.title='pwned'</script>\"></iframe>",
    ],
)
def test_the_policy_stops_what_escaping_would_have_let_through(
    chromium: str, report: str, tmp_path: Path, injected: str
) -> None:
    page = tmp_path / "injected.html"
    page.write_text(report.replace('<main id="main">', f'<main id="main">{injected}', 1), encoding="utf-8")
    dom, messages = drive(chromium, page, "--dump-dom")
    assert "<title>Learned verbalization on made-up films</title>" in dom
    assert any("Content Security Policy" in message for message in messages)


def test_the_probe_sees_scripts_and_messages_where_no_policy_forbids_them(chromium: str, tmp_path: Path) -> None:
    page = tmp_path / "control.html"
    page.write_text(
        "<title>calm</title><script>document.title='pwned'; console.error('heard')</script>", encoding="utf-8"
    )
    dom, messages = drive(chromium, page, "--dump-dom")
    assert "<title>pwned</title>" in dom and any("heard" in message for message in messages)


@pytest.mark.parametrize("scheme, width", [("light", 1280), ("dark", 1280), ("light", 500)])
def test_it_paints_and_never_scrolls_sideways(
    chromium: str, report: str, tmp_path: Path, scheme: str, width: int
) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    action = "document.title = 'overflow ' + (document.documentElement.scrollWidth - innerWidth);"
    probe = f"<script>addEventListener('load', () => {{ {action} }});</script></body>"
    page.write_text(re.sub(r"<meta http-equiv=[^>]*>", "", report).replace("</body>", probe), encoding="utf-8")
    flags = [f"--window-size={width},1600", *(["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else [])]
    dom, _ = drive(chromium, page, "--dump-dom", *flags)
    overflow = re.search(r"<title>overflow (-?\d+)</title>", dom)
    assert overflow is not None and int(overflow[1]) <= 0
    drive(chromium, page, f"--screenshot={picture}", *flags)
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000
