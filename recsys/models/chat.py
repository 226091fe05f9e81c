"""Our chat template, and dialogues to token ids in which a message can never speak for another.

SmolLM2's own template has no generation markers (so training cannot tell which tokens to supervise) and drops tool
calls; `chat.jinja` adds both and is otherwise equal to it. `encode_chat` differs from `apply_chat_template` in one
way: message contents are encoded as plain text, so `<|im_end|>` inside a title stays plain text instead
of ending the turn.
"""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys.errors import InputError
from recsys.models.tokenisation import encode_template, encode_text

TEMPLATE_FILE = Path(__file__).with_name("chat.jinja")


def install_chat_template(tokenizer: Any) -> Any:
    """Give the tokenizer our template; needs its `<|im_start|>` and `<|im_end|>` tokens. Returns the tokenizer."""
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in ("<|im_start|>", "<|im_end|>") if token not in vocabulary]
    if missing:
        raise InputError(
            f"tokenizer without {', '.join(missing)}", "cannot use the ChatML template", "keep its own template"
        )
    tokenizer.chat_template = TEMPLATE_FILE.read_text(encoding="utf-8")
    return tokenizer


def encode_chat(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = False
) -> list[int]:
    """Ids of a dialogue ({"role", "content"} each). Contents are data; only the template's own text may be special
    tokens.

    Raises InputError when the tokenizer has no chat template or the template drops or reorders a message.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "tokenizer without a chat template", "cannot render a dialogue", "use mode=likelihood or an instruct model"
        )
    nonce = secrets.token_hex(8)  # unguessable, so no content can contain a placeholder
    marks = [f"@{nonce}:{number}@" for number in range(len(messages))]
    blanks = [{"role": message["role"], "content": mark} for message, mark in zip(messages, marks, strict=True)]
    rest = tokenizer.apply_chat_template(blanks, tokenize=False, add_generation_prompt=add_generation_prompt)
    ids: list[int] = []
    for message, mark in zip(messages, marks, strict=True):
        before, found, rest = rest.partition(mark)
        if not found or mark in rest:
            raise InputError(
                f"chat template with role {message['role']!r}",
                "does not show every message once, in order",
                "install_chat_template(tokenizer)",
            )
        ids += encode_template(tokenizer, before) + encode_text(tokenizer, message["content"])
    return ids + encode_template(tokenizer, rest)
