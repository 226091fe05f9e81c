"""Two records joined: arms by reader and text, unpaired; a record without one is refused."""

from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from benchmark_scripts import load_script

from recsys.errors import InputError
from verbalize.report.artefacts import OUTCOME_COLUMNS, write_artefact
from verbalize.report.estimators import relative_difference_apart


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_script("recommender_training_gain", monkeypatch)


def record(path: Path, salt: str, hits: dict[str, list[int]], n: int) -> None:
    """`hits` of n rankings, two a user, by arm and seed."""
    rows = [
        (f"{salt}{place:03d}", f"{salt}u{place // 2}", arm, seed, 0, 10, 1 if place < count else 4)
        for arm, counts in hits.items()
        for seed, count in enumerate(counts)
        for place in range(n)
    ]
    write_artefact(pl.DataFrame(rows, schema=OUTCOME_COLUMNS, orient="row"), path)


def test_records_are_joined_by_reader_and_text(script: ModuleType, tmp_path: Path) -> None:
    trained = {"learned/lm-trained": [30, 30, 36], "concatenation/lm-trained": [20], "titles/lm-trained": [100]}
    record(tmp_path / script.TRAINED, "t", trained, 100)
    untrained = {"untrained/learned": [9], "untrained/concatenation": [8], "untrained/concatenation_metadata": [50]}
    record(tmp_path / script.UNTRAINED, "u", untrained, 80)
    table = script.both(tmp_path)
    assert script.recalls(table) == {
        "trained/concatenation": 0.2,
        "trained/learned": 0.32,
        "untrained/concatenation": 0.1,
        "untrained/learned": 0.1125,
    }
    found = relative_difference_apart(table, "trained/learned", script.BASELINE)
    assert found.value == pytest.approx(2.2) and found.n == 80 and found.low < 2.2 < found.high


def test_a_record_without_an_arm_is_refused(script: ModuleType, tmp_path: Path) -> None:
    record(tmp_path / script.TRAINED, "t", {"concatenation/lm-trained": [20]}, 40)
    with pytest.raises(InputError, match="one arm of learned"):
        script.both(tmp_path)


def test_the_recorded_arms_are_those_of_both_records(script: ModuleType) -> None:
    rates = script.recalls(script.both(Path(script.RESULTS) / "artefacts"))
    assert set(rates) == {f"{reader}/{text}" for reader in ("trained", "untrained") for text in script.TEXTS}
