"""A tiny model as policy: scores against one full forward per action, draws against their probabilities, text against
Transformers' own generation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from agents_worlds import Ladder, ladder
from tiny_run import model_with_chat

from recsys.errors import InputError
from recsys.models.chat import encode_chat
from recsys.models.loading import LanguageModel, load_language_model
from verbalize.agents.language_policies import ActingConfig, GeneratingPolicy, ScoringPolicy
from verbalize.agents.pool import LocalEnvironments
from verbalize.agents.rollouts import RolloutConfig, Situation, roll_out

ACTIONS = ("take film", "take film from story", "go day")


@pytest.fixture(scope="module")
def language(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_language_model(str(model_with_chat(tiny_model_dir, tmp_path_factory.mktemp("agents") / "tiny")))


def situation(text: str, attempt: int = 0, actions: tuple[str, ...] | None = ACTIONS) -> Situation:
    chat = [{"role": "system", "content": "play"}, {"role": "user", "content": text}]
    return Situation(ladder(0), attempt, 0, "goal", text, chat, actions)


def by_definition(language: LanguageModel, asked: Situation) -> list[np.ndarray]:
    """Token log-probabilities of each action and the end of the turn, one plain forward each."""
    prompt = encode_chat(language.tokenizer, asked.chat, add_generation_prompt=True)
    results = []
    for action in asked.admissible or ():
        branch = [*language.tokenizer(action)["input_ids"], language.tokenizer.eos_token_id]
        with torch.no_grad():
            logits = language.model(input_ids=torch.tensor([prompt + branch])).logits[0].float()
        logprobs = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]
        results.append(logprobs.gather(1, torch.tensor(branch)[:, None])[:, 0].numpy())
    return results


@pytest.mark.parametrize("per_token", [False, True])
def test_scores_are_the_likelihoods_of_whole_turns(language: LanguageModel, per_token: bool) -> None:
    policy = ScoringPolicy(language.model, language.tokenizer, ActingConfig(per_token=per_token))
    asked = [situation("day and night"), situation("a longer story of love and war"), situation("day and night", 1)]
    scores = policy.score(asked)
    for one, found in zip(asked, scores, strict=True):
        expected = [values.mean() if per_token else values.sum() for values in by_definition(language, one)]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert policy.act(asked) == [ACTIONS[int(values.argmax())] for values in scores]
    assert np.array_equal(scores[0], scores[2])


def test_draws_follow_the_probabilities_and_the_seed(language: LanguageModel) -> None:
    policy = ScoringPolicy(language.model, language.tokenizer, ActingConfig(temperature=8.0))
    asked = [situation("day and night", attempt) for attempt in range(600)]
    weights = np.exp(policy.score(asked[:1])[0] / 8.0)
    expected = weights / weights.sum()
    drawn = policy.act(asked)
    shares = np.array([drawn.count(action) / len(drawn) for action in ACTIONS])
    assert np.all(np.abs(shares - expected) < 4 * np.sqrt(expected * (1 - expected) / len(drawn)) + 1e-9)
    assert len(set(drawn)) > 1
    assert policy.act(asked[5:6]) == [drawn[5]]  # whoever else is in the batch


def test_greedy_generation_equals_transformers(language: LanguageModel) -> None:
    asked = [situation("day"), situation("a story of a woman at night", actions=None), situation("day", 1)]
    config = ActingConfig(max_new_tokens=12)
    found = GeneratingPolicy(language.model, language.tokenizer, config).act(asked)
    for one, action in zip(asked, found, strict=True):
        prompt = torch.tensor([encode_chat(language.tokenizer, one.chat, add_generation_prompt=True)])
        written = language.model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False
        )[0, prompt.shape[1] :]
        lines = language.tokenizer.decode(written, skip_special_tokens=True).splitlines()
        assert action == next((line.strip() for line in lines if line.strip()), "")
    assert found[0] == found[2]


def test_sampled_generation_draws_each_attempt_anew(language: LanguageModel) -> None:
    policy = GeneratingPolicy(language.model, language.tokenizer, ActingConfig(temperature=2.0, max_new_tokens=6))
    asked = [situation("day", attempt) for attempt in range(6)]
    torch.manual_seed(1)
    first = policy.act(asked)
    assert len(set(first)) > 1
    torch.manual_seed(1)
    assert policy.act(asked) == first


def test_model_plays_whole_episodes(language: LanguageModel) -> None:
    config = RolloutConfig(attempts=2, invalid_penalty=0.1)
    tasks = [ladder(n, 2, 4) for n in range(3)]
    scoring = ScoringPolicy(language.model, language.tokenizer, ActingConfig(temperature=5.0))
    played = roll_out(LocalEnvironments(Ladder(), 4), scoring, tasks, config)
    assert roll_out(LocalEnvironments(Ladder()), scoring, tasks, config) == played
    assert all(episode.invalid_actions == 0 for episode in played)
    free = roll_out(
        LocalEnvironments(Ladder(), 4),
        GeneratingPolicy(language.model, language.tokenizer, ActingConfig(max_new_tokens=4)),
        tasks,
        config,
    )
    assert all(e.truncated and e.invalid_actions == 4 for e in free)  # an untrained model knows no action
    assert all(e.reward == pytest.approx(-0.4) for e in free)


def test_refusals(language: LanguageModel) -> None:
    policy = ScoringPolicy(language.model, language.tokenizer)
    with pytest.raises(InputError, match="lists no admissible actions"):
        policy.act([situation("day", actions=None)])
    with pytest.raises(InputError, match="temperature is at least 0"):
        ActingConfig(temperature=-1)
