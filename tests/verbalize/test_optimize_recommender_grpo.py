"""GRPO for the recommender: optimum, direction, expectation against enumeration, training, resumption."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from recsys.errors import InputError
from recsys.seeding import rng
from verbalize.optimize.recommender_grpo import EPSILON, answer_loss, expected_loss, log_odds, sample_answers
from verbalize.optimize.recommender_settings import RecommenderTrainingConfig
from verbalize.optimize.recommender_training import TokenSlate, objective, slate_loss, train_recommender

SCORES = torch.tensor([0.4, -1.3, 2.1], dtype=torch.float64)
SCALE = 0.6


def gradient(loss: Any, scores: torch.Tensor = SCORES) -> torch.Tensor:
    """The gradient of `loss(scores)`."""
    leaf = scores.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(leaf), leaf)
    return found


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=6), st.integers(0, 5), st.floats(0.05, 1))
def test_expected_losses_are_functions_of_the_targets_probability(
    values: list[float], place: int, scale: float
) -> None:
    scores, target = torch.tensor(values, dtype=torch.float64), place % len(values)
    p = torch.softmax(scale * scores, 0)[target].item()
    assert expected_loss(scores, target, scale, False).item() == pytest.approx(1 - 2 * p, abs=1e-9)
    scaled = expected_loss(scores, target, scale).item()
    assert scaled == pytest.approx(math.pi / 2 - 2 * math.asin(math.sqrt(p)), abs=1e-6)
    rewards = torch.where(torch.arange(len(values)) == target, 1.0, -1.0).double()
    policy_gradient = gradient(lambda s: -(torch.softmax(scale * s, 0) * rewards).sum(), scores)
    torch.testing.assert_close(gradient(lambda s: expected_loss(s, target, scale, False), scores), policy_gradient)


@pytest.mark.parametrize("odds", [-6.0, -1.0, 0.0, 2.5, 6.0])
def test_how_hard_each_loss_pushes_the_log_odds(odds: float) -> None:
    scores = torch.tensor([odds, 0.0], dtype=torch.float64)
    p = 1 / (1 + math.exp(-odds))
    for loss, push in (
        (lambda s: slate_loss(s, 0, 1.0), 1 - p),
        (lambda s: expected_loss(s, 0, 1.0), math.sqrt(p * (1 - p))),
        (lambda s: expected_loss(s, 0, 1.0, False), 2 * p * (1 - p)),
    ):
        assert -gradient(loss, scores)[0].item() == pytest.approx(push, rel=1e-6)


def test_certainty_is_the_optimum_and_nothing_overflows() -> None:
    for target, value in ((0, -math.pi / 2), (1, math.pi / 2)):
        scores = torch.tensor([4000.0, 0.0, 0.0], requires_grad=True)
        loss = expected_loss(scores, target, 1.0)
        loss.backward()
        assert loss.item() == pytest.approx(value, abs=1e-5)
        assert scores.grad is not None and torch.isfinite(scores.grad).all()
    assert log_odds(torch.tensor([200.0, 0.0, 0.0]), 0, 1.0).item() == pytest.approx(200 - math.log(2))


def test_sampled_answers_have_the_expected_gradient_of_reinforce() -> None:
    """Over all S^G groups, each weighed by its probability: the group's own baseline leaves (1 - 1/G) of it."""
    size, target = 3, 0
    policy = torch.softmax(SCALE * SCORES, 0)
    exact = gradient(lambda s: expected_loss(s, target, SCALE, False))
    mean = torch.zeros(3, dtype=torch.float64)
    for answers in itertools.product(range(3), repeat=size):
        chosen = torch.tensor(answers)
        weight = policy[chosen].prod()
        mean += weight * gradient(lambda s, a=chosen: answer_loss(s, target, a, SCALE, False))  # type: ignore[misc]
    torch.testing.assert_close(mean, (1 - 1 / size) * exact)


