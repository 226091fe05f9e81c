"""`engine` changes where the log is worked on, and nothing else: same log, same bytes of examples, same keys."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import Finished, Workshop
from tiny_run import hashes, run

from recsys.errors import InputError
from recsys.logs import buckets
from recsys.storage import file_hash, read_json, read_parquet
from verbalize.config import build, override
from verbalize.forget import forget
from verbalize.pipeline import Context, is_done, stage_keys
from verbalize.recipe import Recipe
from verbalize.recipe_sections import BASELINES
from verbalize.stages import baselines, data, log_files, stages_of

TABLES = ("examples.parquet", "slates.parquet")


@pytest.fixture
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several buckets of a log of 1,440 events."""
    monkeypatch.setattr(log_files, "BUCKET_EVENTS", 200)


def recipe_of(workshop: Workshop, *overrides: str) -> Recipe:
    return build(Recipe, override(workshop.values, list(overrides)))


def run_logs(workshop: Workshop, folder: Path, engine: str) -> Any:
    return data.run_logs(recipe_of(workshop, f"engine={engine}"), Context(folder, {}))


def run_examples(workshop: Workshop, folder: Path, logs: Path, engine: str) -> tuple[dict[str, str], Any]:
    made = Context(folder, {"logs": logs})
    counts = data.run_examples(recipe_of(workshop, f"engine={engine}"), made)
    return {name: file_hash(folder / name) for name in TABLES}, counts


def assert_same_tables(workshop: Workshop, folder: Path, engine: str) -> None:
    """The log and its examples under `engine` are those of `local`; either makes the same examples of either's log."""
    expected = run_logs(workshop, folder / "logs-local", "local")
    assert run_logs(workshop, folder / "logs", engine) == expected
    whole, found = (log_files.load_log(folder / name) for name in ("logs-local", "logs"))
    assert found.events.equals(whole.events) and found.items.equals(whole.items) and found.engaged == whole.engaged
    local = run_examples(workshop, folder / "local", folder / "logs-local", "local")
    assert local[1]["examples_train"] > 20
    assert len(list((folder / "logs" / "events").iterdir())) > 4
    for number, (maker, logs) in enumerate(((engine, "logs"), (engine, "logs-local"), ("local", "logs"))):
        assert run_examples(workshop, folder / str(number), folder / logs, maker) == local


def test_buckets_give_the_same_bytes(workshop: Workshop, tmp_path: Path, small_buckets: None) -> None:
    assert_same_tables(workshop, tmp_path, "bucketed")


def test_ray_gives_the_same_bytes(workshop: Workshop, tmp_path: Path, small_buckets: None) -> None:
    if importlib.util.find_spec("ray") is None:
        if os.environ.get("VERBALIZE_REQUIRE_SERVICES") == "1":
            pytest.fail("ray not installed, and VERBALIZE_REQUIRE_SERVICES=1 requires it")
        pytest.skip("ray not installed (pip install 'verbalize[ray]')")
    from recsys.logs.ray_engine import RayRun

    with RayRun(cpus=2):
        assert_same_tables(workshop, tmp_path, "ray")


def test_a_whole_run_over_buckets_ends_the_same(
    workshop: Workshop, finished: Finished, tmp_path: Path, small_buckets: None
) -> None:
    """Every stage behind reads the log from its buckets."""
    result = run(workshop.values, tmp_path, "engine=bucketed")
    assert len(list((result.stages["logs"] / "events").glob("*.parquet"))) > 4
    assert {name: path.name for name, path in result.stages.items()} == {
        name: path.name for name, path in finished.result.stages.items()
    }
    for stage, names in {
        "examples": TABLES,
        "templates": ("decisions.parquet", "roles.json"),
        "evaluate": ("decisions.parquet", "margins.parquet", "verbalizations.parquet"),
    }.items():
        assert hashes(result.stages[stage], *names) == hashes(finished.result.stages[stage], *names), stage
    audits, expected = (
        read_json(stages["evaluate"] / "done.json")["facts"]["audits"]
        for stages in (result.stages, finished.result.stages)
    )
    assert audits == expected


def test_baselines_read_buckets(workshop: Workshop, tmp_path: Path, small_buckets: None) -> None:
    recipe = recipe_of(workshop, f"evaluation.baselines={list(BASELINES)}")
    scores = []
    for engine in ("local", "bucketed"):
        inputs = {"logs": tmp_path / f"logs-{engine}", "examples": tmp_path / "examples"}
        run_logs(workshop, inputs["logs"], engine)
        run_examples(workshop, inputs["examples"], inputs["logs"], engine)
        items = read_parquet(inputs["logs"] / "items.parquet")["item_id"].to_list()
        seen = baselines.events_before(log_files.scan_events(inputs["logs"]), data_end())
        assert len(seen) == 1440
        scores.append(
            [
                model.score(model.catalogue.known(items[:5]), model.catalogue.slate(items)).tolist()
                for model in baselines.fitted(recipe, inputs)
            ]
        )
    assert scores[0] == scores[1] and len(scores[0]) == len(BASELINES)


