"""Text to token ids, with one rule: text is data. A special token spelled out in a title or a history is encoded as its
characters, never as the control token, so no text can end a turn or start another.

A fast tokenizer keeps that choice as state of its own between two calls, so threads that share one would take each
other's: a lock keeps setting it and encoding together.
"""

import threading
from collections.abc import Sequence
from typing import Any

_ENCODING = threading.Lock()  # one for all tokenizers: encoding is short beside any use of its ids


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """B texts -> B lists of ids. Nothing is added and no special token can come out of user text."""
    if not texts:
        return []
    with _ENCODING:
        encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)
    return [list(ids) for ids in encoded["input_ids"]]


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """`encode_texts` for one text."""
    return encode_texts(tokenizer, [text])[0]


def encode_template(tokenizer: Any, text: str) -> list[int]:
    """Ids of text that *we* wrote (the frame of a chat template): special tokens are honoured."""
    with _ENCODING:
        encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=False, verbose=False)
    return list(encoded["input_ids"])
