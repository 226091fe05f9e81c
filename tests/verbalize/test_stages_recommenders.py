"""Whole runs over recommenders that are no local language model: a server, and a sentence encoder."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Workshop
from remote_servers import completion, send, serving
from tiny_run import COMMAND, recipe_of, run

from recsys.errors import InputError
from recsys.models.loading import load_language_model
from recsys.recommenders.language import LanguageRecommenderConfig
from recsys.seeding import unit_hash
from recsys.storage import read_json, read_parquet
from verbalize.pipeline import stage_keys
from verbalize.stages import stages_of
from verbalize.stages.recommender import identity

KEY = "sk-secret/Zyx+wvut0123"
UNTRAINED = ("recommender_training=null", "evaluation.untrained=[]", "evaluation.claims=[]")
SMALL = ("sample.train=2", "sample.selection=4", "sample.report=4", "seeds=[0]", "train.steps=1", "templates=[titles]")


def of_server(endpoint: str, *more: str) -> tuple[str, ...]:
    host = endpoint.split("/")[2]
    remote = {"endpoint": endpoint, "model": "m", "api_key_env": "HOUSE_API_KEY", "send_texts_to": host}
    return (*UNTRAINED, "recommender.mode=remote", f"recommender.remote={json.dumps(remote)}", *more)


def scores_labels(handler: Any, body: dict[str, Any], number: int) -> None:
    """Probabilities that depend on the question alone."""
    text = body["messages"][0]["content"]
    send(handler, completion("A", [(label, -4 * unit_hash(text, label)) for label in "ABCD"], {"prompt_tokens": 50}))


def test_a_run_over_a_server_trains_reports_and_keeps_its_answers_but_not_the_key(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOUSE_API_KEY", KEY)
    with serving(scores_labels) as served:
        overrides = of_server(served.endpoint, *SMALL)
        result = run(workshop.values, tmp_path, *overrides)
        asked = len(served.bodies)
        other = (*overrides, "name=again", "recommender.max_text_tokens=4095")
        again = run(workshop.values, tmp_path, *other, until="templates")
        assert len(served.bodies) == asked > 50  # the stage ran again, and no question was new
    assert {headers["Authorization"] for headers in served.headers} == {f"Bearer {KEY}"}
    stages = read_json(result.folder / "manifest.json")["stages"]
    used = [stages[name]["facts"]["recommender"] for name in ("templates", "pool", "train", "evaluate")]
    assert sum(one["calls"] for one in used) == asked and sum(one["prompt_tokens"] for one in used) == 50 * asked
    assert all(one["logprobs"] == one["answers"] > 0 for one in used)
    assert result.stages["templates"] != again.stages["templates"]
    first, second = (read_parquet(each.stages["templates"] / "decisions.parquet") for each in (result, again))
    assert first.equals(second) and first["recommender"].unique().to_list() == ["m-remote-logprobs"]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"HOUSE_API_KEY" in path.read_bytes() for path in written)
    leaks = [path for path in written for form in (KEY, KEY.replace("/", "\\/")) if form.encode() in path.read_bytes()]
    assert not leaks


def test_without_consent_a_run_ends_with_a_preview_before_anything_is_sent(workshop: Workshop, tmp_path: Path) -> None:
    with serving(scores_labels) as served:
        overrides = of_server(served.endpoint, *SMALL, "recommender.remote.send_texts_to=null")
        with pytest.raises(InputError, match=r"(?s)texts with \d+ characters to 127.0.0.1.*send_texts_to"):
            run(workshop.values, tmp_path, *overrides)
        assert served.bodies == []


def test_only_what_decides_scores_is_in_a_stages_key(workshop: Workshop) -> None:
    def keys(*overrides: str) -> dict[str, str]:
        recipe = recipe_of(workshop.values, *of_server("http://localhost:1/v1", *overrides))
        return stage_keys(stages_of(recipe, COMMAND))

    same = ("timeout_s=9", "budget.calls=7", "send_texts_to=null", "api_key_env=OTHER_KEY", "concurrency=2")
    assert keys(*(f"recommender.remote.{change}" for change in same)) == keys()
    for change in ("model=n", "endpoint=http://localhost:2/v1", "answer=text", "body={seed: 1}"):
        moved = keys(f"recommender.remote.{change}")
        assert moved["templates"] != keys()["templates"] and moved["examples"] == keys()["examples"]
    local = set(identity(LanguageRecommenderConfig()))
    assert not local & {"remote", "embedding"} and "cue" in local


def test_a_server_is_not_trained_by_recommender_training(workshop: Workshop) -> None:
    remote = json.dumps({"endpoint": "http://localhost:1/v1", "model": "m"})
    with pytest.raises(InputError, match="recommender_training: null"):
        recipe_of(workshop.values, "recommender.mode=remote", f"recommender.remote={remote}")


@pytest.mark.real_model
def test_a_run_over_the_sentence_encoder(workshop: Workshop, tmp_path: Path) -> None:
    result = run(workshop.values, tmp_path, *UNTRAINED, *SMALL, "recommender.mode=embedding", "reward.kind=log_softmax")
    evaluated = read_parquet(result.stages["evaluate"] / "decisions.parquet")
    assert "minilm-embedding" in evaluated["recommender"]
    assert read_json(result.stages["evaluate"] / "done.json")["facts"]["recommender"]["texts_cut"] == 0


@pytest.mark.real_model
def test_a_sentence_encoder_learns_from_slates_and_is_read_with_its_adapter(workshop: Workshop, tmp_path: Path) -> None:
    training = (
        "recommender_training={examples: 16, accumulation: 4, save_every: 4, score_scale: 1.0, templates: [titles]}"
    )
    mode = ("recommender.mode=embedding", "reward.kind=log_softmax", training)
    arms = ("evaluation.untrained=[learned]", "evaluation.claims=[]")
    result = run(workshop.values, tmp_path, *mode, *SMALL, *arms)
    folder = result.stages["recommender"] / "adapter"
    assert read_json(folder / "card.json")["base_name"] == "minilm"
    assert len(read_parquet(result.stages["recommender"] / "curve.parquet")) == 4
    read = read_parquet(result.stages["evaluate"] / "decisions.parquet")
    trained, untrained = (
        read.filter(verbalizer="learned", recommender=name).sort("example_id", "slate_index")["scores"].to_list()
        for name in ("minilm-embedding-trained", "minilm-embedding")
    )
    assert len(trained) == len(untrained) > 0 and trained != untrained
    with pytest.raises(InputError, match="does not belong to the loaded base"):
        load_language_model(str(workshop.model), adapter=folder)
