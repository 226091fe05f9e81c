"""Study files: strict loading, the contract of a kind, the lock, and claims that the ledger can recompute."""

import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.errors import InputError
from recsys.locks import hold_lock
from recsys.storage import read_json, write_text
from verbalize import cli
from verbalize.agents import study as studies
from verbalize.agents.study import StudyClaim, StudyResult, load_study, run_study
from verbalize.pipeline import Progress
from verbalize.report.ledger import load_claims, verify


@dataclass(frozen=True)
class Config:
    name: str
    gain: float = 0.25
    claims: bool = True


def run(config: Config, folder: Path, progress: Progress, command: str) -> StudyResult:
    rows = [
        (f"g{i}", f"g{i}", arm, seed, 0.5 + config.gain * (arm == "new") * (i % 2) * 2)
        for i in range(20)
        for arm in ("new", "old")
        for seed in (0, 1)
    ]
    schema = ["example_id", "user_id", "arm", "seed", "value"]
    values = pl.DataFrame(rows, schema=schema, orient="row") if config.claims else None
    return StudyResult({"gain": config.gain}, f"gain {config.gain}", values, claims_of(config))


def claims_of(config: Config) -> tuple[StudyClaim, ...]:
    return (StudyClaim("agents.toy_gain", "Toy: new minus old", "new", "old"),) if config.claims else ()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A study file of a kind of its own."""
    module: Any = types.ModuleType("toy_study")
    module.Config, module.run, module.claims_of = Config, run, claims_of
    monkeypatch.setitem(studies.KINDS, "toy", "toy_study")
    monkeypatch.setitem(sys.modules, "toy_study", module)
    path = tmp_path / "toy.yaml"
    write_text("kind: toy\nname: toy\ngain: 0.25\n", path)
    return path


def test_a_study_is_run_written_and_recorded(toy: Path, tmp_path: Path) -> None:
    study = load_study(toy, ["gain=0.1"])
    assert study.config == Config("toy", 0.1) and study.kind == "toy"
    root = tmp_path / "root"
    result, folder = run_study(study, tmp_path / "runs", "verbalize agents toy.yaml", record_in=root)
    assert folder == tmp_path / "runs" / "agents" / "toy" and result.facts["gain"] == 0.1
    assert read_json(folder / "result.json") == {"gain": 0.1}
    manifest = read_json(folder / "study.json")
    assert manifest["config"]["gain"] == 0.1 and manifest["kind"] == "toy" and "hardware" in manifest
    claim = load_claims(root)["agents.toy_gain"]
    assert claim.value == pytest.approx(0.1) and claim.low is not None and claim.low > 0
    assert (claim.status, claim.n, claim.seeds) == ("met", 20, (0, 1))
    assert verify(root) == []
    recorded = read_json(root / "experiments" / "results" / "toy.json")
    assert recorded == manifest | {"facts": {"gain": 0.1}}


def test_a_kind_that_claims_nothing_is_recorded_by_its_facts(toy: Path, tmp_path: Path) -> None:
    del sys.modules["toy_study"].claims_of
    study, root = load_study(toy, ["claims=false"]), tmp_path / "root"
    run_study(study, tmp_path / "runs", "verbalize agents toy.yaml", record_in=root)
    written = [path.name for path in root.rglob("*") if path.is_file()]
    assert written == ["toy.json"]
    assert read_json(root / "experiments" / "results" / "toy.json")["facts"] == {"gain": 0.25}


def test_nothing_to_record_is_refused_before_anything_runs(toy: Path, tmp_path: Path) -> None:
    study = load_study(toy, ["claims=false"])
    with pytest.raises(InputError, match="no claims to record"):
        run_study(study, tmp_path / "runs", "", record_in=tmp_path / "root")
    assert not (tmp_path / "runs").exists()
    run_study(study, tmp_path / "runs", "")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("exprag", ["phase=development"]),
        ("exprag", ["seeds=[0, 1]"]),
        ("exprag", ["games.test=49"]),
        ("slea", ["seeds=[0]"]),
        ("slea", ["only=[grpo, gigpo]"]),
    ],
)
def test_shipped_studies_say_beforehand_what_they_cannot_claim(name: str, overrides: list[str], tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "experiments" / "agents" / f"{name}.yaml"
    whole, part = load_study(path), load_study(path, overrides)
    assert whole.claims_of and whole.claims_of(whole.config) and part.claims_of and not part.claims_of(part.config)
    with pytest.raises(InputError, match="100 at least, and 3 seeds"):
        run_study(part, tmp_path / "runs", "", record_in=tmp_path / "root")
    assert not (tmp_path / "runs").exists()


def test_two_processes_do_not_run_one_study(toy: Path, tmp_path: Path) -> None:
    busy = hold_lock(tmp_path / "agents" / "toy", "a study", "busy", "wait")
    with busy, pytest.raises(InputError, match="another process is running this study"):
        run_study(load_study(toy), tmp_path, "")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["kind=exrag"], r"kind = 'exrag': must be one of exprag, slea"),
        (["gian=1"], "did you mean gain"),
        (["name=a/b"], "names a folder"),
    ],
)
def test_refusals(toy: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_study(toy, overrides)


def test_the_command_prints_the_text_or_json(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["agents", str(toy), "--runs", str(tmp_path / "r")]) == 0
    assert "gain 0.25" in capsys.readouterr().out
    assert cli.main(["agents", str(toy), "gain=0.5", "--runs", str(tmp_path / "r"), "--json"]) == 0
    assert capsys.readouterr().out.strip() == '{\n  "gain": 0.5\n}'