def data_end() -> Any:
    return pl.Series(["2030-01-01"]).str.to_datetime(time_zone="UTC")[0]


def test_some_users_of_a_log(workshop: Workshop, tmp_path: Path, small_buckets: None) -> None:
    for engine in ("local", "bucketed"):
        run_logs(workshop, tmp_path / engine, engine)
        whole = log_files.load_log(tmp_path / engine)
        users = pl.Series(["quser0050", "quser0003", "quser0003", "nobody"])
        some = log_files.load_log(tmp_path / engine, users)
        assert some.events.equals(whole.events.filter(pl.col("user_id").is_in(["quser0003", "quser0050"])))
        assert len(some.events) == 48 and some.items.equals(whole.items)


def test_a_killed_run_goes_on_and_ends_the_same(
    workshop: Workshop, finished: Finished, tmp_path: Path, small_buckets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    canonical = buckets.canonical_events

    def third_time_dies(*arguments: Any) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(len(made))
        return canonical(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(buckets, "canonical_events", third_time_dies)
        run(workshop.values, tmp_path, "engine=bucketed", until="examples")
    (folder,) = (tmp_path / "artefacts" / "logs").iterdir()
    written = {path: path.stat().st_mtime_ns for path in (folder / "events").glob("*.parquet")}
    assert len(written) == 2 and not (folder / "done.json").exists()
    result = run(workshop.values, tmp_path, "engine=bucketed", until="examples")
    assert {path: path.stat().st_mtime_ns for path in written} == written
    done, expected = (
        {stage: read_json(stages[stage] / "done.json") for stage in ("logs", "examples")}
        for stages in (result.stages, finished.result.stages)
    )
    assert done["logs"]["facts"] == expected["logs"]["facts"] and done["logs"]["resumed"]
    assert done["examples"]["facts"] == expected["examples"]["facts"]
    assert done["examples"]["files"] == expected["examples"]["files"]


def test_a_user_is_forgotten_in_the_buckets(workshop: Workshop, tmp_path: Path, small_buckets: None) -> None:
    stages = run(workshop.values, tmp_path, "engine=bucketed", until="examples").stages
    before = log_files.load_log(stages["logs"]).events
    gone = pl.col("user_id") == "quser0003"
    assert len(before.filter(gone)) == 24
    done = forget(["quser0003"], runs=[tmp_path])
    assert not done.found.remaining and not done.found.elsewhere and {one.rows for one in done.removed} >= {24}
    assert is_done(stages["logs"]) and is_done(stages["examples"])
    (stages["logs"] / "events" / ".forget-00000.parquet").write_bytes(b"left by a forgetting that was killed")
    assert log_files.load_log(stages["logs"]).events.equals(before.filter(~gone))
    assert read_parquet(stages["examples"] / "examples.parquet").filter(gone).is_empty()


def test_a_killed_run_may_be_finished_by_another_engine(
    workshop: Workshop, tmp_path: Path, small_buckets: None
) -> None:
    """Nothing of one layout is left beside the other."""
    whole = log_files.load_log(finish(workshop, tmp_path / "local", "local"))
    for first, then in (("bucketed", "local"), ("local", "bucketed")):
        folder = tmp_path / f"{first}-{then}"
        finish(workshop, folder, first)  # as if killed before it was noted as done
        assert log_files.load_log(finish(workshop, folder, then)).events.equals(whole.events)
        assert (folder / "events.parquet").exists() == (then == "local") != (folder / "events").exists()
        assert (folder / "parts").exists() == (then == "bucketed")


def finish(workshop: Workshop, folder: Path, engine: str) -> Path:
    run_logs(workshop, folder, engine)
    return folder


def test_the_engine_is_in_no_stages_key(workshop: Workshop) -> None:
    keys = [
        stage_keys(stages_of(recipe_of(workshop, f"engine={engine}"), "verbalize run"))
        for engine in ("local", "bucketed", "ray")
    ]
    assert keys[0] == keys[1] == keys[2]


def test_what_buckets_cannot_hold_is_refused_before_anything_runs(workshop: Workshop, tmp_path: Path) -> None:
    for kind in ("store", "mind"):
        with pytest.raises(InputError, match=rf"engine bucketed with source.kind {kind}.*read whole.*engine: local"):
            recipe_of(workshop, "engine=bucketed", f"source={{kind: {kind}, path: x}}")
    with pytest.raises(InputError, match=r"engine bucketed with examples.slate.policy logged.*another slate.policy"):
        recipe_of(workshop, "engine=bucketed", "examples.slate.policy=logged")


def test_a_missing_ray_is_named(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"needs the package ray.*verbalize\[ray\]"):
        run_logs(workshop, tmp_path, "ray")
    with pytest.raises(InputError, match="engine"):
        recipe_of(workshop, "engine=dask")
