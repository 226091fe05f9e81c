"""What benchmarks leave: figures with their surroundings, timings as evidence, and a claim only from a standard run."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from verbalize.report.artefacts import read_artefact, timings_table

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"
ARM = """
import argparse, json, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("--arm")
parser.add_argument("--data", type=pathlib.Path)
options = parser.parse_args()
order = options.data / "order"
order.write_text((order.read_text() if order.exists() else "") + options.arm)
report = {"seconds": 1.0, "rows": 3, "digest": 7 if "%s" == "equal" else options.arm}
(options.data / f"{options.arm}.json").write_text(json.dumps(report))
"""


@pytest.fixture(scope="module")
def recording() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recording", FOLDER / "recording.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_and_evidence_lie_where_asked_and_no_claim_is_entered(recording: ModuleType, tmp_path: Path) -> None:
    before = sorted((recording.RESULTS / "claims").iterdir())
    options = recording.parser_of("A benchmark.", repeats=3).parse_args(["--out", str(tmp_path)])
    times = {"ours": [1.0, 2.0], "theirs": [3.0, 5.0]}
    settings, figures = {"repeats": options.repeats}, {"runs": [1, 2]}
    artefact = recording.record("made_up", options.out, timings_table(times), settings, ("numpy",), figures)
    written = json.loads((tmp_path / "made_up.json").read_text())
    assert written["settings"] == {"repeats": 3} and written["runs"] == [1, 2]
    assert set(written["versions"]) == {"python", "numpy"} and "core" in written["hardware"]
    assert sorted(read_artefact(artefact)["seconds"].to_list()) == [1.0, 2.0, 3.0, 5.0]
    recording.enter(tmp_path, "bench.made_up", "Made up", **recording.ratio("theirs", "ours"), artefact=artefact)
    assert sorted((recording.RESULTS / "claims").iterdir()) == before


def test_arms_alternate_and_must_agree(recording: ModuleType, tmp_path: Path) -> None:
    for name in ("equal", "unequal"):
        (tmp_path / f"{name}.py").write_text(ARM % name)
    runs = recording.processes(str(tmp_path / "equal.py"), ["a", "b"], tmp_path, 2, ("rows",))
    assert (tmp_path / "order").read_text() == "abba"
    assert runs[1] == {"arm": "b", "repeat": 0, "seconds": 1.0, "rows": 3}
    with pytest.raises(SystemExit, match="the arms disagree"):
        recording.processes(str(tmp_path / "unequal.py"), ["a", "b"], tmp_path, 1, ())
