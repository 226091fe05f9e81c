"""Remote recommenders against hostile servers: what is said is read or refused, and nothing hangs."""

import asyncio
import json
import random
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from remote_servers import (
    SLATE,
    TITLES,
    Respond,
    Served,
    completion,
    fine,
    free_port,
    queries,
    rank,
    remote,
    says,
    send,
    serving,
)

from recsys.errors import CorruptFileError, InputError
from recsys.recommenders.language import LanguageRecommenderConfig
from recsys.recommenders.listwise import LABELS
from recsys.recommenders.remote.answers import Answer, NoAnswer, label_scores, read_answer
from recsys.recommenders.remote.cache import AnswerCache, Spent
from recsys.recommenders.remote.recommender import RemoteRecommender
from recsys.recommenders.remote.retry import backoff, retry_after
from recsys.recommenders.remote.settings import BudgetSettings, RemoteSettings

# --- what servers say ---------------------------------------------------------------------------------------------


def test_label_scores_are_the_distribution_over_labels() -> None:
    values = np.log([0.5, 0.2, 0.1, 0.05, 0.15])
    tokens = ["A", "the", "C", "B", "zz"]
    found = label_scores(list(zip(tokens, values, strict=True)), 3)
    assert found is not None and np.exp(found) == pytest.approx(np.array([0.5, 0.05, 0.1]) / 0.65)


def test_spellings_of_a_label_add_up_and_small_letters_are_other_words() -> None:
    found = label_scores([("B", np.log(0.2)), ("\u0120B", np.log(0.1)), (" A\n", np.log(0.3)), ("a", np.log(0.4))], 2)
    assert found is not None and np.exp(found) == pytest.approx([0.5, 0.5])


def test_labels_that_are_not_listed_share_the_rest_below_those_that_are() -> None:
    found = label_scores([("B", np.log(0.6)), ("the", np.log(0.3))], 4)
    assert found is not None and np.exp(found) == pytest.approx(np.array([1 / 30, 0.6, 1 / 30, 1 / 30]) / 0.7)
    tight = label_scores([("B", 0.0)], 3)
    assert tight is not None and np.isfinite(tight).all() and tight[1] > tight[0] == tight[2]
    assert label_scores([("the", -0.1), ("b", -3.0), ("D", -4.0)], 3) is None  # D is no label among three


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_an_answer_or_refused_as_none(raw: bytes) -> None:
    with pytest.raises(NoAnswer):
        read_answer(raw)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
junk = st.recursive(leaves, lambda inner: st.lists(inner, max_size=2), max_leaves=3)


@given(choice=junk, message=junk, content=junk, logprobs=junk, first=junk, top=junk, usage=junk, hole=st.integers(0, 6))
@settings(max_examples=80, deadline=None)
def test_junk_in_any_place_of_a_completion_is_read_or_refused(hole: int, **parts: Any) -> None:
    body = json.loads(completion("B", [("B", -0.1)], {"prompt_tokens": 3}))
    choice = body["choices"][0]
    places: list[tuple[Any, Any, str]] = [
        (body["choices"], 0, "choice"),
        (choice, "message", "message"),
        (choice["message"], "content", "content"),
        (choice, "logprobs", "logprobs"),
        (choice["logprobs"]["content"], 0, "first"),
        (choice["logprobs"]["content"][0], "top_logprobs", "top"),
        (body, "usage", "usage"),
    ]
    parent, key, name = places[hole]
    parent[key] = parts[name]
    try:
        answer = read_answer(json.dumps(body).encode())
    except NoAnswer:
        return
    assert isinstance(answer.text, str) and all(np.isfinite(value) and value < 0.01 for _, value in answer.top)
    assert Answer.loads(answer.dumps()) == answer


def test_reasoning_before_the_answer_is_not_the_answer() -> None:
    assert read_answer(completion("<think>A or B?\nB.</think>\n\nC")).text.strip() == "C"
    assert read_answer(completion(None)).text == ""


def test_waiting_times() -> None:
    now = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
    assert retry_after("Fri, 01 May 2026 12:00:30 GMT", now) == 30.0
    assert retry_after("Fri, 01 May 2026 11:00:00 GMT", now) == 0.0
    assert [retry_after(text, now) for text in (None, "-1", "nan", "inf", "tomorrow")] == [None] * 5
    pauses = [backoff(attempt, 1.0, 10.0, "x") for attempt in range(200)]
    assert all(0.5 * min(2.0**n, 10.0) <= pause <= min(2.0**n, 10.0) for n, pause in enumerate(pauses))
    assert backoff(1, 1.0, 10.0, "x") != backoff(1, 1.0, 10.0, "y")


