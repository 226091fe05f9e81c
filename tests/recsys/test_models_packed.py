"""Packed scoring equals separate sequences: values, gradients, and independence of branches."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.models.adapters import add_lora
from recsys.models.loading import LanguageModel, load_language_model
from recsys.models.packed import packed_logprobs, reference_logprobs
from recsys.models.packing import PackedRequest, rows_of
from recsys.models.settings import LoraSettings
from recsys.models.tokenisation import encode_text, encode_texts

token = st.integers(3, 250)
request = st.builds(
    PackedRequest,
    st.lists(token, min_size=1, max_size=12),
    st.lists(st.lists(token, min_size=1, max_size=6), max_size=5),
)


@pytest.fixture(scope="module")
def tiny(tiny_model_dir: Path) -> LanguageModel:
    return load_language_model(str(tiny_model_dir))


def worst(found: list[list[torch.Tensor]], expected: list[list[torch.Tensor]]) -> float:
    assert [[len(value) for value in row] for row in found] == [[len(value) for value in row] for row in expected]
    pairs = [(a, b) for left, right in zip(found, expected, strict=True) for a, b in zip(left, right, strict=True)]
    return max((float((a - b).abs().max()) for a, b in pairs), default=0.0)


@given(requests=st.lists(request, max_size=4), budget=st.integers(1, 80))
@settings(max_examples=60, deadline=None)
def test_equals_the_slow_reference_whatever_the_shapes_and_budget(
    tiny: LanguageModel, requests: list[PackedRequest], budget: int
) -> None:
    with torch.inference_mode():
        assert worst(packed_logprobs(tiny.model, requests, budget), reference_logprobs(tiny.model, requests)) < 1e-4


@given(
    trunk=st.lists(token, min_size=4, max_size=16),
    ends=st.lists(st.integers(1, 16), min_size=2, max_size=5),
    branches=st.lists(st.lists(token, min_size=1, max_size=4), min_size=1, max_size=3),
    budget=st.integers(1, 80),
)
@settings(max_examples=40, deadline=None)
def test_prefixes_that_begin_a_longer_one_share_its_row_and_see_no_more_of_it(
    tiny: LanguageModel, trunk: list[int], ends: list[int], branches: list[list[int]], budget: int
) -> None:
    requests = [PackedRequest(trunk[:end], branches) for end in ends]
    assert len(rows_of(requests, 1000)) == 1
    with torch.inference_mode():
        assert worst(packed_logprobs(tiny.model, requests, budget), reference_logprobs(tiny.model, requests)) < 1e-4


def test_results_are_float32_log_probabilities(tiny: LanguageModel) -> None:
    everything = [[token] for token in range(tiny.model.config.vocab_size)]
    with torch.inference_mode():
        values = torch.cat(packed_logprobs(tiny.model, [PackedRequest([5, 6], everything)])[0])
    assert values.dtype == torch.float32
    assert float(values.exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_a_branch_does_not_see_its_neighbours(tiny: LanguageModel) -> None:
    before, after = [[5, 6, 7], [8, 9], [10, 11, 12]], [[5, 6, 7], [100, 101], [10, 11, 12]]
    with torch.inference_mode():
        one, two = (
            packed_logprobs(tiny.model, [PackedRequest([3, 4, 5], branches)])[0] for branches in (before, after)
        )
    assert torch.equal(one[0], two[0])
    assert torch.allclose(one[2], two[2], atol=1e-6)
    assert not torch.allclose(one[1], two[1], atol=1e-3)


def test_lora_gradients_equal_the_reference(tiny_model_dir: Path) -> None:
    model = add_lora(load_language_model(str(tiny_model_dir)).model, LoraSettings(rank=4, mlp=True), seed=1)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # a fresh adapter has B = 0 and hence no gradient for A
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    requests = [
        PackedRequest([5, 6, 7, 8], [[9, 10, 11], [12], [13, 14]]),
        PackedRequest([20, 21], [[22, 23]]),
        PackedRequest([5, 6], [[7, 9], [8, 8, 8]]),  # on the trunk of the first
    ]
    gradients = []
    for function in (packed_logprobs, reference_logprobs):
        model.zero_grad()
        torch.cat([value for row in function(model, requests) for value in row]).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    assert float(gradients[1].norm()) > 0.01
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-4


def test_a_patched_forward_is_not_used(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers replace `forward` by versions that return no logits."""
    monkeypatch.setattr(tiny.model, "forward", lambda *args, **kwargs: None)
    with torch.inference_mode():
        assert len(packed_logprobs(tiny.model, [PackedRequest([5], [[6, 7]])])[0][0]) == 2


def test_no_branches_need_no_forward(tiny: LanguageModel) -> None:
    assert packed_logprobs(tiny.model, [PackedRequest([5, 6], [])]) == [[]]
    assert packed_logprobs(tiny.model, []) == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (PackedRequest([], [[1]]), "empty prefix"),
        (PackedRequest([1], [[2], []]), "branch without tokens"),
        (PackedRequest([1] * 2048, [[2, 3]]), "exceeds the model's 2048 positions"),
    ],
)
def test_bad_requests_are_refused(tiny: LanguageModel, bad: PackedRequest, message: str) -> None:
    with pytest.raises(InputError, match=message):
        packed_logprobs(tiny.model, [PackedRequest([1], [[2]]), bad])


def test_models_that_alter_their_logits_are_refused(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny.model.config, "final_logit_softcapping", 30.0, raising=False)
    with pytest.raises(InputError, match="final_logit_softcapping"):
        packed_logprobs(tiny.model, [PackedRequest([1], [[2]])])


@pytest.mark.real_model
def test_real_model_equals_the_slow_reference(smollm2_dir: Path) -> None:
    lm = load_language_model(str(smollm2_dir))
    texts = [
        "Toy Story (1995); Heat (1995); Fargo (1996); The Godfather (1972)\nNext, this viewer will enjoy watching:",
        "A taste for slow science fiction and for comedies of the nineties. " * 12 + "\nNext:",
    ]
    titles = [" Star Wars (1977)", " Casino", " Alien", " It's a Wonderful Life (1946; Drama)", " M"]
    branches = encode_texts(lm.tokenizer, titles)
    requests = [PackedRequest(encode_text(lm.tokenizer, text), branches) for text in texts]
    with torch.inference_mode():
        assert worst(packed_logprobs(lm.model, requests), reference_logprobs(lm.model, requests)) < 1e-4
