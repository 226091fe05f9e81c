"""Rollouts on a small world: their bookkeeping, and that slots make no difference."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from agents_worlds import Ladder, ladder

from recsys.errors import InputError
from verbalize.agents.chats import SYSTEM, ChatFormat, as_experience, training_chat, transcript
from verbalize.agents.environment import Task
from verbalize.agents.policies import ExpertPolicy, RandomPolicy
from verbalize.agents.pool import EnvironmentPool, LocalEnvironments, PoolConfig
from verbalize.agents.rollouts import RolloutConfig, Situation, roll_out

TASKS = [ladder(number, difficulty=1 + number % 4, max_steps=8) for number in range(7)]


def climb(plan: Sequence[str]) -> ExpertPolicy:
    return ExpertPolicy(lambda task: plan)


@pytest.mark.parametrize("slots", [2, 5, 30])
def test_slots_make_no_difference(slots: int) -> None:
    config = RolloutConfig(attempts=3, invalid_penalty=0.1)
    alone = roll_out(LocalEnvironments(Ladder()), RandomPolicy(), TASKS, config)
    assert [(t.task.id, t.attempt) for t in alone] == [(task.id, n) for task in TASKS for n in range(3)]
    assert roll_out(LocalEnvironments(Ladder(), slots), RandomPolicy(), TASKS, config) == alone
    assert len({tuple(turn.action for turn in t.turns) for t in alone if t.task.id == "ladder-3"}) > 1
    assert {t.success for t in alone} == {True, False}


def test_batches_stay_full_until_the_tasks_run_out() -> None:
    sizes = []

    class Counting(RandomPolicy):
        def act(self, situations: Sequence[Situation]) -> list[str]:
            sizes.append(len(situations))
            return ["up"] * len(situations)

    roll_out(LocalEnvironments(Ladder(), 2), Counting(), [ladder(n, 2) for n in range(4)])
    assert sizes == [2, 2, 2, 2]


def test_episode_record() -> None:
    config = RolloutConfig(invalid_penalty=0.25)
    plan = ["up", "fly", "down", "up", "up"]
    won, cut = roll_out(LocalEnvironments(Ladder()), climb(plan), [ladder(0, 2), ladder(1, 2, 4)], config)
    assert won.rewards == pytest.approx((0.5, -0.25, -0.5, 0.5, 0.5))
    assert (won.success, won.truncated, won.invalid_actions, won.outcome) == (True, False, 1, 1.0)
    assert won.reward == pytest.approx(0.75)
    assert (cut.success, cut.truncated, len(cut.turns), cut.outcome) == (False, True, 4, 0.5)
    assert won.source == "ladder-0#0"
    assert won.turns[0].admissible == ("up",) and won.turns[1].admissible == ("down", "up")


def test_chats_for_training_and_for_the_library() -> None:
    (episode,) = roll_out(LocalEnvironments(Ladder()), climb(["up"]), [ladder(0, 2)])
    chat = training_chat(episode, ChatFormat(list_actions=True), memory="## Hints")
    assert [m["role"] for m in chat] == ["system", "user", "assistant", "user", "assistant"]
    assert chat[0]["content"] == f"{SYSTEM}\n\n## Hints"
    assert chat[3]["content"] == "You stand on step 1 of world 0.\n\nPossible actions: down; up"
    whole = transcript(episode, ChatFormat())
    assert whole[-1] == {"role": "user", "content": "You stand on step 2 of world 0."}
    entry = as_experience(episode)
    assert entry.messages == whole[1:]
    assert (entry.key, entry.success, entry.sources, entry.family) == (
        "Climb 2 steps.",
        True,
        ("ladder-0#0",),
        "ladder",
    )


def test_memory_is_asked_once_a_move_and_shown_in_the_system_message() -> None:
    asked: list[list[str]] = []
    systems: list[str] = []

    def recall(situations: Sequence[Situation]) -> list[str]:
        asked.append([s.observation for s in situations])
        assert all("Hint" not in message["content"] for s in situations for message in s.chat)
        return [f"Hint {s.turn}" if s.task.id == "ladder-0" else "" for s in situations]

    class Reading(RandomPolicy):
        def act(self, situations: Sequence[Situation]) -> list[str]:
            systems.extend(s.chat[0]["content"] for s in situations)
            return ["up"] * len(situations)

    episodes = roll_out(LocalEnvironments(Ladder(), 2), Reading(), [ladder(0, 2), ladder(1, 2)], memory=recall)
    assert [len(batch) for batch in asked] == [2, 2]
    assert systems == [f"{SYSTEM}\n\nHint 0", SYSTEM, f"{SYSTEM}\n\nHint 1", SYSTEM]
    assert [turn.memory for turn in episodes[0].turns] == ["Hint 0", "Hint 1"]
    assert [turn.memory for turn in episodes[1].turns] == ["", ""]


def test_killed_worker_changes_nothing(tmp_path: Path) -> None:
    expected = roll_out(LocalEnvironments(Ladder(tmp_path), 3), RandomPolicy(), TASKS)
    with EnvironmentPool(Ladder(tmp_path), PoolConfig(size=3)) as pool:
        killed: list[int] = []

        class Assassin(RandomPolicy):
            def act(self, situations: Sequence[Situation]) -> list[str]:
                if situations[0].turn == 1 and not killed:
                    killed.append(pool.pids[0])
                    os.kill(killed[0], signal.SIGKILL)
                return super().act(situations)

        assert roll_out(pool, Assassin(), TASKS) == expected
        assert pool.restarted == 1


def test_crashed_episode_is_recorded_as_such(tmp_path: Path) -> None:
    class Fatal(RandomPolicy):
        def act(self, situations: Sequence[Situation]) -> list[str]:
            return ["die always" if s.task.id == "ladder-1" and s.turn == 1 else "up" for s in situations]

    with EnvironmentPool(Ladder(tmp_path), PoolConfig(size=2, restarts=0)) as pool:
        episodes = roll_out(pool, Fatal(), [ladder(n) for n in range(4)])
    assert [e.crashed for e in episodes] == [False, True, False, False]
    assert [e.success for e in episodes] == [True, False, True, True]
    assert not episodes[1].truncated and len(episodes[1].turns) == 2


def test_refusals() -> None:
    class Silent(RandomPolicy):
        def act(self, situations: Sequence[Situation]) -> list[str]:
            return []

    with pytest.raises(InputError, match="0 actions for 1 situations"):
        roll_out(LocalEnvironments(Ladder()), Silent(), [ladder(0)])
    with pytest.raises(InputError, match="a seed from 0"):
        Task("x", "ladder", -1)
    with pytest.raises(InputError, match="needs an attempt"):
        RolloutConfig(attempts=0)
    assert roll_out(LocalEnvironments(Ladder()), RandomPolicy(), []) == []
