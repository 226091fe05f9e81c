"""Retrieval for agents: what is shown, to whom, when, and never one's own game."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from agents_bench import LadderBench, word_vectors
from agents_worlds import Ladder, ladder, need_textworld
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from verbalize.agents.chats import ChatFormat, training_chat
from verbalize.agents.expert import (
    PARTS,
    GameSet,
    TextWorldBench,
    chat_of,
    entries_of,
    expert_trajectories,
    failed_trajectories,
    game_of,
    tasks_of,
)
from verbalize.agents.exprag import ExpRAG, RetrievalConfig, Retriever, drop_blocks, training_blocks
from verbalize.agents.policies import RandomPolicy
from verbalize.agents.pool import LocalEnvironments
from verbalize.agents.rollouts import Situation, roll_out
from verbalize.experience.library import ExperienceLibrary
from verbalize.experience.memory import FAILURES, SUCCESSES

BENCH = LadderBench()
LOW, HIGH = GameSet("ladder", 2, 6), GameSet("ladder", 4, 6)


class Recorder:
    """Word vectors, and the texts they were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return word_vectors(texts)


def words(text: str) -> int:
    return len(text.split())


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ExperienceLibrary:
    """Solutions of three games at each height, and three games lost at random."""
    folder = tmp_path_factory.mktemp("bank")
    environments = LocalEnvironments(Ladder(), 2)
    solved = expert_trajectories(BENCH, environments, tasks_of(BENCH, [LOW, HIGH], "train", 3))
    lost = failed_trajectories(environments, [replace(t, max_steps=3) for t in tasks_of(BENCH, [HIGH], "train", 3)])
    assert len(solved) == 6 and len(lost) == 3
    with ExperienceLibrary.open(folder, None, word_vectors) as writing:
        writing.admit(entries_of([*solved, *lost]))
    return ExperienceLibrary.open(folder, None, word_vectors, read_only=True)


def situation(number: int, difficulty: int, observation: str = "You stand.", turn: int = 0) -> Situation:
    task = BENCH.task(GameSet("ladder", difficulty, 6), number)
    goal = f"Climb {difficulty} steps."
    return Situation(task, 0, turn, goal, observation, [{"role": "user", "content": observation}], ("up",))


def test_chats_of_entries_are_the_training_chats_of_their_episodes() -> None:
    episodes = expert_trajectories(BENCH, LocalEnvironments(Ladder()), tasks_of(BENCH, [LOW, HIGH], "train", 2))
    for episode, entry in zip(episodes, entries_of(episodes), strict=True):
        for memory in ("", "## Successful experiences\n\nTask: t"):
            assert chat_of(entry, ChatFormat(), memory) == training_chat(episode, ChatFormat(), memory)
        assert game_of(entry.sources[0]) == episode.task.id
        assert [m["content"] for m in chat_of(entry, ChatFormat("")) if m["role"] == "assistant"] == (
            ["up"] * episode.task.difficulty
        )


def test_parts_share_no_game_and_hopeless_games_are_refused() -> None:
    parts = [{task.seed for task in tasks_of(BENCH, [LOW], part, 5)} for part in PARTS]
    assert len(set.union(*parts)) == 5 * len(PARTS)
    assert tasks_of(BENCH, [LOW], "test", 2) == tasks_of(BENCH, [LOW], "test", 5)[:2]
    with pytest.raises(InputError, match="takes 4 actions to win"):
        tasks_of(BENCH, [GameSet("ladder", 4, 3)], "test", 1)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.sampled_from(["static", "dynamic"]))
def test_a_game_never_sees_itself(library: ExperienceLibrary, k: int, query: str) -> None:
    retriever = Retriever(library, RetrievalConfig(k=k, query=query, budget=9999), words)  # type: ignore[arg-type]
    entries = library.entries("trajectory")
    blocks = (
        training_blocks(retriever, entries)
        if query == "static"
        else retriever.blocks([entry.view("text") for entry in entries], [game_of(e.sources[0]) for e in entries])
    )
    for entry, block in zip(entries, blocks, strict=True):
        own = [other for other in entries if game_of(other.sources[0]) == game_of(entry.sources[0])]
        assert block.count("Task: ") == min(k, len(entries) - len(own))
        assert f"Observation: {entry.messages[0]['content']}" not in block  # it names goal and world


