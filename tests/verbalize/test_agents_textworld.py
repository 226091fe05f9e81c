"""TextWorld itself: its walkthroughs win every family, games are the same in any process, killed workers come back."""

import os
import signal
from pathlib import Path

import pytest
from agents_worlds import need_textworld

from recsys.errors import InputError
from recsys.storage import file_hash
from verbalize.agents.environment import Task
from verbalize.agents.policies import ExpertPolicy, RandomPolicy
from verbalize.agents.pool import EnvironmentPool, LocalEnvironments, PoolConfig
from verbalize.agents.rollouts import roll_out
from verbalize.agents.textworld_env import NOTHING, TextWorld
from verbalize.agents.textworld_games import LEVELS, game_path, game_task, prepare, walkthrough

# Jericho knows no generated game by name; that is all its warning says.
pytestmark = pytest.mark.filterwarnings("ignore:.*is not fully supported")

TASKS = [
    game_task("route", 2, 0),
    game_task("coin", 2, 0),
    game_task("treasure", 2, 0),
    game_task("quest", 3, 0),
    game_task("cooking", 3, 0),
]


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_textworld()
    folder = tmp_path_factory.mktemp("games")
    prepare(TASKS, folder)
    return folder


def test_walkthrough_wins_every_family(games: Path) -> None:
    assert {task.family for task in TASKS} == set(LEVELS)
    played = roll_out(LocalEnvironments(TextWorld(games)), ExpertPolicy(lambda task: walkthrough(task, games)), TASKS)
    for episode in played:
        assert episode.success and episode.outcome == 1.0 and episode.reward == pytest.approx(1.0)
        assert episode.invalid_actions == 0 and not episode.truncated
        assert [turn.action for turn in episode.turns] == walkthrough(episode.task, games)
        assert episode.turns[0].observation.startswith(episode.goal.split(".")[0])
        shown = "".join(turn.observation for turn in episode.turns) + episode.last_observation
        assert "$$" not in shown and "RESTART" not in shown and "\n>" not in shown
    by_family = {episode.task.family: episode for episode in played}
    assert len(by_family["route"].turns) == len(by_family["coin"].turns) == 3  # difficulty 2
    assert len(by_family["quest"].turns) == 3
    assert all(action.split()[-1] in by_family["route"].goal for action in walkthrough(TASKS[0], games))
    assert by_family["cooking"].rewards.count(0.0) < len(by_family["cooking"].turns) - 1  # graded on the way


def test_only_admissible_actions_reach_the_game(games: Path) -> None:
    world = TextWorld(games)()
    first = world.reset(TASKS[3])
    before = world.admissible()
    assert before == sorted(before) and walkthrough(TASKS[3], games)[0] in before
    for command in ("restart", "undo", "quit", "tw-trace-actions", "look at everything", ""):
        assert world.step(command) == (NOTHING, False)
    assert world.admissible() == before and world.reward() == 0.0
    assert world.step("inventory")[0] != NOTHING
    assert world.reset(TASKS[3]) == first
    world.close()


def test_games_do_not_depend_on_the_hash_seed(games: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    again = prepare([TASKS[1]], tmp_path)[0]
    ours = game_path(TASKS[1], games)
    assert again.name == ours.name
    assert file_hash(again.with_suffix(".json")) == file_hash(ours.with_suffix(".json"))


def test_games_are_made_once(games: Path) -> None:
    path = game_path(TASKS[0], games)
    stamp = path.stat().st_mtime_ns
    assert prepare([TASKS[0]], games) == [path]
    assert path.stat().st_mtime_ns == stamp


def test_parallel_equals_sequential_and_survives_a_killed_worker(games: Path) -> None:
    tasks = [Task(task.id, task.family, task.seed, task.difficulty, max_steps=6) for task in TASKS]
    expected = roll_out(LocalEnvironments(TextWorld(games)), RandomPolicy(3), tasks)
    with EnvironmentPool(TextWorld(games), PoolConfig(size=2, preload=("textworld",))) as pool:
        killed: list[int] = []

        class Assassin(RandomPolicy):
            def act(self, situations: list) -> list[str]:  # type: ignore[type-arg]
                if situations[0].turn == 2 and not killed:
                    killed.append(pool.pids[0])
                    os.kill(killed[0], signal.SIGKILL)
                return super().act(situations)

        assert roll_out(pool, Assassin(3), tasks) == expected
        assert pool.restarted == 1


def test_bad_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"family 'chess'.*must be one of route"):
        game_task("chess", 1, 0)
    with pytest.raises(InputError, match="the family ends at 7"):
        game_task("cooking", 8, 0)
    with pytest.raises(InputError, match="call reset"):
        TextWorld(tmp_path)().goal()
