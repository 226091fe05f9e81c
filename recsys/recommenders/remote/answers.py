"""What a server's bytes say: a checked `Answer`, or a `NoAnswer` that says what is wrong with them. Pure functions.

A server is a stranger: nothing it sends is assumed to have the shape the interface promises.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recsys.recommenders.listwise import LABELS

KEPT_CHARACTERS = 2000  # of an answer's text: labels and titles stand at its beginning
NEVER = -9999.0  # what servers write for minus infinity, if they do not write that
_SPACE_MARKS = " \t\r\n\u2581\u0120\u010a"  # ▁, Ġ and Ċ: how tokenizers write space and line break


class NoAnswer(ValueError):
    """A body that is no chat completion. The message holds nothing of the body."""


@dataclass(frozen=True)
class Answer:
    """One completion: its text, the first token's likeliest alternatives where offered, tokens where counted."""

    text: str
    top: tuple[tuple[str, float], ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> "Answer":
        """The inverse of `dumps`. Raises ValueError, KeyError or TypeError on anything else."""
        values = json.loads(text)
        top = tuple((str(token), float(value)) for token, value in values.pop("top"))
        return cls(top=top, **values)


def read_answer(raw: bytes) -> Answer:
    """The first choice of a chat completion. Raises NoAnswer."""
    try:
        body = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise NoAnswer("a body that is not UTF-8") from None
    except (ValueError, RecursionError):
        raise NoAnswer("a body that is not JSON, or only the beginning of some") from None
    if not isinstance(body, dict) or not isinstance(body.get("choices"), list):
        raise NoAnswer("JSON without choices")
    if not body["choices"]:
        raise NoAnswer("an empty list of choices")
    choice = body["choices"][0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or not isinstance(message.get("content"), str | None):
        raise NoAnswer("a choice without a message of text")
    usage = body.get("usage")
    counted: dict[str, Any] = usage if isinstance(usage, dict) else {}
    return Answer(
        _without_thoughts(message.get("content") or "")[:KEPT_CHARACTERS],
        _top_of(choice.get("logprobs")),
        _count(counted.get("prompt_tokens")),
        _count(counted.get("completion_tokens")),
    )


def label_scores(top: Sequence[tuple[str, float]], size: int) -> np.ndarray | None:
    """Alternatives of the first token -> log-probabilities of the first `size` labels, renormalised (S,); None when
    no label is among them.

    Spellings of one label ("B", " B") add up. Labels that are not among the alternatives share evenly what probability
    those leave, at most the least of them: they tie, below every label that was listed.
    """
    found: dict[str, float] = {}
    for token, value in top:
        label = token.strip(_SPACE_MARKS)
        if len(label) == 1 and label in LABELS[:size]:
            found[label] = float(np.logaddexp(found.get(label, -np.inf), value))
    if not found:
        return None
    missing = size - len(found)
    left = max(1.0 - sum(math.exp(value) for _, value in top), 1e-12)
    floor = min(min(value for _, value in top), math.log(left / max(missing, 1)))
    scores = np.array([found.get(label, floor) for label in LABELS[:size]])
    return scores - np.logaddexp.reduce(scores)


def _top_of(logprobs: Any) -> tuple[tuple[str, float], ...]:
    """The first token's alternatives, () where none are offered. Raises NoAnswer when they are no log-probabilities."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    first = content[0] if isinstance(content, list) and content else None
    listed = first.get("top_logprobs") if isinstance(first, dict) else None
    if not listed:
        return ()
    if not isinstance(listed, list):
        raise NoAnswer("log-probabilities that are no list")
    top = []
    for entry in listed:
        token, value = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
        if not isinstance(token, str) or not isinstance(value, int | float) or not value <= 1e-3:
            raise NoAnswer("log-probabilities that are none")
        top.append((token, float(max(value, NEVER))))
    return tuple(top)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None


def _without_thoughts(text: str) -> str:
    """Without the reasoning that some servers leave before an answer."""
    return re.sub(r"^\s*<think>.*?</think>", "", text, count=1, flags=re.DOTALL)
