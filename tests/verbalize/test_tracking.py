"""Tracking: the local file survives kills, wandb offline opens no connection, wandb online fails fast and by name."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.errors import CorruptFileError, InputError
from verbalize.tracking import (
    FILE_NAME,
    JsonlTracker,
    TrackingConfig,
    WandbTracker,
    open_tracker,
    read_metrics,
)


@pytest.fixture
def listener() -> Iterator[tuple[str, list[int]]]:
    """A local server that accepts and counts connections and never answers."""
    connections: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return
                connections.append(1)

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", connections
        for connection in kept:
            connection.close()


@pytest.fixture
def clean_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key and no home from the machine that runs the tests."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-home"))


def test_jsonl_keeps_the_last_value_of_a_step_and_survives_a_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "run" / FILE_NAME
    tracker = JsonlTracker(path)
    tracker.config({"seed": 0})
    tracker.metrics(1, {"reward": 0.25, "kl": float("nan")})
    tracker.metrics(2, {"reward": 0.5})
    tracker.finish()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind": "metrics", "step": 3, "val')  # killed while writing

    assert read_metrics(path).filter(name="reward")["value"].to_list() == [0.25, 0.5]
    resumed = JsonlTracker(path)
    resumed.metrics(2, {"reward": 0.75})  # the checkpoint was at step 1, so step 2 runs again
    resumed.finish()

    frame = read_metrics(path)
    assert path.read_bytes().startswith(whole)
    assert frame.filter(name="reward")["value"].to_list() == [0.25, 0.75]
    assert frame.filter(name="kl")["value"].is_nan().all()


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text('{"kind": "config", "values": {}}\nnot json\n{"kind": "config", "values": {}}\n')
    with pytest.raises(CorruptFileError, match="line 2"):
        read_metrics(path)


def test_off_writes_the_local_file_only(tmp_path: Path) -> None:
    tracker = open_tracker(TrackingConfig(), tmp_path)
    tracker.metrics(0, {"reward": 1.0})
    tracker.finish()
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("bad", [{"wandb": "sometimes"}, {"timeout_s": 0}])
def test_bad_configuration_is_refused(bad: dict) -> None:
    with pytest.raises(InputError, match="Remedy"):
        TrackingConfig(**bad)


def test_notice_says_whether_texts_leave() -> None:
    assert TrackingConfig().notice is None
    assert TrackingConfig(wandb="offline").notice is None
    kept, sent = TrackingConfig(wandb="online").notice, TrackingConfig(wandb="online", texts=True).notice
    assert kept and "no verbalization, history or title does" in kept
    assert sent and "verbalizations, which quote users' histories" in sent


def test_offline_wandb_writes_a_run_and_opens_no_connection(
    tmp_path: Path, listener: tuple[str, list[int]], clean_wandb: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, connections = listener
    for name in ("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    tracker = open_tracker(TrackingConfig(wandb="offline", group="g", name="n"), tmp_path)
    tracker.config({"seed": 3})
    for step in range(3):
        tracker.metrics(step, {"reward": step / 2})
    tracker.table("completions", [{"text": "A made-up film", "reward": 0.5}])
    tracker.finish()

    assert len(read_metrics(tmp_path / FILE_NAME)) == 3
    deadline = time.monotonic() + 60  # wandb's own process writes, and on a busy machine it comes late
    while not (written := [p for p in tmp_path.rglob("*.wandb") if p.stat().st_size > 100]):
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.1)
    assert len(written) == 1
    assert connections == []


def test_online_without_a_key_names_the_remedy_and_asks_nobody(tmp_path: Path, clean_wandb: None) -> None:
    with pytest.raises(InputError, match="WANDB_API_KEY"):
        open_tracker(TrackingConfig(wandb="online"), tmp_path)


@pytest.mark.parametrize("server", ["silent", "refusing"])
def test_online_without_an_answering_server_fails_within_its_timeout(
    server: str, tmp_path: Path, listener: tuple[str, list[int]], clean_wandb: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 3)
    monkeypatch.setenv("WANDB_BASE_URL", listener[0] if server == "silent" else "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    start = time.monotonic()
    with pytest.raises(InputError, match=r"tracking\.wandb=offline"):
        WandbTracker(TrackingConfig(wandb="online", timeout_s=4), tmp_path)
    assert time.monotonic() - start < 30


def test_configuration_imports_neither_torch_nor_wandb() -> None:
    code = "import sys, verbalize.tracking; print(sorted({'torch', 'wandb', 'transformers'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
