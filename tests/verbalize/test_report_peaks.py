"""Claims about memory: the bound is for the largest peak that was measured."""

from pathlib import Path

import pytest

from recsys.errors import InputError
from verbalize.report import ledger
from verbalize.report.artefacts import peaks_table, read_artefact, write_artefact
from verbalize.report.claims import Estimator, format_claim
from verbalize.report.estimators import estimate


def test_a_bound_on_memory_holds_for_the_largest_peak(tmp_path: Path) -> None:
    artefact = tmp_path / ledger.RESULTS / "artefacts" / "peaks.csv"
    write_artefact(peaks_table({"bucketed": [9.5, 11.25, 10.0], "other": [30.0]}), artefact)
    claim = ledger.write_claim(
        tmp_path,
        "bench.peak",
        "Peak memory",
        unit="gigabytes",
        estimator=Estimator("peak", {"arm": "bucketed"}),
        artefact=artefact,
        command="python benchmark.py",
        target=12.0,
        direction="lower",
        criterion="value",
    )
    assert (claim.value, claim.low, claim.high, claim.n) == (11.25, 9.5, 11.25, 3)
    assert claim.status == "met" and format_claim(claim) == "11.2 GB [9.5, 11.2]"
    assert read_artefact(artefact).equals(peaks_table({"bucketed": [9.5, 11.25, 10.0], "other": [30.0]}))
    with pytest.raises(InputError, match="must be positive gigabytes"):
        estimate("peak", peaks_table({"bucketed": [0.0]}), {"arm": "bucketed"})
