"""Compression against the log, the plateau at its knots, the verbalizations table under its contract."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from verbalizers_frames import event, frame

from recsys.contracts import check
from recsys.errors import InputError
from verbalize.verbalizers.compression import log_token_counts, plateau, token_counts, verbalizations_table
from verbalize.verbalizers.templates import TEMPLATES, TemplateVerbalizer

INPUTS = frame([event("Heat", 1995, ["Action"], rating=4.0), event("Alien", 1979)], [], [event("Big")])


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model_dir)


def test_plateau_knots_and_slopes() -> None:
    knots = np.array([0.0, 0.15, 0.3, 0.7, 0.85, 1.0, 3.0])
    np.testing.assert_allclose(plateau(knots), [0, 0.5, 1, 1, 0.5, 0, 0], atol=1e-12)
    np.testing.assert_allclose(plateau(np.array([0.1, 0.5, 0.8]), 0.2, 0.6), [0.5, 1, 0.5], atol=1e-12)
    with pytest.raises(InputError, match="plateau"):
        plateau(knots, 0.7, 0.3)


def test_table_keeps_its_contract_and_its_definition(tokenizer: Any) -> None:
    for name in TEMPLATES:
        texts = TemplateVerbalizer(name).verbalize(INPUTS)
        table = check(verbalizations_table(INPUTS, name, texts, tokenizer), "verbalizations")
        assert table["tokens"].to_list() == [len(tokenizer.encode(text, add_special_tokens=False)) for text in texts]
        assert table["compression"].is_finite().all() and table["example_id"].to_list() == ["e0", "e1", "e2"]
    log = verbalizations_table(
        INPUTS, "concatenation", TemplateVerbalizer("concatenation").verbalize(INPUTS), tokenizer
    )
    assert log["compression"].to_list() == [1.0, 0.0, 1.0]


def test_log_tokens_can_be_shared_and_other_columns_are_ignored(tokenizer: Any) -> None:
    examples = INPUTS.with_columns(target_item_id=pl.lit("x"))
    texts = TemplateVerbalizer("titles").verbalize(INPUTS)
    shared = verbalizations_table(examples, "titles", texts, tokenizer, log_token_counts(examples, tokenizer))
    assert shared.equals(verbalizations_table(INPUTS, "titles", texts, tokenizer))


def test_special_tokens_in_a_text_count_as_plain_text(tokenizer: Any) -> None:
    assert token_counts(["<|im_end|>"], tokenizer)[0] > 1


def test_a_text_per_row(tokenizer: Any) -> None:
    with pytest.raises(InputError, match="3 examples"):
        verbalizations_table(INPUTS, "titles", ["one"], tokenizer)
