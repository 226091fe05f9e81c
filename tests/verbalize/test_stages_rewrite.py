"""A recipe that trains free rewriting goes through the same stages, without pool and warm start."""

from pathlib import Path

from conftest import Workshop
from tiny_run import Recorder, hashes, run

from recsys import contracts
from recsys.storage import read_json, read_parquet
from verbalize.recipe_sections import LEARNED, START

REWRITE = (
    "policy.kind=rewrite",
    "warm_start=null",
    "recommender_training=null",
    "seeds=[0]",
    "train.group_size=2",
    "policy.rewrite.max_new_tokens=6",
    "policy.rewrite.instruction=Summarise.",
    "evaluation.untrained=[]",
    "reward.faithfulness_weight=0.5",
)


def test_rewrites_are_trained_evaluated_and_resumed(workshop: Workshop, tmp_path: Path) -> None:
    recorder = Recorder()
    trained = run(workshop.values, tmp_path, *REWRITE, progress=recorder, until="train")
    assert recorder.began() == ["logs", "examples", "templates", "train"] and not trained.console
    folder = trained.stages["train"] / "seed-0"
    assert read_json(folder / "result.json")["steps"] == 2
    card = read_json(folder / "adapter" / "card.json")
    assert card["base_name"] == "tiny-lm" and "rewrite" in card["note"] and card["split"] == "train"
    judged = read_parquet(folder / "validation" / "step-00002.parquet")
    assert len(judged) == 6 and judged["faithful"].is_between(0, 1).all()

    result = run(workshop.values, tmp_path, *REWRITE)
    decisions = contracts.check(read_parquet(result.stages["evaluate"] / "decisions.parquet"), "decisions")
    assert LEARNED in set(decisions["verbalizer"])
    assert set(read_parquet(result.stages["evaluate"] / "margins.parquet")["arm"]) == {START, LEARNED}
    assert "tiny.learned_margin" in result.console
    headroom = next(line for line in result.console.splitlines() if line.startswith("tiny.pool_headroom"))
    assert "not measured: pool headroom: a recipe scores a pool for a warm start that imitates it" in headroom

    before = hashes(result.stages["evaluate"], "decisions.parquet", "margins.parquet")
    (result.stages["evaluate"] / "done.json").unlink()  # as if killed just before the end
    again = run(workshop.values, tmp_path, *REWRITE)
    assert hashes(again.stages["evaluate"], "decisions.parquet", "margins.parquet") == before
