"""`verbalize data append` and `forget` from the command line: files in, a store like the whole log, a user out."""

from pathlib import Path

import polars as pl
import pytest
import yaml
from tiny_run import MAPPING, recipe_values, write_log, write_recipe

from recsys.errors import InputError
from recsys.logs.events import canonicalise
from recsys.logs.examples import build_examples
from recsys.logs.sources import SourceConfig, open_source
from recsys.logs.store import Store
from recsys.logs.store.batches import read_batch
from verbalize.candidate_texts import CandidateTexts
from verbalize.cli import main
from verbalize.recipe import load_recipe
from verbalize.verbalizers.action_pool import CANDIDATES, ScriptedActionVerbalizer
from verbalize.verbalizers.base import verbalizer_inputs


@pytest.fixture
def arrivals(tmp_path: Path) -> dict[str, Path]:
    """A log whose events came in three files, out of order and overlapping; its mapping, items and recipe."""
    log = write_log(tmp_path / "log")
    lines = (log / "events.csv").read_text().splitlines(keepends=True)
    for name, part in (("a", lines[500:1100]), ("b", lines[1:600]), ("c", lines[1000:])):
        (tmp_path / f"{name}.csv").write_text(lines[0] + "".join(part))
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(MAPPING))
    values = recipe_values(log, tmp_path / "model", tmp_path)
    recipe = write_recipe(values, tmp_path / "recipe.yaml")
    return {"log": log, "mapping": tmp_path / "mapping.yaml", "items": log / "items.csv", "recipe": recipe}


def test_files_in_any_order_become_the_store_of_the_whole_log(
    tmp_path: Path, arrivals: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path / "store")
    append = ["data", "append", root]
    mapped = ["--mapping", str(arrivals["mapping"]), "--buckets", "3"]
    files = [str(tmp_path / f"{name}.csv") for name in "abc"]
    once = ["--items", str(arrivals["items"]), "--refresh", str(arrivals["recipe"])]
    assert main([*append, files[0], *mapped, *once]) == 0
    assert "reference 1" in capsys.readouterr().out
    assert main([*append, *files[1:], *mapped]) == 0
    assert main([*append, files[0], *mapped]) == 0
    assert "events new" not in capsys.readouterr().out.splitlines()[-1]
    log = canonicalise(open_source(SourceConfig("table", str(arrivals["log"]), inline=MAPPING)))
    assert Store(root).log().events.equals(log.events)
    assert main(["data", "append", root, "--refresh", str(arrivals["recipe"]), "--compact"]) == 0
    recipe = load_recipe(arrivals["recipe"])
    store = Store(root)
    assert store.log().engaged == log.engaged
    examples = store.examples()
    assert examples.equals(build_examples(log, recipe.examples)[0])
    texts = store.texts()
    assert set(texts["verbalizer"]) == {*recipe.templates, *recipe.constants, *CANDIDATES}
    for name in ("random_half", "liked_metadata"):
        alone = ScriptedActionVerbalizer(name, recipe.policy.actions, recipe.examples.seed)
        pairs = pl.DataFrame(
            {"example_id": examples["example_id"], "alone": alone.verbalize(verbalizer_inputs(examples))}
        )
        joined = texts.filter(pl.col("verbalizer") == name).join(pairs, on="example_id")
        assert len(joined) == len(examples) and joined["text"].equals(joined["alone"], check_names=False)
    assert main(["data", "forget", "--user", "quser0003", "--store", root, "--dry-run"]) == 0
    assert "would be removed" in capsys.readouterr().out
    assert main(["data", "forget", "--user", "quser0003", "--store", root]) == 0
    assert "now stand in 0 values" in capsys.readouterr().out
    assert "quser0003" not in Store(root).log().events["user_id"]


def test_texts_are_described_well_enough_to_be_written_on_elsewhere() -> None:
    texts = CandidateTexts(["titles", "keep_all", "recent_3"], seed=4)
    again = CandidateTexts.of_settings(texts.settings)
    assert again is not None and again.settings == texts.settings
    assert CandidateTexts.of_settings({}) is None
    with pytest.raises(InputError, match="neither constant nor in the pool"):
        CandidateTexts(["keep_most"])


def test_a_batch_is_refused_with_what_it_lacks(tmp_path: Path, arrivals: dict[str, Path]) -> None:
    batch = read_batch(tmp_path / "a.csv", arrivals["mapping"])
    assert batch.items is None and "title" not in batch.events.collect_schema()
    with pytest.raises(InputError, match="no such file"):
        read_batch(tmp_path / "z.csv", arrivals["mapping"])
    (tmp_path / "bad.yaml").write_text("events: 3")
    with pytest.raises(InputError, match=r"events\.columns"):
        read_batch(tmp_path / "a.csv", tmp_path / "bad.yaml")
    assert main(["data", "append", str(tmp_path / "store"), str(tmp_path / "a.csv")]) == 2
    assert main(["data", "forget", "--user", "x"]) == 2
