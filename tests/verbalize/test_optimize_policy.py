"""The slot policy against a slow reference, and its refusals."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optimize_helpers import make_inputs, tiny_policy

from recsys.errors import InputError
from verbalize.optimize import policy
from verbalize.optimize.policy import ActionPolicyVerbalizer
from verbalize.verbalizers.actions import ActionConfig, history_lengths


@pytest.fixture(scope="module")
def verbalizer(tiny_model_dir: Path) -> ActionPolicyVerbalizer:
    return ActionPolicyVerbalizer(tiny_policy(tiny_model_dir), ActionConfig())


def slow_logprobs(model, prompt, tokens, temperature):
    """Each slot by its own full forward: the prefix up to the marker, softmax over four logits."""
    rows = []
    for position, token in enumerate(prompt):
        if token == tokens.marker:
            logits = model(torch.tensor([prompt[: position + 1]])).logits[0, -1]
            four = torch.stack([logits[symbol] for symbol in tokens.alphabet]) / temperature
            rows.append(torch.log(torch.exp(four) / torch.exp(four).sum()))
    return torch.stack(rows)


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_equal_one_forward_per_slot(verbalizer, together, temperature):
    _, prompts = verbalizer.fit(make_inputs(3, events=3))
    model, tokens = verbalizer.lm.model, verbalizer.tokens
    with torch.no_grad():
        fast = policy.slot_logprobs(model, prompts, tokens, temperature, together)
        for prompt, rows in zip(prompts, fast, strict=True):
            torch.testing.assert_close(rows, slow_logprobs(model, prompt, tokens, temperature), atol=1e-5, rtol=0)


def test_gradient_equals_autograd_of_the_slow_version(verbalizer):
    _, prompts = verbalizer.fit(make_inputs(1, events=3))
    model, tokens = verbalizer.lm.model, verbalizer.tokens
    weight = model.model.layers[0].self_attn.q_proj.weight
    actions = torch.tensor([[3, 0, 2], [1, 1, 0]])
    gradients = []
    weight.requires_grad_(True)
    for rows in (policy.slot_logprobs(model, prompts, tokens)[0], slow_logprobs(model, prompts[0], tokens, 1.0)):
        loss = (policy.action_logprobs(rows, actions) * torch.tensor([[1.0], [-0.5]])).sum() + policy.entropy(
            rows
        ).sum()
        gradients.append(torch.autograd.grad(loss, weight)[0])
    weight.requires_grad_(False)
    assert gradients[1].norm() > 1e-3
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def test_samples_follow_the_policy_and_the_global_generator():
    logprobs = torch.log(torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.05, 0.05, 0.45, 0.45]]))
    torch.manual_seed(1)
    first = policy.sample_actions(logprobs, 4000)
    torch.manual_seed(1)
    assert torch.equal(first, policy.sample_actions(logprobs, 4000))
    assert first.shape == (4000, 2)
    shares = torch.nn.functional.one_hot(first, 4).float().mean(0)
    torch.testing.assert_close(shares, logprobs.exp(), atol=0.03, rtol=0)


@given(st.lists(st.floats(-8, 8), min_size=4, max_size=4), st.lists(st.floats(-8, 8), min_size=4, max_size=4))
def test_entropy_and_kl_obey_their_bounds(a, b):
    p, q = torch.log_softmax(torch.tensor([a]), -1), torch.log_softmax(torch.tensor([b]), -1)
    assert -1e-5 <= policy.entropy(p).item() <= math.log(4) + 1e-5
    assert policy.kl_divergence(p, q).item() >= -1e-5
    assert policy.kl_divergence(p, p).item() == 0
    uniform = torch.full((1, 4), -math.log(4))
    assert policy.kl_divergence(p, uniform).item() == pytest.approx(math.log(4) - policy.entropy(p).item(), abs=1e-5)


def test_verbalizer_is_greedy_and_deterministic(verbalizer):
    inputs = make_inputs(4)
    actions = verbalizer.actions(inputs)
    assert [len(row) for row in actions] == history_lengths(inputs, verbalizer.config)
    assert actions == [rows.argmax(-1).tolist() for rows in verbalizer.logprobs(inputs)]
    texts = verbalizer.verbalize(inputs)
    assert texts == verbalizer.verbalize(inputs)
    for text, row in zip(texts, actions, strict=True):
        assert text.count("day ") == sum(action >= 2 for action in row)
        assert text.count("(") == sum(action == 3 for action in row)


def test_a_budget_keeps_the_newest_events(verbalizer):
    _, prompts = verbalizer.fit(make_inputs(1, events=6))
    small = ActionPolicyVerbalizer(verbalizer.lm, verbalizer.config, prompt_budget=len(prompts[0]) - 1)
    fitted, cut = small.fit(make_inputs(1, events=6))
    assert len(cut[0]) < len(prompts[0])
    assert [event["title"][:5] for event in fitted["history"][0]] == [f"day {place}" for place in range(1, 6)]


def test_symbols_must_be_single_tokens(verbalizer):
    with pytest.raises(InputError, match="tokens for this tokenizer"):
        policy.resolve_tokens(verbalizer.lm.tokenizer, (" A", " B", " C", " Zebra"), " ->")
    with pytest.raises(InputError, match="different tokens"):
        policy.resolve_tokens(verbalizer.lm.tokenizer, (" A", " B", " C", " C"), " ->")
    with pytest.raises(InputError, match="slot markers"):
        policy.slot_positions([5, 7, 5], marker=5, expected=3)
    with pytest.raises(InputError, match="not in the action alphabet"):
        verbalizer.tokens.symbol_of(-1)
