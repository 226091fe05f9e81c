"""`verbalize simulate`: files, counts on the console, refusals."""

from pathlib import Path

import polars as pl
import pytest

from recsys.storage import read_json
from verbalize import cli


def test_simulate_writes_and_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "log"
    arguments = ["simulate", "works=30", "--users", "12", "--seed", "4", "--out", str(out), "days=20", "members=[1.0]"]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    events = pl.read_parquet(out / "events" / "*.parquet")
    truth = pl.read_parquet(out / "truth" / "*.parquet")
    assert f"{len(events):,}" in shown and "events a second" in shown and str(out / "truth") in shown
    assert f"{truth['is_noise'].sum():,}" in shown and events["user_id"].n_unique() == 12
    assert set(truth["member"]) == {0}  # households of one
    settings = read_json(out / "simulator.json")
    assert (settings["users"], settings["seed"], settings["works"], settings["days"]) == (12, 4, 30, 20)
    assert cli.main(arguments) == 2
    assert "not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["preview_rat=0.1"], ["simulator.preview_rat", "did you mean preview_rate?"]),
        (["preview_rate=2.0"], ["preview_rate = 2.0", "share in [0, 1]"]),
        (["works=many"], ["simulator.works = 'many'"]),
    ],
)
def test_wrong_rates_are_refused(
    options: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["simulate", *options, "--users", "2", "--out", str(tmp_path / "log")]) == 2
    shown = capsys.readouterr().err
    assert all(word in shown for word in words) and not (tmp_path / "log").exists()
