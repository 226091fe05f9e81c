"""Servers for the tests of remote recommenders (one that says anything, one with a real model behind it), and a
recommender to meet them."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch

from recsys.models.chat import encode_chat
from recsys.models.loading import LanguageModel
from recsys.recommenders.base import Query
from recsys.recommenders.language import LanguageRecommenderConfig, build_language_recommender
from recsys.recommenders.remote.recommender import RemoteRecommender
from recsys.recommenders.remote.settings import RemoteSettings

Respond = Callable[[BaseHTTPRequestHandler, dict[str, Any], int], None]


@dataclass
class Served:
    """A running server: its base address, and what it was asked."""

    endpoint: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list, repr=False)  # where keys are
    most_at_once: int = 0
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def host(self) -> str:
        return self.endpoint.split("/")[2]


@contextmanager
def serving(respond: Respond) -> Iterator[Served]:
    """A server on a free port that answers request number n (from 0) by `respond(handler, body, n)`."""
    lock = threading.Lock()
    under_way = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal under_way
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(served.bodies)
                served.bodies.append(body)
                served.headers.append(dict(self.headers))
                under_way += 1
                served.most_at_once = max(served.most_at_once, under_way)
            try:
                respond(self, body, number)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client had enough
            finally:
                with lock:
                    under_way -= 1

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served = Served(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.closing.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    """One whole response."""
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def completion(
    content: str | None, top: Sequence[tuple[str, Any]] | None = None, usage: dict[str, Any] | None = None
) -> bytes:
    """A chat completion as OpenAI's interface describes it."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    if top is not None:
        listed = [{"token": token, "logprob": value, "bytes": None} for token, value in top]
        choice["logprobs"] = {"content": [{"token": content, "logprob": 0.0, "top_logprobs": listed}]}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def model_respond(lm: LanguageModel, listed: Sequence[int] | None = None) -> Respond:
    """Answers by a real model: the next token's likeliest alternatives, as many as asked for, or the `listed` ones."""

    def respond(handler: BaseHTTPRequestHandler, body: dict[str, Any], _: int) -> None:
        ids = encode_chat(lm.tokenizer, body["messages"], add_generation_prompt=True)
        with torch.inference_mode():
            logprobs = torch.log_softmax(lm.model(input_ids=torch.tensor([ids])).logits[0, -1].double(), -1)
        shown = listed or logprobs.topk(body["top_logprobs"]).indices.tolist()
        top = [(lm.tokenizer.decode([token]), float(logprobs[token])) for token in shown]
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1}
        send(handler, completion(top[0][0], top, usage))

    return respond


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


TITLES = {str(n): f"Film number {n}" for n in range(5)}
SLATE = list(TITLES)


def remote(served: Served | None, endpoint: str = "", **changes: Any) -> RemoteRecommender:
    endpoint = endpoint or (served.endpoint if served else "http://127.0.0.1:9/v1")
    quick = {"send_texts_to": endpoint.split("/")[2], "backoff_s": 0.01, "timeout_s": 60.0, "retries": 2}
    cache = changes.pop("cache", None)
    settings = RemoteSettings(**{"endpoint": endpoint, "model": "house/some-model", **quick, **changes})
    config = LanguageRecommenderConfig(mode="remote", remote=settings, cache=cache)
    recommender = build_language_recommender(config, TITLES)
    assert isinstance(recommender, RemoteRecommender)
    return recommender


def queries(count: int) -> list[Query]:
    return [Query(f"e{n}", f"the viewer's text {n}") for n in range(count)]


def rank(recommender: RemoteRecommender, count: int = 1) -> list[np.ndarray]:
    return recommender.rank(queries(count), [SLATE] * count)


def says(content: str | None, **more: Any) -> Respond:
    return lambda handler, body, number: send(handler, completion(content, **more))


def fine(handler: Any, body: Any = None, number: int = 0) -> None:
    send(handler, completion("B", usage={"prompt_tokens": 100, "completion_tokens": 1}))
