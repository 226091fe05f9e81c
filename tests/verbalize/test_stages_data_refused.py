"""A refused log leaves no finished stage and none of its files; once the log is corrected, the same recipe runs."""

from functools import partial
from pathlib import Path

import pytest
from tiny_run import recipe_values, write_log

from recsys.errors import InputError
from verbalize.config import build
from verbalize.pipeline import DONE, Stage, run_stages
from verbalize.recipe import Recipe
from verbalize.stages.data import logs_config, run_logs


def run(recipe: Recipe, store: Path) -> Path:
    return run_stages([Stage("logs", partial(run_logs, recipe), logs_config(recipe))], store)["logs"]


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("events.csv", b"u,i,9,1600000000\n", r"rating.*1 of 1441 rows, e\.g\. '9'.*outside 0 \.\. 5"),
        ("events.csv", b"u,i,3,288230377729548544\n", r"event_time.*1 of 1441 rows, e\.g\. '288230377729548544'"),
        ("events.csv", b"u,i,3,1600000000,more\n", r"events\.csv: could not be read"),
        ("items.csv", b"i,\xff,2000,Drama\n", r"items\.csv: could not be read"),
        ("items.csv", b"i,T,20.5,Drama\n", r"year.*1 of 81 rows, e\.g\. '20\.5'.*cannot be read"),
    ],
)
def test_a_refused_log_leaves_nothing_finished(tmp_path: Path, file: str, line: bytes, message: str) -> None:
    log = write_log(tmp_path / "log")
    recipe = build(Recipe, recipe_values(log, tmp_path / "model", tmp_path))
    whole = (log / file).read_bytes()
    (log / file).write_bytes(whole + line)
    store = tmp_path / "artefacts"
    with pytest.raises(InputError, match=message):
        run(recipe, store)
    left = [path.name for path in store.rglob("*") if path.is_file()]
    assert left == [".lock"]
    (log / file).write_bytes(whole)
    assert {path.name for path in run(recipe, store).iterdir()} > {DONE, "events.parquet", "items.parquet"}
