"""Sweeps over a real PostgreSQL: two processes by URL, a killed worker's trial taken over, bad addresses refused."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep_files import by_state, model_free_recipe, sweep_of, write_sweep

from recsys.errors import InputError
from verbalize.sweeps.ownership import ORIGIN, WORKER, signature
from verbalize.sweeps.settings import load_sweep
from verbalize.sweeps.storage import open_study
from verbalize.sweeps.worker import work


def missing(what: str) -> None:
    if os.environ.get("VERBALIZE_REQUIRE_SERVICES") == "1":
        pytest.fail(f"{what}, and VERBALIZE_REQUIRE_SERVICES=1 requires it")
    pytest.skip(what)


def program(name: str) -> str:
    """Debian keeps the server's programs out of the path."""
    known = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(known[-1]) if known else None)
    if found is None:
        missing("PostgreSQL not installed")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server in a temporary folder, listening on this machine only; yields the URL of an empty database."""
    pytest.importorskip("psycopg", reason="extra postgres not installed")
    initdb, postgres = program("initdb"), program("postgres")
    # The server refuses to run as root: Debian's package brings an account for it.
    account = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="verbalize-postgres-"))
    if account:
        shutil.chown(folder, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = subprocess.run(
        [*account, initdb, "-D", str(folder / "data"), "-U", "sweeper", "-A", "trust", "--no-sync"],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    assert made.returncode == 0, made.stderr
    running = subprocess.Popen(
        [*account, postgres, "-D", str(folder / "data"), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    try:
        ready = [program("pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-t", "1"]
        for _ in range(120):
            if subprocess.run(ready, stdout=subprocess.DEVNULL, check=False).returncode == 0:
                break
        yield f"postgresql://sweeper@127.0.0.1:{port}/postgres"
    finally:
        running.terminate()
        running.wait(timeout=60)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return model_free_recipe(tmp_path_factory.mktemp("sweeps"))


def test_two_machines_share_a_budget_by_url(server: str, values: dict[str, Any], tmp_path: Path) -> None:
    """Two processes with runs folders of their own, as on two machines."""
    path = write_sweep(tmp_path, values, name="shared", budget={"trials": 6})
    words = [sys.executable, "-m", "verbalize.cli", "sweep", str(path), "--storage", server, "--runs"]
    workers = [subprocess.Popen([*words, str(tmp_path / name)], stdout=subprocess.DEVNULL) for name in ("a", "b")]
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    study = open_study(load_sweep(path), tmp_path / "a", server)
    assert {state: len(trials) for state, trials in by_state(study).items() if state != "refused"} == {"complete": 6}
    assert len({str(trial.params) for trial in by_state(study)["complete"]}) == 6
    assert not (tmp_path / "a" / "sweeps" / "shared" / "journal.log").exists()


def test_a_killed_workers_trial_is_taken_over(server: str, values: dict[str, Any], tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, values, name="killed", budget={"trials": 3})
    study = open_study(sweep, tmp_path / "runs", server)
    trial = study.ask()
    trial.set_user_attr(WORKER, signature() | {"pid": 2**22 + 1})
    drawn = trial.suggest_categorical("arm", ["item_knn", "ease"])
    work(sweep, study, tmp_path / "runs", "verbalize sweep")
    found = by_state(study)
    assert {state: len(trials) for state, trials in found.items()} == {"lost": 1, "complete": 3}
    (again,) = [other for other in found["complete"] if other.user_attrs.get(ORIGIN) == trial.number]
    assert again.params["arm"] == drawn


def test_addresses_that_do_not_work_are_refused_without_the_password(values: dict[str, Any], tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, values)
    for url, words in (
        ("postgresql://ann:hunter2@127.0.0.1:1/none", "cannot be used"),
        ("mysql://ann:hunter2@127.0.0.1/none", "is not PostgreSQL"),
    ):
        with pytest.raises(InputError, match=words) as refused:
            open_study(sweep, tmp_path / "runs", url)
        assert "hunter2" not in str(refused.value) and "ann@127.0.0.1" in str(refused.value)
