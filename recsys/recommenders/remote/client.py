"""Questions to an OpenAI-compatible server: several at a time, patiently, and never for ever.

Every attempt has one deadline over all of it (a server that drips bytes does not escape), a bound on the body's size
and a bounded number of successors. Redirects are not followed: consent names one host. When one question fails for
good, the others stop and the error says why; answers that had arrived are kept by the caller.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx

from recsys.errors import InputError
from recsys.recommenders.remote.answers import Answer, NoAnswer, read_answer
from recsys.recommenders.remote.budget import Budget, Charge, estimate
from recsys.recommenders.remote.retry import backoff, is_passing, retry_after
from recsys.recommenders.remote.secret import ApiKey
from recsys.recommenders.remote.settings import RemoteSettings

logger = logging.getLogger(__name__)

LARGEST_BODY = 2_000_000  # bytes; a chat completion of one label with 20 alternatives has about 3,000
QUOTED_CHARACTERS = 300

OnAnswer = Callable[[int, Answer], None]


class _Passing(Exception):
    """An attempt failed in a way that the next may not. `wait` is what the server asked for, in seconds."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


@dataclass
class Latencies:
    """Seconds of every successful attempt, and the number of retried ones."""

    seconds: list[float] = field(default_factory=list)
    retries: int = 0


class ChatClient:
    """Asks one endpoint. `latencies` grows with use; the key is read from the environment when the client is made."""

    def __init__(self, settings: RemoteSettings, budget: Budget, max_new_tokens: int) -> None:
        self.settings, self.budget, self.max_new_tokens = settings, budget, max_new_tokens
        self.latencies = Latencies()
        self._key = ApiKey.from_environment(settings.api_key_env)
        self._url = f"{settings.endpoint.rstrip('/')}/chat/completions"
        self._not_before = 0.0  # a server that asks one request to wait is left alone by all

    def ask(self, bodies: Sequence[bytes], on_answer: OnAnswer) -> None:
        """Send the request bodies and hand each answer over as it arrives, with its place. Blocks; works inside a
        running event loop too.

        Raises InputError when a question has no answer after all attempts, is refused, or exceeds the budget.
        """
        if not bodies:
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(self._ask_all(bodies, on_answer))
            return
        with ThreadPoolExecutor(1) as other:  # a loop runs here already: a notebook, or an asynchronous reward
            other.submit(lambda: asyncio.run(self._ask_all(bodies, on_answer))).result()

    async def _ask_all(self, bodies: Sequence[bytes], on_answer: OnAnswer) -> None:
        waiting = iter(enumerate(bodies))
        limits = httpx.Limits(max_connections=self.settings.concurrency)
        # Proxies of the environment are for other machines. No timeout here: the deadline covers the whole attempt.
        async with httpx.AsyncClient(timeout=None, limits=limits, trust_env=not self.settings.loopback) as http:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.settings.concurrency, len(bodies))):
                        group.create_task(self._work(http, waiting, on_answer))
            except BaseExceptionGroup as several:
                raise several.exceptions[0] from None

    async def _work(self, http: httpx.AsyncClient, waiting: Iterator[tuple[int, bytes]], on_answer: OnAnswer) -> None:
        for place, body in waiting:
            on_answer(place, await self._question(http, place, body))

    async def _question(self, http: httpx.AsyncClient, place: int, body: bytes) -> Answer:
        """One question, with its further attempts."""
        why = ""
        for attempt in range(self.settings.retries + 1):
            if attempt:
                self.latencies.retries += 1
            await self._pause()
            try:
                with self.budget.call(estimate(body, self.max_new_tokens)) as charge:
                    return await self._attempt(http, body, charge)
            except _Passing as trouble:
                why = str(trouble)
                logger.info("%s: %s (attempt %d)", self.settings.host, why, attempt + 1)
                if attempt < self.settings.retries:
                    await self._wait(trouble.wait, attempt, place)
        raise self._refusal(
            f"gave no answer in {self.settings.retries + 1} attempts; the last: {why}",
            "see that the server is up and serves chat completions, then run the command again: answers are kept",
        )

    async def _attempt(self, http: httpx.AsyncClient, body: bytes, charge: Charge) -> Answer:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                response, raw = await self._post(http, body)
        except TimeoutError:
            raise _Passing(f"nothing complete within {self.settings.timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            if isinstance(error, httpx.ConnectError):
                charge.free()
            raise _Passing(f"the connection failed ({type(error).__name__})") from None
        status = response.status_code
        if status != 200:
            charge.free()
            self._not_ok(status, response.headers.get("Retry-After"), raw)
        try:
            answer = read_answer(raw)
        except NoAnswer as error:
            raise _Passing(str(error)) from None
        charge.settle(answer)
        self.latencies.seconds.append(time.monotonic() - started)
        # Again, for what JSON can spell in several ways.
        return Answer(
            self._key.redact(answer.text),
            tuple((self._key.redact(token), value) for token, value in answer.top),
            answer.prompt_tokens,
            answer.completion_tokens,
        )

    async def _post(self, http: httpx.AsyncClient, body: bytes) -> tuple[httpx.Response, bytes]:
        # Uncompressed answers only: a few bytes cannot then unfold into gigabytes.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        signed = self._key.sign
        async with http.stream("POST", self._url, content=body, headers=headers, auth=signed) as response:
            raw = bytearray()
            async for chunk in response.aiter_raw():
                raw += chunk
                if len(raw) > LARGEST_BODY:
                    raise _Passing(f"an answer of more than {LARGEST_BODY} bytes")
            return response, self._key.redact_bytes(bytes(raw))

    def _not_ok(self, status: int, asked: str | None, raw: bytes) -> None:
        """Raise what a status other than 200 means."""
        wait = retry_after(asked, datetime.now(UTC))
        if is_passing(status):
            if wait is not None and wait > self.settings.longest_wait_s:
                raise self._refusal(
                    f"answers {status} and asks to wait {wait:.0f} s, more than longest_wait_s "
                    f"{self.settings.longest_wait_s:g}",
                    "run the command again later (answers are kept), or raise recommender.remote.longest_wait_s",
                )
            raise _Passing(f"status {status}", wait)
        remedy = "see the server's words; recommender.remote.body adds or removes fields of the request"
        if status in (401, 403):
            named = self.settings.api_key_env
            remedy = f"check the key in {named}" if named else "name the variable with the key: api_key_env"
        elif status == 404:
            remedy = "check endpoint (it usually ends in /v1) and model"
        elif 300 <= status < 400:
            remedy = "texts go to the host you named only: write the final address as endpoint"
        raise self._refusal(f"answers {status}: {self._quoted(raw)}", remedy)

    def _quoted(self, raw: bytes) -> str:
        """The server's words on one line."""
        text = raw.decode("utf-8", "replace")
        return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:QUOTED_CHARACTERS]

    async def _pause(self) -> None:
        while (left := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(left)

    async def _wait(self, asked: float | None, attempt: int, place: int) -> None:
        if asked is not None:
            self._not_before = max(self._not_before, time.monotonic() + asked)
            return
        await asyncio.sleep(backoff(attempt, self.settings.backoff_s, self.settings.longest_wait_s, place))

    def _refusal(self, rule: str, remedy: str) -> InputError:
        return InputError(f"server {self.settings.host} with model {self.settings.model}", rule, remedy)
