"""A chat as training data: its token ids, and which of them the assistant wrote.

The chat template's generation markers say what the assistant writes (its message and the token that ends its turn).
Message contents are encoded as plain text, as `encode_chat` does, so training sees the very ids that a policy is asked
to continue, and a message that spells a control token trains nobody to end a turn.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from recsys.errors import InputError
from recsys.models.tokenisation import encode_template, encode_text


@dataclass(frozen=True)
class SupervisedChat:
    """`ids` (n,) and `supervised` (n,): whether the assistant wrote the token. Only those carry loss."""

    ids: tuple[int, ...]
    supervised: tuple[bool, ...]

    @property
    def targets(self) -> int:
        return sum(self.supervised)


def supervise(tokenizer: Any, chat: Sequence[Mapping[str, str]], max_tokens: int) -> SupervisedChat:
    """The chat in at most `max_tokens` ids, cut after the last whole message of the assistant that fits.

    Raises InputError for a template without generation markers, or one that drops a message, and for a chat none of
    whose assistant messages fits.
    """
    ids: list[int] = []
    supervised: list[bool] = []
    kept = 0
    for text, template, ours in _pieces(tokenizer, chat):
        tokens = encode_template(tokenizer, text) if template else encode_text(tokenizer, text)
        ids += tokens
        supervised += [ours] * len(tokens)
        # A message's content and the end of its turn are two pieces: the turn is whole where supervision ends.
        if ours and template and len(ids) <= max_tokens:
            kept = len(ids)
    if not kept:
        raise InputError(
            f"a chat of {len(ids)} tokens",
            f"holds no action of the assistant within max_tokens = {max_tokens}",
            "raise sft.max_tokens or lower retrieval.budget",
        )
    return SupervisedChat(tuple(ids[:kept]), tuple(supervised[:kept]))


def forward_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions of chats in batches whose padded size stays within `budget` tokens (a longer chat goes alone), longest
    first, so similar lengths share a batch.

    >>> forward_batches([3, 9, 4, 4], 12)
    [[1], [2, 3, 0]]
    """
    batches: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _pieces(tokenizer: Any, chat: Sequence[Mapping[str, str]]) -> list[tuple[str, bool, bool]]:
    """The rendered chat in order: (text, whether the template wrote it, whether the assistant says it)."""
    from transformers.utils.chat_template_utils import render_jinja_template

    nonce = secrets.token_hex(8)  # unguessable, so no content can contain a placeholder
    marks = [f"@{nonce}:{number}@" for number in range(len(chat))]
    blanks = [{"role": message["role"], "content": mark} for message, mark in zip(chat, marks, strict=True)]
    if "generation" not in (getattr(tokenizer, "chat_template", None) or ""):
        raise InputError(
            "chat template without generation markers",
            "cannot say which tokens the assistant writes",
            "install_chat_template(tokenizer)",
        )
    found: Any = render_jinja_template(
        conversations=[blanks],
        chat_template=tokenizer.chat_template,
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    (text,), (spans,) = found  # of the one conversation
    ours = [(int(low), int(high)) for low, high in spans]
    contents: dict[tuple[int, int], str] = {}
    for message, mark in zip(chat, marks, strict=True):
        start = text.find(mark)
        if start < 0 or text.count(mark) != 1:
            raise InputError(
                f"chat template with role {message['role']!r}",
                "does not show every message once",
                "install_chat_template(tokenizer)",
            )
        contents[start, start + len(mark)] = message["content"]
    edges = sorted({0, len(text), *(edge for span in (*ours, *contents) for edge in span)})
    pieces = []
    for start, end in pairwise(edges):
        said = any(low <= start < high for low, high in ours)
        content = contents.get((start, end))
        pieces.append((text[start:end] if content is None else content, content is None, said))
    return pieces
