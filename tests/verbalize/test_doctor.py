"""The doctor: what it finds wrong when something is, the fix it names, exit codes."""

import json
from pathlib import Path

import pytest

from verbalize import cli, doctor


def found(checks: object) -> dict[str, doctor.Check]:
    return {check.name: check for check in checks}  # type: ignore[attr-defined]


def test_wrong_and_missing_packages_fail_with_the_command_that_mends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["polars>=2.1,<3", "absent-package>=1", "extra-only>=9; extra == 'gpu'", "pyyaml>=999"]
    monkeypatch.setattr(doctor, "requires", lambda _: wanted)
    check = found(doctor.packages())["packages"]
    assert check.status == "fail" and "absent-package missing" in check.found and "pyyaml" in check.found
    assert "polars" not in check.found and "extra-only" not in check.found and "pip install" in check.fix


def test_versions_are_held_against_the_pinned_ones(tmp_path: Path) -> None:
    import polars

    pins = tmp_path / "constraints.txt"
    pins.write_text(f"# a comment\npolars=={polars.__version__}\npyyaml==0.1\nnot-installed-here==1.0\n")
    check = found(doctor.pinned(pins))["constraints"]
    assert check.status == "warn" and "(pinned 0.1)" in check.found
    assert "polars" not in check.found and "not-installed-here" not in check.found
    assert list(doctor.pinned(tmp_path / "absent.txt")) == []


@pytest.mark.parametrize(
    ("there", "status", "words"),
    [
        ({"faiss-cpu": "1", "faiss-gpu": "1"}, "fail", "overwrite"),
        ({}, "warn", "not installed"),
        ({"faiss-gpu": "1.15.1"}, "ok", "faiss-gpu 1.15.1"),
    ],
)
def test_the_two_faiss_flavours_exclude_each_other(
    there: dict[str, str], status: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "installed", there.get)
    check = found(doctor.faiss_flavour())["faiss"]
    assert check.status == status and words in check.found and bool(check.fix) == (status != "ok")


def test_little_memory_and_disk_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "free_memory", lambda: 10**9)
    check = found(doctor.memory())["memory"]
    assert (check.status, check.found) == ("warn", "1.0 GB free") and "3 GB" in check.fix
    monkeypatch.setattr(doctor, "DEMO_DISK", 1e18)
    monkeypatch.setenv("VERBALIZE_CACHE", str(tmp_path / "not" / "yet"))
    disks = found(doctor.disk(tmp_path / "runs"))
    assert disks["disk runs"].status == "warn" and "--runs" in disks["disk runs"].fix
    assert str(tmp_path) in disks["disk cache"].found  # the nearest folder that exists


def test_exit_codes_follow_what_is_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fine, poor = doctor.Check("a", "ok", "well"), doctor.Check("b", "warn", "slow", "wait")
    broken = doctor.Check("c", "fail", "broken", "mend it")
    for checks, code in (([fine, poor], 0), ([fine, broken], 1)):
        monkeypatch.setattr(doctor, "diagnose", lambda runs, checks=checks: checks)
        assert cli.main(["doctor", "--runs", str(tmp_path), "--json"]) == code
        assert json.loads(capsys.readouterr().out)[1]["fix"] == checks[1].fix
        assert cli.main(["doctor", "--runs", str(tmp_path)]) == code
        assert f"fix: {checks[1].fix}" in capsys.readouterr().out


def test_nothing_required_is_broken_here(tmp_path: Path) -> None:
    """Every check runs for real; the machine the tests run on must be able to run the package."""
    checks = doctor.diagnose(tmp_path)
    assert [check for check in checks if check.status == "fail"] == []
    assert {"packages", "faiss", "memory", "disk runs", "java", "asset movielens-100k"} <= set(found(checks))
    assert all(bool(check.fix) == (check.status != "ok") for check in checks)
