"""Choosing from the pool, imitating it, and resuming both."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from optimize_helpers import make_inputs, pays_for_even_events, tiny_policy

from recsys.errors import InputError
from recsys.models.settings import LoraSettings
from verbalize.optimize.policy import ActionPolicyVerbalizer
from verbalize.optimize.settings import WarmStartConfig
from verbalize.optimize.slot_credit import changed_rewards
from verbalize.optimize.train_actions import Executor
from verbalize.optimize.training import policy_digest, trainable_policy
from verbalize.optimize.warm_start import (
    choose_best,
    effect_loss,
    effect_targets,
    hard_targets,
    slot_loss,
    soft_targets,
    warm_start,
)
from verbalize.stages.effects import effects
from verbalize.verbalizers.actions import KEEP_METADATA, ActionConfig

ACTIONS = ActionConfig(instruction="Choose.", show_age_in_prompt=False)
POOL = pl.DataFrame(
    {
        "example_id": ["x"] * 3 + ["y"] * 3,
        "candidate": ["p", "q", "r"] * 2,
        "margin": [0.1, 0.9, 0.9, 2.0, 1.0, -1.0],
        "reward": [0.1, 0.9, 0.9, 2.0, 1.0, -1.0],
    }
)
CANDIDATES = {"p": [[0, 0], [3]], "q": [[2, 0], [2]], "r": [[3, 3], [1]]}


def test_best_candidate_ties_by_order():
    assert choose_best(POOL)["candidate"].to_list() == ["q", "p"]
    hard = hard_targets(POOL, CANDIDATES)
    assert hard[0].argmax(1).tolist() == [2, 0] and hard[1].argmax(1).tolist() == [3]


def test_soft_targets_are_distributions_between_the_best_and_the_average():
    cold, warm = soft_targets(POOL, CANDIDATES, 1e-3), soft_targets(POOL, CANDIDATES, 1e6)
    np.testing.assert_allclose(cold[1], hard_targets(POOL, CANDIDATES)[1], atol=1e-6)
    np.testing.assert_allclose(cold[0], [[0, 0, 0.5, 0.5], [0.5, 0, 0, 0.5]], atol=1e-6)  # two equal candidates
    np.testing.assert_allclose(warm[0], [[1 / 3, 0, 1 / 3, 1 / 3], [2 / 3, 0, 0, 1 / 3]], atol=1e-5)
    for target in soft_targets(POOL, CANDIDATES, 0.5):
        np.testing.assert_allclose(target.sum(1), 1)


def test_slot_loss_is_minimal_at_the_smoothed_target():
    target = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    smoothed = torch.log(0.9 * target + 0.025)
    best = slot_loss(smoothed, target, 0.1, 0.0)
    for other in (torch.log_softmax(torch.tensor([[0.0, 0, 9, 0]]), -1), torch.full((1, 4), -1.386294)):
        assert slot_loss(other, target, 0.1, 0.0) > best
    assert slot_loss(smoothed, target, 0.1, 0.5) < best


def test_effects_are_earned_at_the_softmax_of_what_they_are_on_average():
    effects = torch.tensor([[0.03, 0.03, -0.01, 0.0]])
    best = effect_loss(torch.log_softmax(effects / 0.02, -1), effects, 0.02)
    assert best.item() == pytest.approx(-0.02 * torch.logsumexp(effects / 0.02, -1).item(), abs=1e-6)
    for logits in (effects / 0.01, effects / 0.04, torch.zeros(1, 4)):
        assert effect_loss(torch.log_softmax(logits, -1), effects, 0.02) > best
    lucky, policy = torch.tensor([[0.5, 0.5, 0.1, 0.0]]), torch.log_softmax(torch.randn(1, 4), -1)
    mean = (effect_loss(policy, effects, 0.02) + effect_loss(policy, lucky, 0.02)) / 2
    assert mean.item() == pytest.approx(effect_loss(policy, (effects + lucky) / 2, 0.02).item(), abs=1e-6)


def test_effects_are_those_of_the_newest_events_that_a_prompt_has_room_for():
    rows = [("x", place, action, 10.0 * place + action) for place in (2, 0, 1) for action in (3, 0, 1, 2)]
    table = pl.DataFrame(rows, schema=["example_id", "place", "action", "effect"], orient="row")
    whole, newest, none, unknown = effect_targets(table, ["x", "x", "x", "y"], [3, 2, 0, 0])
    assert whole.tolist() == [[0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23]]
    assert newest.tolist() == whole[1:].tolist() and none.shape == unknown.shape == (0, 4)


def build(tiny_model_dir):
    lm = tiny_policy(tiny_model_dir)
    model = trainable_policy(lm, LoraSettings(rank=8, mlp=True), 0)
    policy = ActionPolicyVerbalizer(replace(lm, model=model), ACTIONS)
    inputs = make_inputs(6)
    return model, policy, inputs, policy.fit(inputs)[1]


def test_imitation_reaches_the_targets_and_keeps_exploring(tiny_model_dir, tmp_path):
    model, policy, inputs, prompts = build(tiny_model_dir)
    wanted = [[2 if place % 2 == 0 else 0 for place in range(len(history))] for history in inputs["history"].to_list()]
    targets = [np.eye(4)[row] for row in wanted]
    config = WarmStartConfig(epochs=20, batch_size=3, learning_rate=1e-2)
    losses = warm_start(model, prompts, targets, policy.tokens, config, tmp_path)
    assert losses[-1] < losses[0] - 0.3
    assert policy.actions(inputs) == wanted
    texts = policy.verbalize(inputs)
    assert all(one.reward > 0.8 for one in pays_for_even_events(inputs["example_id"].to_list(), texts))
    least = min(rows.min().item() for rows in policy.logprobs(inputs))
    assert least > -7  # smoothing: no action has become impossible


def test_what_single_events_do_to_the_reward_is_learned_without_an_example_of_it(tiny_model_dir, tmp_path):
    """No text that is paid in full was ever seen: only what one change does to the reward."""
    model, policy, inputs, prompts = build(tiny_model_dir)
    ids, lengths = inputs["example_id"].to_list(), [len(history) for history in inputs["history"].to_list()]
    table = effects(ids, lengths, changed_rewards(Executor(inputs, policy).texts, pays_for_even_events))
    assert table.filter(pl.col("action") == KEEP_METADATA)["effect"].unique().to_list() == [0.0]
    targets = effect_targets(table, ids, lengths)
    config = WarmStartConfig(epochs=20, batch_size=3, learning_rate=1e-2, effect_temperature=0.02)
    warm_start(model, prompts, targets, policy.tokens, config, tmp_path)
    texts = policy.verbalize(inputs)
    assert all(one.reward > 0.99 for one in pays_for_even_events(ids, texts))


def test_an_interrupted_warm_start_ends_in_the_same_weights(tiny_model_dir, tmp_path):
    digests = []
    for interrupt in (False, True):
        model, policy, inputs, prompts = build(tiny_model_dir)
        targets = [np.eye(4)[[3] * len(history)] for history in inputs["history"].to_list()]
        config = WarmStartConfig(epochs=3, batch_size=2, save_every=2, learning_rate=1e-2)
        folder = tmp_path / str(interrupt)

        def stop(record):
            if record["step"] == 5:
                raise KeyboardInterrupt

        if interrupt:
            with pytest.raises(KeyboardInterrupt):
                warm_start(model, prompts, targets, policy.tokens, config, folder, on_step=stop)
            model, policy, inputs, prompts = build(tiny_model_dir)
        assert len(warm_start(model, prompts, targets, policy.tokens, config, folder)) == 9
        digests.append(policy_digest(model))
    assert digests[0] == digests[1]


def test_targets_of_other_histories_are_refused(tiny_model_dir, tmp_path):
    model, policy, _, prompts = build(tiny_model_dir)
    with pytest.raises(InputError, match="slots"):
        warm_start(model, prompts, [np.eye(4)[[0]]] * len(prompts), policy.tokens, WarmStartConfig(), tmp_path)
