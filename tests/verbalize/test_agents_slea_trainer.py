"""Turns as training samples: log-probabilities against plain forwards, the gradient of a step against a slow reference,
and how credit reduces to the methods it extends."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from agents_worlds import Ladder
from datasets import Dataset
from slea_helpers import LORA, TRAINING, episode, ladders, tiny_agent
from tiny_run import model_with_chat

from recsys.errors import InputError
from recsys.models.chat import encode_chat
from recsys.models.loading import LanguageModel
from verbalize.agents.advantages import combined_advantages, episode_advantages
from verbalize.agents.agent_trainer import AgentGRPOTrainer, agent_config
from verbalize.agents.agent_trainer_batch import TurnBatch, anchors, episode_metrics, turn_advantages
from verbalize.agents.agent_trainer_turns import (
    ActingSettings,
    Choice,
    TurnPolicy,
    choice_logprobs,
    fitted_ids,
    text_logprobs,
)
from verbalize.agents.language_policies import ActingConfig, GeneratingPolicy, ScoringPolicy
from verbalize.agents.pool import LocalEnvironments
from verbalize.agents.rollouts import roll_out
from verbalize.agents.slea_player import acting_settings
from verbalize.agents.slea_settings import AgentTraining, ArmConfig
from verbalize.optimize.training import trainable_policy

CHOICES = [
    Choice((5, 6, 7, 8), ((9, 10, 2), (11, 2), (12, 13, 14, 2)), 1),
    Choice((5, 6, 7, 8), ((9, 10, 2), (11, 2), (12, 13, 14, 2)), 2),
    Choice((20, 21), ((9, 2), (30, 31, 2)), 0),
    Choice((40, 41, 42), ((9, 2), (30, 31, 2)), 1),
    Choice((40, 41, 43), ((9, 2), (30, 31, 2)), 1),
]
TEXTS = [Choice(choice.prompt, (choice.branches[choice.chosen],)) for choice in CHOICES]
ADVANTAGES = np.array([1.0, -0.5, 0.25, -2.0, 0.0])


@pytest.fixture(scope="module")
def chat_model(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_with_chat(tiny_model_dir, tmp_path_factory.mktemp("slea") / "tiny")


def agent(chat_model: Path) -> LanguageModel:
    """A policy whose adapter says something."""
    lm = tiny_agent(chat_model)
    model = trainable_policy(lm, LORA, 0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(3))
    return LanguageModel(model, lm.tokenizer, lm.name, lm.digest, lm.base_digest)


def token_logprobs(model: torch.nn.Module, prompt: tuple[int, ...], branch: tuple[int, ...], temperature: float = 1.0):
    """(C,) log-probabilities and entropies of a branch, by one plain forward."""
    logits = model(input_ids=torch.tensor([[*prompt, *branch]])).logits[0, len(prompt) - 1 : -1].float() / temperature
    logprobs = logits.log_softmax(-1)
    return logprobs.gather(1, torch.tensor(branch)[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


def plain_choice(model: torch.nn.Module, choice: Choice, temperature: float, per_token: bool) -> torch.Tensor:
    """(A,) log-probabilities of the choice's branches."""
    rows = [token_logprobs(model, choice.prompt, branch)[0] for branch in choice.branches]
    scores = torch.stack([row.mean() if per_token else row.sum() for row in rows])
    return (scores / temperature).log_softmax(-1)


@pytest.mark.parametrize("per_token", [False, True])
def test_choices_have_the_probabilities_of_plain_forwards(chat_model: Path, per_token: bool) -> None:
    model = agent(chat_model).model
    settings = ActingSettings(temperature=3.0, per_token=per_token, token_budget=12)
    chosen, entropies = choice_logprobs(model, CHOICES, settings)
    assert chosen.shape == entropies.shape == (5, 1)
    for place, choice in enumerate(CHOICES):
        expected = plain_choice(model, choice, 3.0, per_token)
        torch.testing.assert_close(chosen[place, 0], expected[choice.chosen], atol=1e-5, rtol=0)
        torch.testing.assert_close(entropies[place, 0], -(expected.exp() * expected).sum(), atol=1e-5, rtol=0)


