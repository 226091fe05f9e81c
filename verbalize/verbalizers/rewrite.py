"""Rewrite-based verbalization: a language model reads the log of a history and writes free text about the viewer.

This module holds what is shared by training and evaluation: the chat prompt, its token budget, the cleaning of what
comes back, and a verbalizer that decodes greedily. The log is the template `concatenation_metadata` of the
(truncated) history, so the writer sees every field a template may show. Nothing here imports torch until a text is
generated.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys.errors import InputError
from recsys.models.chat import encode_chat
from verbalize.verbalizers.base import guard_inputs, memories, without_memory
from verbalize.verbalizers.budget import fit_to_budget as fit_histories
from verbalize.verbalizers.templates import template

if TYPE_CHECKING:
    from recsys.models.loading import LanguageModel

INSTRUCTION = (
    "Below is a viewer's log. Write a compact profile of the viewer for a recommender: favourite genres, periods and "
    "themes, and the titles that show them best. Use only what the log says. Answer with the profile alone."
)
LOG_TEMPLATE = "concatenation_metadata"

_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_SPECIAL = re.compile(r"<\|[^<>|]*\|>|</?s>|<pad>|<eos>|<bos>")
_LEAD = re.compile(
    r"^\s*(?:\**\s*(?:viewer(?:'s)?\s+)?profile(?:\s+of\s+the\s+viewer)?\s*\**\s*:\s*\**)", re.IGNORECASE
)
_QUOTES = {'"': '"', "“": "”", "'": "'", "`": "`"}


@dataclass(frozen=True)
class RewriteConfig:
    """How a history is put to the rewriting model.

    instruction: precedes the log in the user's turn. max_events: most recent events shown. prompt_tokens: budget of
    the whole chat prompt, kept by dropping the oldest events. max_new_tokens: longest text; what exceeds it is cut.
    batch_size: prompts decoded together (memory, not results, depends on it).
    """

    instruction: str = INSTRUCTION
    max_events: int = 100
    prompt_tokens: int = 1024
    max_new_tokens: int = 96
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name in ("max_events", "prompt_tokens", "max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}", "must be at least 1", f"raise {name}")


def rewrite_messages(inputs: pl.DataFrame, config: RewriteConfig) -> list[list[dict[str, str]]]:
    """B inputs -> B chats of one user message: the instruction, an empty line, the log (oldest event first). Memory,
    where the inputs hold any, stands before it as the system message.
    """
    log = template(LOG_TEMPLATE).expression(recent=config.max_events)
    logs = guard_inputs(inputs).select(log=log).to_series()
    chats = [[{"role": "user", "content": f"{config.instruction}\n\n{text}"}] for text in logs]
    return [
        [*([{"role": "system", "content": memory}] if memory else []), *chat]
        for memory, chat in zip(memories(inputs), chats, strict=True)
    ]


def prompt_ids(messages: Sequence[list[dict[str, str]]], tokenizer: Any) -> list[list[int]]:
    """Token ids of the chats up to where the assistant starts; contents are data and give no special token.

    Raises InputError when the tokenizer has no chat template.
    """
    return [encode_chat(tokenizer, chat, add_generation_prompt=True) for chat in messages]


def fit_to_budget(inputs: pl.DataFrame, tokenizer: Any, config: RewriteConfig) -> tuple[pl.DataFrame, dict[str, int]]:
    """Histories cut to the most recent events whose chat prompt fits `config.prompt_tokens`, and counts (see `budget`).

    Memory has a budget of its own and is not counted: the same events are shown with and without it. Raises InputError
    when even one event does not fit.
    """
    return fit_histories(
        guard_inputs(inputs),
        lambda rows: [len(ids) for ids in prompt_ids(rewrite_messages(without_memory(rows), config), tokenizer)],
        config.prompt_tokens,
        keep_at_most=config.max_events,
    )


def clean_rewrite(text: str) -> str:
    """The profile itself: no reasoning block, special tokens, heading "Profile:", enclosing quotes, or runs of spaces.

    >>> clean_rewrite('<think>hm</think> Profile: "Enjoys  drama.\\n\\nAnd crime." <|im_end|>')
    'Enjoys drama.\\nAnd crime.'
    """
    text = _LEAD.sub("", _SPECIAL.sub(" ", _THINKING.sub(" ", text)), count=1).strip()
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text.count(text[0]) <= 2:
        text = text[1:-1]
    lines = (re.sub(r"\s+", " ", line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


class RewriteVerbalizer:
    """A language model behind the verbalizer protocol: greedy decoding, so the same inputs give the same texts.

    `counts` accumulates what the last call to `verbalize` cut: `histories_cut`, `events_dropped`, and `texts_cut`,
    the texts that reached `max_new_tokens` without ending.
    """

    def __init__(self, lm: "LanguageModel", config: RewriteConfig, name: str = "rewrite") -> None:
        self.lm, self.config, self.name = lm, config, name
        self.counts: dict[str, int] = {}

    def verbalize(self, inputs: pl.DataFrame) -> list[str]:
        """B rows of example_id, cutoff_time, history -> B texts, in row order.

        An empty history gives "" without asking the model.
        """
        fitted, counts = fit_to_budget(inputs, self.lm.tokenizer, self.config)
        self.counts = counts | {"texts_cut": 0}
        prompts = prompt_ids(rewrite_messages(fitted, self.config), self.lm.tokenizer)
        asked = [row for row, n in enumerate(fitted["history"].list.len().fill_null(0)) if n]
        # Prompts of similar length share a batch, to waste little on padding.
        asked.sort(key=lambda row: (len(prompts[row]), row))
        texts = [""] * len(prompts)
        for start in range(0, len(asked), self.config.batch_size):
            rows = asked[start : start + self.config.batch_size]
            for row, text in zip(rows, self._generate([prompts[row] for row in rows]), strict=True):
                texts[row] = clean_rewrite(text)
        return texts

    def _generate(self, rows: list[list[int]]) -> list[str]:
        """Greedy continuations of a batch, left-padded so that every continuation starts in the same column."""
        import torch
        from transformers import GenerationConfig

        tokenizer, model = self.lm.tokenizer, self.lm.model
        width = max(map(len, rows))
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
        greedy = GenerationConfig(
            do_sample=False,
            max_new_tokens=self.config.max_new_tokens,
            pad_token_id=pad,
            eos_token_id=tokenizer.eos_token_id,
        )
        training = model.training
        model.eval()
        with torch.no_grad():
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=greedy)[:, width:]  # (B, C)
        model.train(training)
        self.counts["texts_cut"] += int((output != tokenizer.eos_token_id).all(dim=1).sum())
        return tokenizer.batch_decode(output, skip_special_tokens=True)
