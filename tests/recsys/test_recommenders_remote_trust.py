"""What a remote recommender may send, spend and show: consent, budgets and keys."""

import json
import logging
import pickle
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from remote_servers import SLATE, Respond, completion, fine, queries, rank, remote, says, send, serving

from recsys.errors import InputError
from recsys.recommenders.base import Query
from recsys.recommenders.remote.secret import ApiKey
from recsys.recommenders.remote.settings import BudgetSettings, RemoteSettings

KEY = "sk-secret/Zyx+wvut0123"


# --- consent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [None, "localhost", "api.example.com"])
def test_nothing_is_sent_without_consent_and_the_refusal_previews_it(named: str | None) -> None:
    with serving(fine) as served:
        recommender = remote(served, send_texts_to=named)
        with pytest.raises(InputError) as caught:
            rank(recommender, 3)
        shown = recommender.preview(queries(3), [SLATE] * 3)
        assert served.bodies == []
    message = str(caught.value)
    assert str(shown) in message and f"send_texts_to={served.host}" in message and "NOT encrypted" in message
    assert (
        shown.texts == 3
        and shown.example.endswith("the viewer's text 0")
        and shown.characters == 3 * len(shown.example)
    )


def test_stored_answers_need_no_server_no_consent_and_no_key(tmp_path: Path) -> None:
    path = str(tmp_path / "answers.sqlite")
    with serving(says("C")) as served:
        first = rank(remote(served, cache=path), 3)
    asleep = remote(served, cache=path, send_texts_to=None, api_key_env="SOME_UNSET_KEY")
    second = rank(asleep, 3)
    assert [row.tolist() for row in first] == [row.tolist() for row in second]
    assert asleep.report()["from_cache"] == 3 and asleep.report()["calls"] == 0
    with pytest.raises(InputError, match="consent"):  # another setting is another question
        rank(remote(served, cache=path, send_texts_to=None, body={"seed": 1}))


def test_answers_that_arrived_before_a_failure_are_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "answers.sqlite")

    def dies(handler: Any, body: Any, number: int) -> None:
        fine(handler) if number < 4 else send(handler, b"", 401)

    with serving(dies) as served, pytest.raises(InputError, match="401"):
        rank(remote(served, cache=path, concurrency=1), 6)
    with serving(fine) as again:
        # The same question to the same address: the port is part of it, so the first server's is named.
        resumed = remote(again, cache=path)
        assert resumed.cache.spent(f"house/some-model at {served.host}").calls == 5
        assert resumed.cache._database.execute("SELECT count(*) FROM answers").fetchone() == (4,)


def test_equal_questions_are_asked_once() -> None:
    with serving(fine) as served:
        rows = remote(served).rank([Query("e", "same")] * 4, [SLATE, SLATE[::-1], SLATE, SLATE])
    assert len(served.bodies) == 1
    assert rows[0].tolist() == rows[1].tolist()[::-1] == rows[2].tolist()


# --- budget -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "calls"),
    [
        ({"calls": 4}, 4),
        ({"tokens": 540}, 4),  # 101 a call, some 160 expected of the next
        ({"money": 0.5, "prompt_price": 1000.0, "completion_price": 9.0}, 4),
    ],
)
def test_a_budget_ends_the_run_and_counts_over_all_processes(
    limits: dict[str, Any], calls: int, tmp_path: Path
) -> None:
    path = str(tmp_path / "answers.sqlite")
    with serving(fine) as served:
        settings = {"cache": path, "concurrency": 1, "budget": BudgetSettings(**limits)}
        first = remote(served, **settings)
        with pytest.raises(
            InputError, match=rf"budget.{next(iter(limits))}.*asked {calls} times, for {calls * 101} tokens"
        ):
            rank(first, 10)
        assert len(served.bodies) == calls and first.report()["prompt_tokens"] == 100 * calls
        with pytest.raises(InputError, match="would be exceeded"):  # another process, the same file
            rank(remote(served, **settings), 10)
        assert len(served.bodies) == calls
        assert len(rank(remote(served, **settings), calls)) == calls  # what is known costs nothing


