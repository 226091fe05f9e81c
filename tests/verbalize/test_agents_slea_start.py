"""The start that has met lessons: what a library of other games shows at turns of solutions, and what is learned."""

from pathlib import Path

import pytest
from agents_bench import LadderBench
from experience_helpers import named_vectors
from slea_helpers import EXPERIENCE, TRAINING, ladders
from tiny_run import model_with_chat

from recsys.models.loading import LanguageModel, load_language_model
from verbalize.agents.agent_trainer_turns import Key
from verbalize.agents.chats import ChatFormat
from verbalize.agents.environment import Trajectory
from verbalize.agents.expert import expert_trajectories, failed_trajectories
from verbalize.agents.pool import LocalEnvironments
from verbalize.agents.sft_data import SupervisedChat
from verbalize.agents.slea_player import open_library
from verbalize.agents.slea_start_lessons import chats_with_lessons, lessons_at_turns


@pytest.fixture(scope="module")
def language(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_language_model(str(model_with_chat(tiny_model_dir, tmp_path_factory.mktemp("start") / "tiny")))


@pytest.fixture(scope="module")
def solutions() -> list[Trajectory]:
    bench = LadderBench()
    return expert_trajectories(bench, LocalEnvironments(bench.make, 3), ladders(6))


def shown_at(solutions: list[Trajectory], folder: Path) -> dict[Key, str]:
    failures = failed_trajectories(LocalEnvironments(LadderBench().make, 3), [one.task for one in solutions])
    with open_library(folder, EXPERIENCE, TRAINING, named_vectors) as library:
        return lessons_at_turns(solutions, failures, library, 300, lambda text: len(text.split()))


def test_turns_are_shown_what_other_games_teach(solutions: list[Trajectory], tmp_path: Path) -> None:
    shown = shown_at(solutions, tmp_path / "a")
    assert len(solutions) == 6 and len(shown) > 6
    assert any('"up" led to the goal' in block or "up" in block for block in shown.values())
    assert shown == shown_at(solutions, tmp_path / "b"), "the same again"


def test_a_game_alone_teaches_itself_nothing(solutions: list[Trajectory], tmp_path: Path) -> None:
    assert shown_at(solutions[:1], tmp_path) == {}


def supervised_text(language: LanguageModel, chat: SupervisedChat) -> str:
    ids = [token for token, ours in zip(chat.ids, chat.supervised, strict=True) if ours]
    return str(language.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def test_one_turn_of_a_solution_an_epoch_is_learned_with_its_lessons(
    language: LanguageModel, solutions: list[Trajectory]
) -> None:
    last = {(one.task.id, 0, turn): f"lesson {turn} of a story" for one in solutions[:4] for turn in (0, 2)}
    form = ChatFormat("play a game")
    epochs = [
        chats_with_lessons(language.tokenizer, solutions, last, form, 2048, seed=0, epoch=epoch) for epoch in range(6)
    ]
    assert {len(chats) for chats in epochs} == {4}, "solutions without lessons are learned whole, elsewhere"
    for chats in epochs:
        for chat, solution in zip(chats, solutions, strict=False):
            text = language.tokenizer.decode(chat.ids)
            turn = 0 if "lesson 0 of a story" in text else 2
            assert f"lesson {turn} of a story" in text and text.count("<|im_start|>assistant") == turn + 1
            assert supervised_text(language, chat) == solution.turns[turn].action
    assert len({tuple(len(chat.ids) for chat in chats) for chats in epochs}) > 1, "another turn in another epoch"
