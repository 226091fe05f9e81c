"""Recommender training on the tiny model: it learns what is there to learn, and resumes exactly."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from recsys.errors import InputError
from recsys.models.packed import reference_logprobs
from recsys.models.packing import PackedRequest
from recsys.seeding import rng
from verbalize.optimize.recommender_settings import RecommenderTrainingConfig
from verbalize.optimize.recommender_training import TokenSlate, slate_loss, slate_scores, train_recommender

CONFIG = RecommenderTrainingConfig(examples=240, accumulation=8, save_every=40, learning_rate=1e-2)


@pytest.fixture
def model(tiny_model_dir: Path):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    return get_peft_model(base, LoraConfig(r=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]))


def copying(index: int) -> TokenSlate:
    """The chosen candidate is the one whose first token the text repeats."""
    random = rng("copying", index)
    starts = random.choice(range(50, 90), size=4, replace=False).tolist()
    target = int(random.integers(4))
    return TokenSlate([5, starts[target], starts[target], 6], [5, 6], [[s, 7] for s in starts], target)


def test_scores_are_the_likelihood_ratio(model) -> None:
    slate = copying(0)
    given, alone = reference_logprobs(
        model, [PackedRequest(slate.prefix, slate.candidates), PackedRequest(slate.unconditional, slate.candidates)]
    )
    expected = torch.stack([a.sum() - b.sum() for a, b in zip(given, alone, strict=True)])
    torch.testing.assert_close(slate_scores(model, slate), expected, atol=1e-4, rtol=0)


def test_uninformative_scores_cost_ln_s() -> None:
    assert slate_loss(torch.full((10,), 3.0), 4, 0.15).item() == pytest.approx(torch.log(torch.tensor(10.0)).item())


def test_it_learns_which_candidate_the_text_speaks_of(model, tmp_path: Path) -> None:
    curve = train_recommender(model, copying, CONFIG, tmp_path)
    first, last = ([row["hit"] for row in rows] for rows in (curve[:10], curve[-10:]))
    assert sum(last) / 10 > sum(first) / 10 + 0.2
    assert sum(last) / 10 > 0.45  # chance is 0.25


def test_an_interrupted_training_ends_like_an_uninterrupted_one(tiny_model_dir: Path, tmp_path: Path) -> None:
    def fresh():
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
        return get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"]))

    def dying(index: int) -> TokenSlate:
        if index == 100:
            raise KeyboardInterrupt
        return copying(index)

    whole = fresh()
    train_recommender(whole, copying, CONFIG, tmp_path / "whole")
    broken = fresh()
    with pytest.raises(KeyboardInterrupt):
        train_recommender(broken, dying, CONFIG, tmp_path / "resumed")
    resumed = fresh()
    seen: list[int] = []
    train_recommender(resumed, lambda index: seen.append(index) or copying(index), CONFIG, tmp_path / "resumed")
    assert seen[0] == 80
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_checkpoints_fall_on_optimizer_steps() -> None:
    with pytest.raises(InputError, match="multiple of accumulation"):
        RecommenderTrainingConfig(examples=100, accumulation=8)
