"""Remote recommenders against real servers: `transformers serve`, and a real model's own probabilities."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from remote_servers import free_port, model_respond, serving

from recsys.models.chat import install_chat_template
from recsys.models.loading import LanguageModel, load_language_model
from recsys.recommenders.base import Query
from recsys.recommenders.language import LanguageRecommenderConfig, build_language_recommender
from recsys.recommenders.listwise import label_tokens
from recsys.recommenders.remote.recommender import RemoteRecommender
from recsys.recommenders.remote.settings import RemoteSettings

TITLES = {"1": "the night film", "2": "war and love", "3": "a man of the day", "4": "comedy"}
QUERIES = [Query(f"e{n}", text) for n, text in enumerate(["drama; war", "comedy", "the story of a man in love"])]
SLATES = [list(TITLES), ["4", "1"], ["3", "2", "1"]]
UP_WITHIN_S = 240  # importing torch and transformers on a busy machine


@pytest.fixture(scope="module")
def chat_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a chat template, which servers need."""
    folder = tmp_path_factory.mktemp("chat")
    loaded = load_language_model(str(tiny_model_dir))
    loaded.model.save_pretrained(folder)
    install_chat_template(loaded.tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lm(chat_dir: Path) -> LanguageModel:
    return load_language_model(str(chat_dir))


@pytest.fixture(scope="module")
def transformers_server(chat_dir: Path) -> Iterator[str]:
    """`transformers serve` with the tiny model; its base address."""
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(chat_dir)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([*command, *options], env=os.environ | {"HF_HUB_OFFLINE": "1"}, **quiet)  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + UP_WITHIN_S
        while True:
            assert server.poll() is None, f"transformers serve ended with {server.returncode}"
            assert time.monotonic() < deadline, "transformers serve did not come up"
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5, trust_env=False).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


def remote(endpoint: str, model: str = "tiny", **changes: Any) -> RemoteRecommender:
    consent = {"send_texts_to": endpoint.split("/")[2], "timeout_s": 120.0, "max_unparseable": 1.0}
    settings = RemoteSettings(**{"endpoint": endpoint, "model": model, **consent, **changes})
    config = LanguageRecommenderConfig(mode="remote", remote=settings, max_new_tokens=6)
    recommender = build_language_recommender(config, TITLES)
    assert isinstance(recommender, RemoteRecommender)
    return recommender


def test_a_servers_probabilities_give_the_scores_of_the_local_listwise_mode(lm: LanguageModel) -> None:
    """Prompt, order, labels and renormalisation agree, where the server lists the tokens that are read locally."""
    local = build_language_recommender(LanguageRecommenderConfig(mode="listwise"), TITLES, lm).rank(QUERIES, SLATES)
    with serving(model_respond(lm, listed=label_tokens(lm, 4))) as served:
        recommender = remote(served.endpoint)
        found = recommender.rank(QUERIES, SLATES)
    for ours, theirs in zip(found, local, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    report = recommender.report()
    assert report["logprobs"] == report["calls"] == len(QUERIES) and report["completion_tokens"] == len(QUERIES)


def test_transformers_serve_answers_as_the_local_generate_mode(
    transformers_server: str, chat_dir: Path, lm: LanguageModel
) -> None:
    """It offers no probabilities: both settings end in the answer's text, and say so."""
    local = build_language_recommender(LanguageRecommenderConfig(mode="generate", max_new_tokens=6), TITLES, lm)
    expected = local.rank(QUERIES, SLATES)
    parsed = remote(transformers_server, str(chat_dir), answer="text", concurrency=2)
    found = parsed.rank(QUERIES, SLATES)
    assert [row.tolist() for row in found] == [row.tolist() for row in expected]
    for how in ("label", "title", "unparseable"):
        assert parsed.counts[how] == local.counts[how]  # type: ignore[attr-defined]
    report = parsed.report()
    assert report["calls"] == len(QUERIES) and report["completion_tokens"] <= 6 * len(QUERIES)
    assert report["prompt_tokens"] > 50 * len(QUERIES) and report["latency_s"]["p95"] > 0

    asking = remote(transformers_server, str(chat_dir))
    rows = asking.rank(QUERIES, SLATES)
    assert asking.counts["logprobs"] == 0 and asking.counts["answers"] == len(QUERIES)
    assert all(np.isin(row, (0.0, 1.0)).all() for row in rows)