# --- hostile servers ----------------------------------------------------------------------------------------------


def hangs(handler: Any, body: Any, number: int) -> None:
    SERVED[-1].closing.wait(100)


def drips(handler: Any, body: Any, number: int) -> None:
    handler.send_response(200)
    handler.end_headers()
    while not SERVED[-1].closing.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def floods(handler: Any, body: Any, number: int) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b" " * 100_000)


def breaks_off(handler: Any, body: Any, number: int) -> None:
    send(handler, completion("B")[:50], Content_Length="5000")


SERVED: list[Served] = []
HOSTILE: dict[str, tuple[Respond, str]] = {
    "hangs": (hangs, r"3 attempts.*within 0.4 s"),
    "drips bytes": (drips, r"within 0.4 s"),
    "floods": (floods, r"more than 2000000 bytes"),
    "breaks off": (breaks_off, r"connection failed"),
    "500": (lambda h, b, n: send(h, b"boom", 500), r"3 attempts.*status 500"),
    "429 without end": (lambda h, b, n: send(h, b"", 429, Retry_After="0"), r"3 attempts.*status 429"),
    "429 for an hour": (lambda h, b, n: send(h, b"", 429, Retry_After="3600"), r"wait 3600 s.*longest_wait_s"),
    "garbage": (lambda h, b, n: send(h, random.Random(n).randbytes(400)), r"not (UTF-8|JSON)"),
    "truncated JSON": (lambda h, b, n: send(h, completion("B")[:-20]), r"only the beginning"),
    "nested too deep": (lambda h, b, n: send(h, b"[" * 100_000), r"not JSON"),
    "an error object": (lambda h, b, n: send(h, b'{"error": "no"}'), r"without choices"),
    "no choices": (lambda h, b, n: send(h, b'{"choices": []}'), r"empty list of choices"),
    "no message": (lambda h, b, n: send(h, b'{"choices": [{}]}'), r"without a message"),
    "odd log-probabilities": (says("B", top=[("B", "high")]), r"log-probabilities"),
    "400": (lambda h, b, n: send(h, b'{"detail": "no\nsuch field"}', 400), r"400.*no such field.*remote.body"),
    "401": (lambda h, b, n: send(h, b"", 401), r"401.*api_key_env"),
    "404": (lambda h, b, n: send(h, b"", 404), r"404.*endpoint"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_server_gives_a_clear_error_in_bounded_time(case: str) -> None:
    respond, words = HOSTILE[case]
    started = time.monotonic()
    with serving(respond) as served:
        SERVED.append(served)
        with pytest.raises(InputError, match=words) as caught:
            rank(remote(served, timeout_s=0.4 if case in ("hangs", "drips bytes") else 60.0), 3)
    assert served.host in str(caught.value) and "some-model" in str(caught.value)
    assert time.monotonic() - started < 60


def test_nobody_at_home() -> None:
    with pytest.raises(InputError, match=r"connection failed \(ConnectError\)"):
        rank(remote(None, f"http://127.0.0.1:{free_port()}/v1"))


def test_redirects_are_not_followed() -> None:
    """Consent names one host."""
    with serving(fine) as other:

        def elsewhere(handler: Any, body: Any, number: int) -> None:
            send(handler, b"", 307, Location=f"{other.endpoint}/chat/completions")

        with serving(elsewhere) as served, pytest.raises(InputError, match=r"307.*final address"):
            rank(remote(served))
        assert other.bodies == []


def test_passing_troubles_are_retried_and_a_server_that_asks_for_time_gets_it() -> None:
    def recovers(handler: Any, body: Any, number: int) -> None:
        if number == 0:
            send(handler, b"slow down", 429, Retry_After="1")
        elif number == 1:
            send(handler, b"\xff\xfe")
        else:
            fine(handler)

    started = time.monotonic()
    with serving(recovers) as served:
        recommender = remote(served)
        scores = rank(recommender)[0]
    assert time.monotonic() - started >= 1.0
    assert len(served.bodies) == 3 and sorted(scores) == [0, 0, 0, 0, 1]
    report = recommender.report()
    assert (report["calls"], report["retries"], report["label"]) == (3, 2, 1)
    # The garbage may have been billed: it is charged at its estimate. The 429 was not.
    assert 100 < report["prompt_tokens"] < 1000 and report["latency_s"]["p50"] > 0


def test_wrong_labels_are_counted_score_nothing_and_end_a_run_that_is_full_of_them() -> None:
    with serving(says("Z")) as served:
        recommender = remote(served)
        assert not np.any(rank(recommender, 19))
        assert recommender.counts == {"answers": 19, "unparseable": 19}
        with pytest.raises(InputError, match=r"20 of 20 answers.*max_unparseable 0.5"):
            rank(recommender)
        tolerant = remote(served, max_unparseable=1.0)
        assert len(rank(tolerant, 25)) == 25 and tolerant.report()["unparseable"] == 25


def test_no_more_than_the_allowed_number_at_once_and_every_answer_in_its_place() -> None:
    together = threading.Barrier(3)

    def respond(handler: Any, body: dict[str, Any], number: int) -> None:
        if number < 3:
            together.wait(30)  # three come at once, or nobody passes
        time.sleep(0.03 * (number % 3))
        text = int(body["messages"][0]["content"].rsplit(" ", 1)[1])
        send(handler, completion(LABELS[text % 5]))

    with serving(respond) as served:
        recommender = remote(served, concurrency=3)
        scores = rank(recommender, 12)
    assert served.most_at_once == 3 and len(served.bodies) == 12
    prompts = [body["messages"][0]["content"] for body in served.bodies]
    for number, (query, row) in enumerate(zip(queries(12), scores, strict=True)):
        prompt = next(text for text in prompts if text.endswith(f" {number}"))
        chosen = SLATE[int(row.argmax())]
        assert f"\n{LABELS[number % 5]}. {TITLES[chosen]}\n" in f"\n{prompt}", query
        assert prompt.index(TITLES["0"]) < prompt.index(query.text) and prompt.endswith(query.text)


def test_it_works_inside_a_running_event_loop() -> None:
    async def notebook(recommender: RemoteRecommender) -> list[np.ndarray]:
        return rank(recommender)

    with serving(fine) as served:
        assert asyncio.run(notebook(remote(served)))[0].sum() == 1


# --- configuration and files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"endpoint": "http://localhost:8000/v1/chat/completions"},
        {"endpoint": "localhost:8000"},
        {"endpoint": "http://localhost:99999/v1"},
        {"model": " "},
        {"answer": "vote"},
        {"concurrency": 0},
        {"retries": -1},
        {"timeout_s": 0.0},
        {"timeout_s": float("inf")},
        {"max_unparseable": 1.5},
        {"body": {"messages": []}},
    ],
)
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        RemoteSettings(**{"endpoint": "http://localhost:8000/v1", "model": "m", **bad})


