"""What is asked of the server, and what of it leaves the machine.

The message is the one of the local listwise mode: candidates and question first, the verbalization last, so that the
texts of one example (rollouts, arms) share a prefix which the server computes once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recsys.errors import InputError
from recsys.recommenders.remote.settings import RemoteSettings

EXAMPLE_CHARACTERS = 1200


def request_body(prompt: str, settings: RemoteSettings, max_new_tokens: int) -> bytes:
    """The JSON of one chat completion, decoded greedily. Equal prompts and settings give equal bytes."""
    fields: dict[str, Any] = {
        "model": settings.model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0.0,
        "max_tokens": max_new_tokens,
    }
    if settings.answer == "logprobs":
        fields |= {"logprobs": True, "top_logprobs": settings.top_logprobs}
    fields |= settings.body
    kept = {name: value for name, value in fields.items() if value is not None}
    # A lone surrogate (a broken title in the log) cannot be encoded as UTF-8; as \ud800 it can be sent.
    return json.dumps(kept, sort_keys=True).encode("ascii")


@dataclass(frozen=True)
class Preview:
    """What would leave the machine: where to, how, how much, and one text in full (up to 1,200 characters)."""

    host: str
    route: str
    texts: int
    characters: int
    example: str

    def __str__(self) -> str:
        return (
            f"{self.texts} texts with {self.characters} characters to {self.host} ({self.route}), and those of later "
            f"batches. One of them:\n---\n{self.example}\n---"
        )


def preview(settings: RemoteSettings, prompts: Sequence[str]) -> Preview:
    """What asking these prompts would send."""
    crossing = "this machine's own address" if settings.loopback else "another machine"
    route = f"{crossing}, {'encrypted' if settings.encrypted else 'NOT encrypted'}"
    longest = max(prompts, key=len, default="")
    example = longest[:EXAMPLE_CHARACTERS] + (" […]" if len(longest) > EXAMPLE_CHARACTERS else "")
    return Preview(settings.host, route, len(prompts), sum(map(len, prompts)), example)


def check_consent(settings: RemoteSettings, prompts: Sequence[str]) -> None:
    """Raise InputError with the preview unless `send_texts_to` names the endpoint's host."""
    named = (settings.send_texts_to or "").lower()
    if named == settings.host:
        return
    shown = preview(settings, prompts)
    rule = "is not sent without consent" + (f" (send_texts_to names {named!r})" if named else "")
    remedy = f"if you may send these texts there, set recommender.remote.send_texts_to={shown.host}"
    raise InputError(str(shown), rule, remedy)