def test_generated_tokens_have_the_probabilities_of_plain_forwards(chat_model: Path) -> None:
    model = agent(chat_model).model
    logprobs, entropies = text_logprobs(model, TEXTS, ActingSettings("generate", temperature=2.0), 6)
    for place, choice in enumerate(TEXTS):
        expected = token_logprobs(model, choice.prompt, choice.branches[0], 2.0)
        length = len(choice.branches[0])
        torch.testing.assert_close(logprobs[place, :length], expected[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(entropies[place, :length], expected[1], atol=1e-5, rtol=0)
        assert not logprobs[place, length:].any() and not entropies[place, length:].any()


def test_the_best_action_is_that_of_the_evaluation_policies(chat_model: Path) -> None:
    """Episodes played greedily are those of the policies that know nothing of training, in both ways of acting."""
    language = agent(chat_model)
    tasks = ladders(3)
    for acting, policy in (("score", ScoringPolicy), ("generate", GeneratingPolicy)):
        settings = ActingSettings(acting, 0.0, max_new_tokens=6, prompt_budget=2000)
        mine = TurnPolicy(language.model, language.tokenizer, settings)
        plain = policy(language.model, language.tokenizer, ActingConfig(max_new_tokens=6))
        played = roll_out(LocalEnvironments(Ladder(), 2), mine, tasks)
        assert played == roll_out(LocalEnvironments(Ladder(), 2), plain, tasks)
        for one in played:
            for turn, step in enumerate(one.turns):
                choice = mine.taken[one.task.id, one.attempt, turn]
                if acting == "score":
                    assert step.admissible is not None and step.admissible[choice.chosen] == step.action


def test_draws_depend_on_the_seed_and_nothing_else(chat_model: Path) -> None:
    language = agent(chat_model)

    def actions(seed: int, slots: int) -> list[tuple[str, ...]]:
        policy = TurnPolicy(language.model, language.tokenizer, ActingSettings(temperature=8.0), seed)
        played = roll_out(LocalEnvironments(Ladder(), slots), policy, ladders(6))
        return [tuple(turn.action for turn in one.turns) for one in played]

    assert actions(1, 1) == actions(1, 4) != actions(2, 4)


def test_long_chats_lose_their_oldest_turns_but_the_first(chat_model: Path) -> None:
    tokenizer = tiny_agent(chat_model).tokenizer
    chat = [{"role": "system", "content": "play"}, {"role": "user", "content": "the goal and a hall"}]
    for turn in range(4):
        chat += [{"role": "assistant", "content": f"go {turn}"}, {"role": "user", "content": f"room {turn}"}]
    whole = len(encode_chat(tokenizer, chat, add_generation_prompt=True))
    assert fitted_ids(tokenizer, chat, whole) == encode_chat(tokenizer, chat, add_generation_prompt=True)
    cut = [*chat[:2], *chat[4:]]
    assert fitted_ids(tokenizer, chat, whole - 1) == encode_chat(tokenizer, cut, add_generation_prompt=True)
    least = [*chat[:2], *chat[-2:]]
    tokens = encode_chat(tokenizer, least, add_generation_prompt=True)
    assert fitted_ids(tokenizer, chat, len(tokens)) == tokens
    with pytest.raises(InputError, match="prompt_budget"):
        fitted_ids(tokenizer, chat, len(tokens) - 1)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    return found


def reference_loss(language: LanguageModel, choices: list[Choice], training: AgentTraining) -> torch.Tensor:
    """The definition, a mean over all actions or tokens of the batch: ρ (β k3 − A) with ρ = π / π_old, which is 1 and
    has a gradient (TRL weighs the KL estimate by it too, which makes its gradient that of the reverse KL)."""
    generating = training.acting == "generate"

    def said(choice: Choice) -> torch.Tensor:
        if generating:
            return token_logprobs(language.model, choice.prompt, choice.branches[0], training.temperature)[0]
        return plain_choice(language.model, choice, training.temperature, training.per_token)[choice.chosen][None]

    total, count = torch.zeros(()), 0
    for choice, advantage in zip(choices, ADVANTAGES.tolist(), strict=True):
        now = said(choice)
        with torch.no_grad(), language.model.disable_adapter():
            gap = said(choice)
        gap = gap - now
        total = total + ((now - now.detach()).exp() * (training.beta * (gap.exp() - gap - 1) - advantage)).sum()
        count += len(now)
    return total / count


@pytest.mark.parametrize("token_budget", [8, 4096])
@pytest.mark.parametrize("acting", ["score", "generate"])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_a_step_has_the_gradient_of_the_definition(
    chat_model: Path, tmp_path: Path, beta: float, acting: str, token_budget: int
) -> None:
    """Whatever the portions, and although turns without an advantage are not computed when there is no KL."""
    language = agent(chat_model)
    training = replace(TRAINING, beta=beta, acting=acting, token_budget=token_budget)
    choices = TEXTS if acting == "generate" else CHOICES
    settings = acting_settings(training)
    expected = reference_loss(language, choices, training)
    expected.backward()
    reference = gradients(language.model)
    made = AgentGRPOTrainer(
        model=language.model,
        args=agent_config(training, tmp_path, 1, 0),
        train_dataset=Dataset.from_list([{"prompt": name} for name in ("a", "b")]),
        processing_class=language.tokenizer,
        play=lambda names, step: TurnBatch(choices, ADVANTAGES, {"reward": 1.0}),
        settings=settings,
    )
    with torch.no_grad():  # the policy the run starts with: made equal to the bare model
        for name, parameter in language.model.named_parameters():
            if ".ref." in name and "lora_B" in name:
                parameter.zero_()
    made.current_gradient_accumulation_steps = 1  # set by the loop, which this test does without
    loss = made.training_step(made.model, [{"prompt": "a"}] * 4 + [{"prompt": "b"}] * 4)
    torch.testing.assert_close(loss, expected.detach(), atol=1e-5, rtol=1e-4)
    found = gradients(language.model)
    assert found.keys() == reference.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, reference[name], atol=1e-5, rtol=1e-3)
    if beta:
        assert len(made._metrics["train"]["kl"]) == 1
    assert len(made._metrics["train"]["entropy"]) == 1


def test_a_batch_without_signal_leaves_the_policy_alone(chat_model: Path, tmp_path: Path) -> None:
    language = agent(chat_model)
    made = AgentGRPOTrainer(
        model=language.model,
        args=agent_config(replace(TRAINING, beta=0.0), tmp_path, 1, 0),
        train_dataset=Dataset.from_list([{"prompt": name} for name in ("a", "b")]),
        processing_class=language.tokenizer,
        play=lambda names, step: TurnBatch(CHOICES, np.zeros(5), {"reward": 0.0}),
        settings=ActingSettings(),
    )
    before = {name: value.clone() for name, value in language.model.named_parameters()}
    made.train()
    assert all(torch.equal(before[name], value) for name, value in made.model.named_parameters())
    assert made.state.global_step == 1


EPISODES = [
    episode(("hall", "east", 0.0), ("attic", "take", 1.0), task=ladders(1)[0]),
    episode(("hall", "west", 0.0), ("cellar", "wait", 0.0), ("hall", "west", 0.0), task=ladders(1)[0]),
    episode(("hall", "east", 0.0), ("attic", "wait", 0.0), task=ladders(2)[1]),
    episode(("hall", "west", 0.0), ("cellar", "wait", 0.0), task=ladders(2)[1]),
]


def test_credit_reduces_to_grpo_and_gigpo() -> None:
    clusters = [[0, 1], [0, 2, 0], [0, 1], [0, 2]]
    grpo = turn_advantages(EPISODES, None, ArmConfig(), TRAINING)
    returns = episode_advantages([1.0, 0.0, 0.0, 0.0], [0, 0, 1, 1])
    assert [row.tolist() for row in grpo] == [
        [value] * len(e.turns) for value, e in zip(returns, EPISODES, strict=True)
    ]
    without = turn_advantages(EPISODES, clusters, ArmConfig("cluster"), replace(TRAINING, weight=0.0))
    assert [row.tolist() for row in without] == [row.tolist() for row in grpo]
    rewards = [e.rewards for e in EPISODES]
    gigpo = turn_advantages(EPISODES, None, ArmConfig("anchor"), TRAINING)
    expected = combined_advantages(rewards, [0, 0, 1, 1], anchors(EPISODES), within_tasks=True)
    assert [row.tolist() for row in gigpo] == [row.tolist() for row in expected]
    assert anchors(EPISODES) == clusters  # equal observations, equal labels
    assert not gigpo[2].any() and not gigpo[3].any()  # a game of equal episodes has nothing to compare within itself
    slea = turn_advantages(EPISODES, clusters, ArmConfig("cluster"), TRAINING)
    assert slea[2][1] < 0  # ... but waiting in the attic is worse than what another game's player did there


def test_dead_groups_are_games_of_equal_returns() -> None:
    metrics = episode_metrics(EPISODES)
    assert metrics["groups.dead_groups"] == 0.5
    assert metrics["component.success"] == 0.25 and metrics["component.length"] == 9 / 4
    assert episode_metrics([]) == {}
