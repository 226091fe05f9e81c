"""The revision that a number is stamped with: the commit, and whether the code differed from it."""

import subprocess
from pathlib import Path

import pytest

from verbalize.report.provenance import RESULTS, revision


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One commit that holds a module and a claim."""
    for path in ("module.py", "pkg/other.py", RESULTS / "claims" / "a.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "Begin")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_recorded_results_leave_a_commit_clean_and_changed_code_does_not(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert revision(repository) == commit
    (repository / RESULTS / "claims" / "a.json").write_text("2\n")
    (repository / RESULTS / "claims" / "b.json").write_text("new\n")
    assert git(repository, "status", "--porcelain") and revision(repository) == commit
    (repository / "module.py").write_text("2\n")
    assert revision(repository) == revision(repository / "pkg") == f"{commit}-dirty"
    git(repository, "add", "module.py")
    assert revision(repository) == f"{commit}-dirty"


def test_a_folder_of_that_name_elsewhere_is_code(repository: Path) -> None:
    (repository / "pkg" / RESULTS).mkdir(parents=True)
    (repository / "pkg" / RESULTS / "code.py").write_text("1\n")
    git(repository, "add", ".")
    assert revision(repository).endswith("-dirty")
    assert revision(repository / "pkg").endswith("-dirty")


def test_outside_a_repository_it_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert revision(tmp_path) == "unknown"
