"""Samples that share their prompt: equal to stock generation where it is deterministic, and to its distribution."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from recsys.errors import InputError
from recsys.models.branching import sample_branches
from recsys.models.loading import LanguageModel, load_language_model
from recsys.models.packed import reference_logprobs
from recsys.models.packing import PackedRequest

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [40, 41, 42, 43]]


@pytest.fixture(scope="module")
def tiny(tiny_model_dir: Path) -> LanguageModel:
    return load_language_model(str(tiny_model_dir))


def stock_greedy(model: torch.nn.Module, prompt: list[int], new: int, ends: list[int]) -> list[int]:
    """Token by token, the whole sequence each time, no cache: what greedy decoding means."""
    ids = list(prompt)
    while len(ids) < len(prompt) + new:
        with torch.inference_mode():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in ends:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("rows_per_batch", [1, 2, 3])
def test_greedy_branches_are_stock_greedy_whatever_shares_the_batch(tiny: LanguageModel, rows_per_batch: int) -> None:
    plain = [stock_greedy(tiny.model, prompt, 12, []) for prompt in PROMPTS]
    ends = [plain[0][4]]  # so that some rows end early and others go on
    expected = [stock_greedy(tiny.model, prompt, 12, ends) for prompt in PROMPTS]
    assert {len(tokens) for tokens in expected} != {12}
    found = sample_branches(tiny.model, PROMPTS, [2, 1, 3], 12, ends, greedy=True, rows_per_batch=rows_per_batch)
    assert [[sample.tokens for sample in row] for row in found] == [
        [tokens] * count for tokens, count in zip(expected, [2, 1, 3], strict=True)
    ]


def test_recorded_log_probabilities_are_those_of_separate_sequences(tiny: LanguageModel) -> None:
    """Branches of different lengths side by side: none may see another, or the slots of one that has ended."""
    torch.manual_seed(1)
    ends = list(range(0, 480, 4))  # a quarter of all tokens end a branch
    found = sample_branches(tiny.model, PROMPTS, [6, 5, 6], 10, ends, rows_per_batch=2)
    lengths = {len(sample.tokens) for row in found for sample in row}
    assert len(lengths) > 3
    requests = [
        PackedRequest(prompt, [sample.tokens for sample in row]) for prompt, row in zip(PROMPTS, found, strict=True)
    ]
    for row, expected in zip(found, reference_logprobs(tiny.model, requests), strict=True):
        for sample, values in zip(row, expected, strict=True):
            assert torch.allclose(torch.tensor(sample.logprobs), values.detach(), atol=1e-4)
            assert not set(sample.tokens[:-1]) & set(ends)
            assert sample.tokens[-1] in ends or len(sample.tokens) == 10


def test_samples_follow_the_processed_distribution(tiny: LanguageModel) -> None:
    torch.manual_seed(0)
    hot = sample_branches(tiny.model, [PROMPTS[0]], [3000], 1, [], lambda logits: logits / 3.0)
    with torch.inference_mode():
        logits = tiny.model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].float()
    expected = torch.softmax(logits / 3.0, dim=-1)
    counts = Counter(sample.tokens[0] for sample in hot[0])
    for token in expected.topk(5).indices.tolist():
        share = float(expected[token])
        assert abs(counts[token] / 3000 - share) < 4 * (share * (1 - share) / 3000) ** 0.5


def test_what_cannot_be_sampled_is_named(tiny: LanguageModel) -> None:
    with pytest.raises(InputError, match="prompt 1"):
        sample_branches(tiny.model, [[1], []], [1, 1], 3, [])
    with pytest.raises(InputError, match="2048 positions"):
        sample_branches(tiny.model, [[1] * 2040], [1], 9, [])