def test_a_large_group_approaches_the_scaled_expectation() -> None:
    answers = sample_answers(SCORES, SCALE, 40_000, ("many",))
    shares = torch.bincount(answers, minlength=3) / len(answers)
    torch.testing.assert_close(shares.double(), torch.softmax(SCALE * SCORES, 0), atol=0.01, rtol=0)
    sampled = gradient(lambda s: answer_loss(s, 0, answers, SCALE))
    torch.testing.assert_close(sampled, gradient(lambda s: expected_loss(s, 0, SCALE)), atol=0.01, rtol=0)


def test_a_group_is_scored_as_grpo_scores_it() -> None:
    answers = torch.tensor([0, 2, 2, 0, 1])
    rewards = torch.tensor([1.0, -1, -1, 1, -1], dtype=torch.float64)
    advantages = (rewards - rewards.mean()) / (rewards.std() + EPSILON)
    expected = -(advantages * torch.log_softmax(SCALE * SCORES, 0)[answers]).mean()
    torch.testing.assert_close(answer_loss(SCORES, 0, answers, SCALE), expected)
    push = -gradient(lambda s: answer_loss(s, 0, answers, SCALE))
    assert push[0] > 0 > push[1:].max()


@pytest.mark.parametrize("answers", [[0, 0, 0], [1, 2, 2]])
def test_a_group_that_is_all_right_or_all_wrong_teaches_nothing(answers: list[int]) -> None:
    assert gradient(lambda s: answer_loss(s, 0, torch.tensor(answers), SCALE)).abs().max() == 0


def test_answers_depend_on_their_name_alone() -> None:
    first = sample_answers(SCORES, SCALE, 8, (0, "answers", 3))
    torch.rand(5)
    assert torch.equal(first, sample_answers(SCORES, SCALE, 8, (0, "answers", 3)))
    others = [sample_answers(SCORES, SCALE, 8, (0, "answers", index)) for index in range(4, 12)]
    assert any(not torch.equal(first, other) for other in others)


def test_the_default_objective_is_cross_entropy() -> None:
    config = RecommenderTrainingConfig()
    assert torch.equal(objective(SCORES, 1, config, 0), slate_loss(SCORES, 1, config.score_scale))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "ppo"}, r"recommender_training\.method = 'ppo'"),
        ({"answers": 8}, r"recommender_training\.answers = 8.*belongs to method grpo"),
        ({"scale_advantages": False}, r"recommender_training\.scale_advantages = False"),
        ({"method": "grpo", "answers": 1}, r"recommender_training\.answers = 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RecommenderTrainingConfig(**settings)


def fresh(folder: Path) -> Any:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(folder)
    return get_peft_model(base, LoraConfig(r=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]))


def spoken_of(index: int) -> TokenSlate:
    """The text repeats the first token of the chosen candidate; the slate is always the same three."""
    target = int(rng("spoken of", index).integers(3))
    starts = [50, 60, 70]
    return TokenSlate([5, starts[target], starts[target], 6], [5, 6], [[start, 7] for start in starts], target)


@pytest.mark.parametrize("answers", [None, 8])
def test_it_learns_which_candidate_the_text_speaks_of(
    tiny_model_dir: Path, tmp_path: Path, answers: int | None
) -> None:
    config = RecommenderTrainingConfig(
        method="grpo",
        answers=answers,
        examples=160,
        accumulation=8,
        save_every=160,
        learning_rate=2e-2,
        score_scale=0.5,
    )
    curve = train_recommender(fresh(tiny_model_dir), spoken_of, config, tmp_path)
    assert sum(row["hit"] for row in curve[-5:]) / 5 > 0.8  # chance is 1/3


def test_an_interrupted_training_ends_like_an_uninterrupted_one(tiny_model_dir: Path, tmp_path: Path) -> None:
    config = RecommenderTrainingConfig(
        method="grpo", answers=4, examples=32, accumulation=4, save_every=8, learning_rate=1e-2
    )

    def dying(index: int) -> TokenSlate:
        if index == 21:
            raise KeyboardInterrupt
        return spoken_of(index)

    whole = fresh(tiny_model_dir)
    curve = train_recommender(whole, spoken_of, config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_recommender(fresh(tiny_model_dir), dying, config, tmp_path / "resumed")
    resumed = fresh(tiny_model_dir)
    assert train_recommender(resumed, spoken_of, config, tmp_path / "resumed") == curve
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