def test_settings_say_what_they_reach_and_need_no_torch() -> None:
    tls, local = RemoteSettings("https://API.Example.com:443/v1", "m"), RemoteSettings("http://[::1]:8000/v1", "m")
    assert (tls.host, tls.encrypted, tls.loopback) == ("api.example.com:443", True, False)
    assert (local.host, local.encrypted, local.loopback) == ("[::1]:8000", False, True)
    with pytest.raises(InputError, match="remote section"):
        LanguageRecommenderConfig(mode="remote")
    for bad in ({"calls": 0}, {"money": 1.0}, {"prompt_price": -1.0}):
        with pytest.raises(InputError):
            BudgetSettings(**bad)  # type: ignore[arg-type]
    code = "import sys, recsys.recommenders.language; sys.exit(bool({'torch', 'httpx', 'faiss'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_request_is_what_the_settings_say() -> None:
    with serving(fine) as served:
        rank(remote(served))
        rank(remote(served, answer="text", body={"max_tokens": None, "max_completion_tokens": 9, "seed": 7}))
    first, second = served.bodies
    assert (first["logprobs"], first["top_logprobs"], first["max_tokens"], first["temperature"]) == (True, 20, 1, 0)
    assert "logprobs" not in second and "max_tokens" not in second
    assert (second["max_completion_tokens"], second["seed"]) == (9, 7)


def test_files_that_are_no_answers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("not a database, but long enough to look at" * 50)
    with pytest.raises(CorruptFileError, match="delete the file"):
        AnswerCache(tmp_path / "bad")
    cache = AnswerCache(tmp_path / "a.sqlite")
    cache.put(b"k", Answer("B", (("B", -0.5),), 3, 1))
    cache.put(b"k", Answer("C"))
    assert cache.get(b"k") == Answer("B", (("B", -0.5),), 3, 1) and cache.get(b"other") is None
    cache.spend("x", Spent(1, 2, 3))
    cache.spend("x", Spent(1, 2, 3))
    assert AnswerCache(tmp_path / "a.sqlite").spent("x") == Spent(2, 4, 6)
    cache._database.execute("UPDATE answers SET answer = '[1]'")
    with pytest.raises(CorruptFileError, match=r"and paid"):
        cache.get(b"k")