def test_static_asks_once_by_goal_and_dynamic_at_every_step_by_observation(library: ExperienceLibrary) -> None:
    asked = Recorder()
    reading = ExperienceLibrary.open(library.folder, None, asked, read_only=True)
    static = ExpRAG(Retriever(reading, RetrievalConfig(k=1), words))
    first = static([situation(50, 2), situation(51, 4)])
    assert asked.asked == ["Climb 2 steps.", "Climb 4 steps."]
    assert "Task: Climb 2 steps." in first[0] and "Task: Climb 4 steps." in first[1]
    later = static([situation(51, 4, "You stand elsewhere.", 1), situation(52, 2)])
    assert later[0] == first[1] and "Task: Climb 2 steps." in later[1]
    assert len(asked.asked) == 2, "the goal of game 52 is embedded already"
    dynamic = ExpRAG(Retriever(reading, RetrievalConfig(k=1, query="dynamic"), words))
    seen = [dynamic([situation(50, 2, f"You stand on step 1 of world {n}.")])[0] for n in (0, 2)]
    assert asked.asked[2:] == [f"Climb 2 steps.\nYou stand on step 1 of world {n}." for n in (0, 2)]
    assert "world 0" in seen[0] and "world 2" in seen[1]


def test_games_with_the_same_goal_see_different_trajectories_of_the_nearest(library: ExperienceLibrary) -> None:
    retriever = Retriever(library, RetrievalConfig(k=1, budget=999), words)
    games = [f"ladder-2-{number}" for number in range(50, 80)]
    blocks = retriever.blocks(["Climb 2 steps."] * 30, games)
    assert all("Task: Climb 2 steps." in block for block in blocks), "drawn among the nearest only"
    assert {world for world in range(3) if any(f"world {world}" in block for block in blocks)} == {0, 1, 2}
    assert retriever.blocks(["Climb 2 steps."] * 2, games[:2]) == blocks[:2]


def test_successes_and_failures_stand_apart_and_observations_may_be_shortened(library: ExperienceLibrary) -> None:
    whole = Retriever(library, RetrievalConfig(k=9, budget=9999), words).blocks(["Climb 4 steps."], ["none"])[0]
    successes, failures = whole.split(FAILURES)
    assert successes.startswith(SUCCESSES)
    assert successes.count("Task: ") == 6 and failures.count("Task: ") == 3
    config = RetrievalConfig(k=9, budget=9999, observation_words=2)
    short = Retriever(library, config, words).blocks(["Climb 4 steps."], ["none"])[0]
    assert "Observation: You stand …" in short and "on step" not in short
    config = RetrievalConfig(k=9, budget=9999, observation_words=0)
    bare = Retriever(library, config, words).blocks(["Climb 4 steps."], ["none"])[0]
    assert "Observation" not in bare and bare.count("Action: ") == whole.count("Action: ")
    tight = Retriever(library, RetrievalConfig(k=9, budget=4), words).blocks(["Climb 4 steps."], ["none"])[0]
    assert 0 < words(tight) <= 36


def test_memory_reaches_the_system_message_of_every_turn_and_only_it(library: ExperienceLibrary) -> None:
    chats: list[list[dict[str, str]]] = []

    class Watching(RandomPolicy):
        def act(self, situations: Sequence[Situation]) -> list[str]:
            chats.extend(s.chat for s in situations)
            return super().act(situations)

    memory = ExpRAG(Retriever(library, RetrievalConfig(k=2), words))
    played = roll_out(LocalEnvironments(Ladder(), 2), Watching(), [ladder(7, 2), ladder(8, 2)], memory=memory)
    assert all(turn.memory.startswith(SUCCESSES) for episode in played for turn in episode.turns)
    for chat in chats:
        assert SUCCESSES in chat[0]["content"] and chat[0]["role"] == "system"
        assert not any(SUCCESSES in message["content"] for message in chat[1:])


def test_dropout_hides_the_share_asked_for_and_the_same_ones_again() -> None:
    names = [f"game {n}" for n in range(2000)]
    shown = drop_blocks(["block"] * 2000, names, 0.3, 1, 0)
    assert shown.count("") == pytest.approx(600, abs=80)
    assert drop_blocks(["block"] * 5, names[:5], 0.3, 1, 0) == shown[:5]
    assert drop_blocks(["block"] * 2000, names, 0.3, 1, 1) != shown
    assert drop_blocks(["block"] * 2000, names, 0.0, 1, 0) == ["block"] * 2000


def test_textworld_solutions_become_entries(tmp_path: Path) -> None:
    need_textworld()
    bench = TextWorldBench(tmp_path / "games")
    tasks = tasks_of(bench, [GameSet("coin", 2, 10)], "train", 1)
    environments = LocalEnvironments(bench.make)
    entry = entries_of(expert_trajectories(bench, environments, tasks))[0]
    environments.close()
    said = [message["content"] for message in entry.messages if message["role"] == "assistant"]
    assert said == list(bench.walkthrough(tasks[0])) and said[-1] == "take coin"
    assert entry.success and entry.family == "coin" and "coin" in entry.key


def test_refusals() -> None:
    with pytest.raises(InputError, match="k and budget are at least 1"):
        RetrievalConfig(k=0)
