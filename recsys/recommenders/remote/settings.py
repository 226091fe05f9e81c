"""Settings of the remote recommender. Standard library only: the configuration of a run is read before anything else.

An API key is never a setting: `api_key_env` names the environment variable that holds it. What looks like a key, and an
address that could carry one, is refused without being repeated, since errors are logged.
"""

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from recsys.errors import InputError

OWN_FIELDS = ("model", "messages", "stream", "n", "logprobs", "top_logprobs")


@dataclass(frozen=True)
class BudgetSettings:
    """What may be spent on one endpoint and model, over all runs that share the file of answers. None is no limit.

    Cached answers cost nothing. Prices are per million tokens, in the currency of `money`.
    """

    calls: int | None = None
    tokens: int | None = None
    money: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0

    def __post_init__(self) -> None:
        for name in ("calls", "tokens", "money"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise InputError(f"budget.{name} = {limit}", "must be above 0", "raise it, or null for no limit")
        if not (self.prompt_price >= 0 and self.completion_price >= 0):
            raise InputError(
                f"budget prices {self.prompt_price} and {self.completion_price}",
                "must be 0 or more",
                "give the provider's prices per million tokens",
            )
        if self.money is not None and not self.prompt_price + self.completion_price:
            raise InputError(
                f"budget.money = {self.money}",
                "limits nothing while both prices are 0",
                "set budget.prompt_price and budget.completion_price per million tokens",
            )


@dataclass(frozen=True)
class RemoteSettings:
    """The endpoint, what is asked of it, and how patiently.

    endpoint:        base address, up to and without /chat/completions: http://localhost:8000/v1
    model:           the name the server knows it by
    send_texts_to:   consent: the endpoint's host, written out. Without it nothing is sent, and the error previews what
                     would be
    api_key_env:     environment variable that holds the key; null sends none
    answer:          logprobs asks for one token and the probabilities of the option labels (an answer without them is
                     parsed as text and counted); text decodes and parses, as in arXiv 2602.20558
    top_logprobs:    how many labels the server may report; 20 is the most that hosted services and vLLM allow untold.
                     Labels it leaves out share what probability is left
    max_unparseable: a larger share of answers that name no candidate ends the run (looked at from the 20th answer on)
    timeout_s:       one attempt, from connecting to the answer's last byte
    retries:         further attempts after timeouts, broken connections, 408, 429, 5xx and answers that are no answers
    backoff_s:       first pause, doubled each time; a server's Retry-After overrules it
    longest_wait_s:  a pause is never longer, and a server that asks for more ends the run
    body:            further fields of each request, such as {chat_template_kwargs: {enable_thinking: false}}; null
                     removes one, as in {max_tokens: null, max_completion_tokens: 1}
    """

    endpoint: str
    model: str
    send_texts_to: str | None = None
    api_key_env: str | None = None
    answer: Literal["logprobs", "text"] = "logprobs"
    top_logprobs: int = 20
    max_unparseable: float = 0.5
    concurrency: int = 8
    timeout_s: float = 60.0
    retries: int = 4
    backoff_s: float = 0.5
    longest_wait_s: float = 60.0
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    body: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_endpoint(self.endpoint)
        if not self.model.strip():
            raise InputError("remote.model ''", "is empty", "give the name the server lists under /v1/models")
        if self.api_key_env is not None and not re.fullmatch(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+", self.api_key_env):
            raise InputError(
                "remote.api_key_env (not repeated here)",
                "is no name of an environment variable in capitals with an underscore; a key itself has no place in a "
                "recipe",
                "export OPENAI_API_KEY=… in the shell and write api_key_env: OPENAI_API_KEY; if a key stood there, "
                "replace it",
            )
        if self.answer not in ("logprobs", "text"):
            raise InputError(f"remote.answer {self.answer!r}", "is neither logprobs nor text", "choose one")
        for name, least in (("top_logprobs", 1), ("concurrency", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise InputError(f"remote.{name} = {getattr(self, name)}", f"must be at least {least}", "raise it")
        for name in ("timeout_s", "backoff_s", "longest_wait_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"remote.{name} = {getattr(self, name)}", "must be a time above 0", "give seconds")
        if not 0 <= self.max_unparseable <= 1:
            raise InputError(f"remote.max_unparseable = {self.max_unparseable}", "is a share in [0, 1]", "try 0.5")
        if taken := [name for name in self.body if name in OWN_FIELDS]:
            raise InputError(f"remote.body.{taken[0]}", "is set by the recommender itself", "remove it from body")

    @property
    def host(self) -> str:
        """Where texts go: host, and port where one is written."""
        return _split(self.endpoint).netloc.lower()

    @property
    def encrypted(self) -> bool:
        """Whether the connection is TLS."""
        return _split(self.endpoint).scheme == "https"

    @property
    def loopback(self) -> bool:
        """Whether the address is this machine's own (a tunnel behind it is beyond our sight)."""
        name = _split(self.endpoint).hostname or ""
        try:
            return ip_address(name).is_loopback
        except ValueError:
            return name == "localhost"


def _split(endpoint: str) -> SplitResult:
    return urlsplit(endpoint)


def _check_endpoint(endpoint: str) -> None:
    remedy = "write the base address alone, for example http://localhost:8000/v1"
    try:
        parts = _split(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", endpoint):
        raise InputError("remote.endpoint (not repeated here)", "is no http or https address", remedy)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            "remote.endpoint (not repeated here)",
            "carries a user, a password or a query, which recipes and manifests would keep",
            f"{remedy}; keys come from the variable named by api_key_env",
        )
    if parts.path.rstrip("/").endswith("/completions"):
        raise InputError(f"remote.endpoint at {parts.netloc}", "names /completions itself", remedy)
