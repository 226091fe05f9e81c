"""`engine: ray` changes where examples are built, and nothing else: same bytes, same keys."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import InputError
from recsys.storage import file_hash
from verbalize.config import build, override
from verbalize.pipeline import Context, stage_keys
from verbalize.recipe import Recipe
from verbalize.stages import data, stages_of


def run_examples(workshop: Any, folder: Path, engine: str) -> tuple[dict[str, str], Any]:
    recipe = build(Recipe, override(workshop.values, [f"engine={engine}"]))
    logs = Context(folder / "logs", {})
    if not logs.folder.exists():
        data.run_logs(recipe, logs)
    made = Context(folder / engine, {"logs": logs.folder})
    counts = data.run_examples(recipe, made)
    return {path.name: file_hash(path) for path in made.folder.iterdir()}, counts


def test_both_engines_write_the_same_bytes(workshop: Any, tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        if os.environ.get("VERBALIZE_REQUIRE_SERVICES") == "1":
            pytest.fail("ray not installed, and VERBALIZE_REQUIRE_SERVICES=1 requires it")
        pytest.skip("ray not installed (pip install 'verbalize[ray]')")
    from recsys.logs.ray_engine import RayRun

    local = run_examples(workshop, tmp_path, "local")
    with RayRun(cpus=2):
        assert run_examples(workshop, tmp_path, "ray") == local
    assert set(local[0]) == {"examples.parquet", "slates.parquet"}


def test_the_engine_is_in_no_stages_key(workshop: Any) -> None:
    keys = [
        stage_keys(stages_of(build(Recipe, override(workshop.values, [f"engine={engine}"])), "verbalize run"))
        for engine in ("local", "ray")
    ]
    assert keys[0] == keys[1]


def test_a_missing_ray_is_named(workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"needs the package ray.*verbalize\[ray\]"):
        run_examples(workshop, tmp_path, "ray")
    with pytest.raises(InputError, match="engine"):
        build(Recipe, override(workshop.values, ["engine=dask"]))
