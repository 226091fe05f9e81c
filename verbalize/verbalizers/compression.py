"""How long a text is compared with the log it stands for, and the reward for a good length.

Compression = tokens(text) / tokens(the paper's concatenation of the same truncated history), under the recommender's
tokenizer, without special tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.models.tokenisation import encode_texts
from verbalize.verbalizers.base import verbalizer_inputs
from verbalize.verbalizers.templates import TemplateVerbalizer

PLATEAU = (0.3, 0.7)


def token_counts(texts: Sequence[str], tokenizer: Any) -> np.ndarray:
    """Tokens of each text without special tokens, int64 of shape (B,)."""
    return np.array([len(ids) for ids in encode_texts(tokenizer, texts)], dtype=np.int64)


def log_token_counts(inputs: pl.DataFrame, tokenizer: Any) -> np.ndarray:
    """Tokens of the paper's concatenation of each history, int64 of shape (B,): the denominator of compression."""
    return token_counts(TemplateVerbalizer("concatenation").verbalize(verbalizer_inputs(inputs)), tokenizer)


def compression_ratios(tokens: np.ndarray, log_tokens: np.ndarray) -> np.ndarray:
    """tokens / log_tokens, float64 of shape (B,), finite: an empty history counts as a log of one token."""
    return np.asarray(tokens, dtype=np.float64) / np.maximum(log_tokens, 1)


def plateau(compression: np.ndarray, low: float = PLATEAU[0], high: float = PLATEAU[1]) -> np.ndarray:
    """Length reward: 1 on [low, high], falling linearly to 0 at 0 and at 1, 0 beyond; so an empty text earns 0.

    Raises InputError unless 0 < low <= high < 1.

    >>> plateau(np.array([0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0, 2.0])).round(6).tolist()
    [0.0, 0.5, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    if not 0 < low <= high < 1:
        raise InputError(f"plateau from {low} to {high}", "must lie inside (0, 1)", "use for instance 0.3 and 0.7")
    return np.interp(np.asarray(compression, dtype=np.float64), [0.0, low, high, 1.0], [0.0, 1.0, 1.0, 0.0])


def verbalizations_table(
    inputs: pl.DataFrame,
    verbalizer: str,
    texts: Sequence[str],
    tokenizer: Any,
    log_tokens: np.ndarray | None = None,
) -> pl.DataFrame:
    """The `verbalizations` table (`data_schemas/verbalizations.yaml`) of one verbalizer: B rows, in the order of
    `inputs`.

    `inputs` needs example_id, cutoff_time and history, more columns are ignored. The history must be the one the
    texts were made from. `log_tokens` (from `log_token_counts`) saves tokenising the same logs for every arm. Raises
    InputError unless there is one text per row.
    """
    if len(texts) != len(inputs):
        raise InputError(
            f"{len(texts)} texts", f"need one for each of {len(inputs)} examples", "pass them in row order"
        )
    tokens = token_counts(texts, tokenizer)
    log_tokens = log_token_counts(inputs, tokenizer) if log_tokens is None else log_tokens
    return pl.DataFrame(
        {
            "example_id": inputs["example_id"],
            "verbalizer": pl.repeat(verbalizer, len(inputs), eager=True, dtype=pl.String),
            "text": pl.Series(list(texts), dtype=pl.String),
            "tokens": pl.Series(tokens, dtype=pl.Int32),
            "log_tokens": pl.Series(log_tokens, dtype=pl.Int32),
            "compression": pl.Series(compression_ratios(tokens, log_tokens), dtype=pl.Float64),
        }
    )
