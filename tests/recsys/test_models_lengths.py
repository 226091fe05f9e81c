"""Rounded lengths: what is padded changes no value, whoever pads."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.models import lengths
from recsys.models.branching import sample_branches
from recsys.models.loading import LanguageModel, load_language_model
from recsys.models.packed import packed_logprobs, reference_logprobs
from recsys.models.packing import PackedRequest

REQUESTS = [
    PackedRequest(range(3, 40), [[5, 6, 7], [8]]),
    PackedRequest(range(3, 10), [[9, 4], [4, 4, 4, 4, 4]]),
    PackedRequest(range(50, 83), [[5], [6], [7]]),
]


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """float32 is rounded too, so that equality can be asked for; the shapes of what linear layers multiply."""
    monkeypatch.setattr(lengths, "ROUNDED_DTYPES", (torch.float32,))
    seen: list[tuple[int, ...]] = []
    plain = torch.nn.Linear.forward

    def forward(self: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return plain(self, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", forward)
    yield seen


@pytest.fixture(scope="module")
def tiny(tiny_model_dir: Path) -> LanguageModel:
    return load_language_model(str(tiny_model_dir))


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_lengths_are_the_next_multiple_within_the_positions(tokens: int, positions: int) -> None:
    weight = torch.empty(1, dtype=torch.bfloat16)
    free, bound = lengths.fed_length(tokens, weight), lengths.fed_length(tokens, weight, positions)
    assert free % lengths.LENGTH_STEP == 0 and 0 <= free - tokens < lengths.LENGTH_STEP
    assert tokens <= bound <= max(tokens, positions) and bound in (free, tokens, positions)
    other = SimpleNamespace(dtype=torch.bfloat16, device=torch.device("cuda"))
    assert lengths.fed_length(tokens, other) == lengths.fed_length(tokens, torch.empty(1)) == tokens  # type: ignore[arg-type]


@pytest.mark.parametrize("budget", [1, 2000])
def test_packed_scores_are_those_of_separate_sequences(
    tiny: LanguageModel, rounded: list[tuple[int, ...]], budget: int
) -> None:
    with torch.inference_mode():
        found = packed_logprobs(tiny.model, REQUESTS, budget)
        assert rounded and all(shape[-2] % lengths.LENGTH_STEP == 0 for shape in rounded)
        for row, expected in zip(found, reference_logprobs(tiny.model, REQUESTS), strict=True):
            torch.testing.assert_close(row, expected, atol=1e-4, rtol=0)


def test_samples_are_those_of_unrounded_prompts(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch, rounded: list[tuple[int, ...]]
) -> None:
    prompts = [[*request.prefix] for request in REQUESTS]
    drawn = []
    for dtypes in ((torch.float32,), ()):
        monkeypatch.setattr(lengths, "ROUNDED_DTYPES", dtypes)
        samples = sample_branches(tiny.model, prompts, [1, 1, 1], 6, [2], greedy=True)
        drawn.append([[sample.tokens for sample in row] for row in samples])
    assert drawn[0] == drawn[1]
    assert any(shape[-2] == 64 for shape in rounded)


def test_a_process_meets_few_shapes_in_bfloat16(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_language_model(str(tiny_model_dir), "bfloat16").model
    seen = set()
    plain = torch.nn.Linear.forward

    def forward(self: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        seen.add(x.shape[-2])
        return plain(self, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", forward)
    with torch.inference_mode():
        for n in range(4, 60):
            packed_logprobs(model, [PackedRequest(range(3, n), [[5, 6], [7]])])
    assert seen == {32, 64}
