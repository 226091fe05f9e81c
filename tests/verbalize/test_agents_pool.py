"""The pool: equal to environments played here, and unharmed by workers that die, hang, raise or change."""

import os
import signal
import time
from pathlib import Path

import pytest
from agents_worlds import Ladder, ladder

from recsys.errors import InputError
from verbalize.agents.environment import Task
from verbalize.agents.pool import EnvironmentPool, LocalEnvironments, PoolConfig

QUICK = PoolConfig(size=3, step_timeout=1.0, start_timeout=30.0, restarts=1)


def test_pool_shows_what_local_environments_show(tmp_path: Path) -> None:
    local = LocalEnvironments(Ladder(tmp_path), 3)
    with EnvironmentPool(Ladder(tmp_path), QUICK) as pool:
        for moves in (
            {0: ladder(0), 1: ladder(1, 2), 2: ladder(2)},
            {0: "up", 2: "jump"},
            {1: "up", 0: "down"},
            {2: ladder(5)},
            {1: "up", 2: "up"},
        ):
            assert pool.advance(moves) == local.advance(moves)
        assert pool.advance({1: ladder(1, 1)})[1].reward == 0.0
        assert pool.advance({1: "up"})[1].done
        assert pool.restarted == 0


def test_a_slow_beginning_keeps_nobody_waiting(tmp_path: Path) -> None:
    slow = Task("slow", "ladder", 9, difficulty=2)
    with EnvironmentPool(Ladder(tmp_path, slow="slow"), QUICK) as pool:
        pool.advance({0: ladder(0)})
        assert set(pool.advance({0: "up", 1: slow})) == {0}
        with pytest.raises(InputError, match="still begins one"):
            pool.advance({1: "up"})
        assert pool.advance({0: "down", 1: ladder(1)}).keys() >= {0}  # instead of the slow one
        pool.advance({})
        assert set(pool.advance({0: "up", 1: slow})) == {0}
        assert pool.advance({})[1].observation == "Climb 2 steps. You stand on step 0 of world 9."
        assert set(pool.advance({0: "up", 1: "up"})) == {0, 1}
        assert pool.restarted == 0


def test_killed_worker_is_replaced_and_brought_back(tmp_path: Path) -> None:
    with EnvironmentPool(Ladder(tmp_path), QUICK) as pool:
        pool.advance({number: ladder(number) for number in range(3)})
        pool.advance(dict.fromkeys(range(3), "up"))
        before = pool.pids
        os.kill(before[1], signal.SIGKILL)
        views = pool.advance(dict.fromkeys(range(3), "up"))
        assert [views[n].observation for n in range(3)] == [f"You stand on step 2 of world {n}." for n in range(3)]
        assert pool.restarted == 1
        assert [a == b for a, b in zip(before, pool.pids, strict=True)] == [True, False, True]
        # The replaced worker goes on as any other, and begins new tasks.
        assert pool.advance({1: "up"})[1].done
        assert not pool.advance({1: ladder(7)})[1].done


@pytest.mark.parametrize("trouble", ["die", "hang", "raise"])
def test_trouble_during_a_move_costs_neither_the_episode_nor_the_batch(tmp_path: Path, trouble: str) -> None:
    with EnvironmentPool(Ladder(tmp_path), QUICK) as pool:
        pool.advance({0: ladder(0), 1: ladder(1)})
        pool.advance({0: "up", 1: "up"})
        views = pool.advance({0: trouble, 1: "up"})
        assert views[0].observation == "You stand on step 1 of world 0." and not views[0].crashed
        assert views[1].observation == "You stand on step 2 of world 1."
        assert pool.restarted == 1


def test_lasting_trouble_ends_the_episode_alone(tmp_path: Path) -> None:
    with EnvironmentPool(Ladder(tmp_path), QUICK) as pool:
        pool.advance({0: ladder(0), 1: ladder(1)})
        pool.advance({0: "up", 1: "up"})
        views = pool.advance({0: "die always", 1: "up"})
        assert views[0].crashed and views[0].done and views[0].reward == pytest.approx(1 / 3)
        assert pool.restarted == 2  # one replay, then a fresh worker for what comes next
        assert not views[1].crashed
        with pytest.raises(InputError, match="has no task"):
            pool.advance({0: "up"})
        assert not pool.advance({0: ladder(4)})[0].crashed


def test_replay_that_shows_something_else_is_not_passed_off_as_the_episode(tmp_path: Path) -> None:
    with EnvironmentPool(Ladder(tmp_path, drift=True), QUICK) as pool:
        pool.advance({0: ladder(0)})
        os.kill(pool.pids[0], signal.SIGKILL)
        assert pool.advance({0: "up"})[0].crashed


def test_bad_input_is_raised_and_leaves_the_others_in_step(tmp_path: Path) -> None:
    with EnvironmentPool(Ladder(tmp_path), QUICK) as pool:
        with pytest.raises(InputError, match="is no ladder"):
            pool.advance({0: Task("odd", "snake", 0), 1: ladder(1)})
        assert pool.advance({1: "up"})[1].observation == "You stand on step 1 of world 1."
        with pytest.raises(InputError, match="is refused"):
            pool.advance({1: "refuse always"})
        assert pool.restarted == 0


def test_workers_end_with_their_pool(tmp_path: Path) -> None:
    with EnvironmentPool(Ladder(tmp_path), QUICK) as pool:
        pool.advance({0: ladder(0)})
        pids = pool.pids
    limit = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("values", [{"size": 0}, {"step_timeout": 0.0}, {"restarts": -1}])
def test_bad_settings_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match="needs a worker"):
        PoolConfig(**values)  # type: ignore[arg-type]
