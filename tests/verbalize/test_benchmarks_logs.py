"""The logs at scale, small: every arm runs, equal outputs are checked, and a trial enters no claim."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "logs_at_scale.py"


def test_every_arm_runs_and_writes_the_same(tmp_path: Path) -> None:
    arms = ["ours", "pandas", "duckdb", "in_memory", "bucketed"]
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    settings = ["--events", "60000", "--repeats", "1", "--work", str(work), "--out", str(out)]
    done = subprocess.run([sys.executable, str(SCRIPT), *settings, "--arms", *arms], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # it compares the digests of the arms itself
    summary = json.loads((out / "logs_at_scale_60000.json").read_text())
    assert [run["arm"] for run in summary["runs"]] == arms
    (examples,) = {run["examples"] for run in summary["runs"]}
    assert examples > 1_000
    reports = [json.loads(path.read_text()) for path in (work / "60000" / "runs").iterdir()]
    assert len({report["texts"] for report in reports}) == 1
    assert len({report["whole"] for report in reports if "whole" in report}) == 1
    assert list(out.iterdir()) == [out / "logs_at_scale_60000.json"]