def test_calls_are_never_exceeded_by_several_at_once() -> None:
    def slow(handler: Any, body: Any, number: int) -> None:
        time.sleep(0.05)
        fine(handler)

    with serving(slow) as served, pytest.raises(InputError, match=r"budget.calls = 5"):
        rank(remote(served, concurrency=8, budget=BudgetSettings(calls=5)), 20)
    assert len(served.bodies) <= 5


def test_money_is_tokens_at_their_prices() -> None:
    with serving(fine) as served:
        recommender = remote(served, budget=BudgetSettings(prompt_price=2.0, completion_price=10.0))
        rank(recommender, 5)
    assert recommender.report()["money"] == pytest.approx(5 * (100 * 2 + 1 * 10) / 1e6)


# --- keys ---------------------------------------------------------------------------------------------------------


def echoes(status: int) -> Respond:
    """A server that repeats the key wherever it can, spelled in every way JSON allows."""

    def respond(handler: Any, body: Any, number: int) -> None:
        key = handler.headers["Authorization"].removeprefix("Bearer ")
        reply = completion(f"B {key}", top=[("B", -0.5), (key, -1.0)]).decode()
        reply = reply.replace(key, key.replace("/", "\\/"), 1).replace(key, f"\\u{ord(key[0]):04x}{key[1:]}", 1)
        if status != 200:
            reply = f"bad key {key}" + " x" * 400
        send(handler, reply.encode(), status, X_Echo=key)

    return respond


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_the_key_reaches_the_server_and_nothing_else(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOUSE_API_KEY", KEY)
    path = tmp_path / "answers.sqlite"
    seen: list[str] = []
    with serving(echoes(status)) as served, caplog.at_level(logging.INFO):
        recommender = remote(served, api_key_env="HOUSE_API_KEY", cache=str(path), retries=1)
        try:
            seen.append(repr(rank(recommender, 2)))
        except InputError as error:
            seen += [str(error), repr(error), repr(pickle.dumps(error))]
            seen.append("".join(traceback.TracebackException.from_exception(error, capture_locals=True).format()))
        else:
            assert status == 200 and recommender.report()["logprobs"] == 2
    assert {headers["Authorization"] for headers in served.headers} == {f"Bearer {KEY}"}
    seen += [caplog.text, repr(recommender.settings), json.dumps(recommender.report()), recommender.digest]
    seen += [repr(vars(recommender)), repr(vars(recommender._client)), recommender.name]
    seen += [file.read_bytes().decode("latin-1") for file in tmp_path.iterdir()]
    leaks = [text for text in seen if KEY in text or KEY.replace("/", "\\/") in text or KEY[3:] in text]
    assert not leaks, leaks[0]


def test_keys_do_not_print_or_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    key = ApiKey(KEY)
    assert KEY not in repr(key) + str(key) + f"{key}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)
    for value in ("", "   ", "short", "with space inside", "line\nbreak-in-it", "schlüssel-mit-umlaut"):
        monkeypatch.setenv("HOUSE_API_KEY", value)
        with pytest.raises(InputError, match="HOUSE_API_KEY") as caught:
            ApiKey.from_environment("HOUSE_API_KEY")
        assert not value.strip() or value not in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        {"api_key_env": KEY},
        {"api_key_env": "AKIASOMETHING0123"},
        {"endpoint": f"https://user:{KEY}@api.example.com/v1"},
        {"endpoint": f"https://api.example.com/v1?api-key={KEY}"},
        {"endpoint": f"ftp://{KEY}"},
        {"endpoint": f"https://{KEY} /v1"},
    ],
)
def test_what_may_be_a_key_is_refused_and_not_repeated(bad: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        RemoteSettings(**{"endpoint": "http://localhost:8000/v1", "model": "m", **bad})
    assert KEY not in str(caught.value) and "AKIA" not in str(caught.value)
