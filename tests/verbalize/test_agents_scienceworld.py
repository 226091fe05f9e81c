"""ScienceWorld itself: its solutions win, worlds are the same in any process, no simulator hangs or is left behind."""

import importlib.util
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from verbalize.agents import scienceworld_simulator
from verbalize.agents.environment import play
from verbalize.agents.expert import PARTS, GameSet, tasks_of
from verbalize.agents.policies import ExpertPolicy
from verbalize.agents.pool import EnvironmentPool, LocalEnvironments, PoolConfig
from verbalize.agents.rollouts import Situation, roll_out
from verbalize.agents.scienceworld_bench import ScienceWorldBench
from verbalize.agents.scienceworld_env import NOTHING, ScienceWorld, ScienceWorldEnvironment, bounded
from verbalize.agents.scienceworld_simulator import SimulatorConfig, SimulatorLostError, families
from verbalize.agents.scienceworld_tasks import science_task, variations, walkthrough

PATIENT = SimulatorConfig(step_timeout=120.0, start_timeout=240.0)


@pytest.fixture(scope="module")
def simulator() -> None:
    """A named skip without Java or the package, a failure where services are required."""
    for what, there in (
        ("java not installed", shutil.which("java")),
        ("scienceworld not installed (pip install 'verbalize[agents]')", importlib.util.find_spec("scienceworld")),
    ):
        if not there:
            if os.environ.get("VERBALIZE_REQUIRE_SERVICES") == "1":
                pytest.fail(f"{what}, and VERBALIZE_REQUIRE_SERVICES=1 requires it")
            pytest.skip(what)


@pytest.fixture(scope="module")
def folder(simulator: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scienceworld")


@pytest.fixture(scope="module")
def world(simulator: None) -> Iterator[ScienceWorldEnvironment]:
    environment = ScienceWorld(PATIENT)()
    yield environment
    environment.close()


def reaches(pid: int | None, states: str, seconds: float = 20.0) -> bool:
    """Whether the process is soon in one of these states ("T" stopped, "Z" ended and not yet reaped, "X" gone)."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            state = "X"
        if state in states:
            return True
        time.sleep(0.05)
    return False


def test_the_simulators_own_solution_wins(world: ScienceWorldEnvironment, folder: Path) -> None:
    task = science_task("find-living-thing", 0)
    solution = walkthrough(task, folder, PATIENT)
    (episode,) = roll_out(
        LocalEnvironments(lambda: world), ExpertPolicy(lambda task: walkthrough(task, folder)), [task]
    )
    assert episode.success and episode.reward == pytest.approx(1.0) and not episode.truncated
    assert [turn.action for turn in episode.turns] == solution[: len(episode.turns)]
    assert episode.goal.startswith("Your task is to find a(n) living thing.")
    assert episode.turns[0].observation.startswith(episode.goal)
    assert sum(turn.reward > 0 for turn in episode.turns) > 1  # graded on the way
    assert world.admissible() == [] and world.step("look around") == (NOTHING, True)


def test_only_understood_actions_change_the_world(world: ScienceWorldEnvironment) -> None:
    task = science_task("find-living-thing", 0, difficulty=2)
    first = world.reset(task)
    before = world.admissible()
    assert before == sorted(set(before)) and 50 < len(before) <= PATIENT.max_admissible
    assert "reset task" not in before and "open door to kitchen" in before
    for action in ("sing a song", "reset task", "", "pick up nothing"):
        _, over = world.step(action)
        assert not over
    assert world.step("focus on door")[0].startswith("Ambiguous request")
    assert world.step("0")[0] != "" and world.admissible() == before  # the question was withdrawn
    assert world.reward() == 0.0
    world.step("open door to kitchen")
    assert "close door to kitchen" in world.admissible()
    # What is listed is understood, and the wrong focus ends the task in failure.
    assert "matches" not in world.step("pick up orange")[0]
    assert world.step("focus on picture")[1] and world.reward() == 0.0
    assert world.reset(task) == first and world.admissible() == before


def test_splits_are_the_simulators(folder: Path) -> None:
    parts = {split: variations("boil", split, folder, PATIENT) for split in ("train", "dev", "test")}
    together = [*parts["train"], *parts["dev"], *parts["test"]]
    assert sorted(together) == list(range(len(together))) and all(parts.values())
    assert min(parts["test"]) > max(parts["dev"]) > max(parts["train"])


def test_parts_of_a_study_share_no_variation(folder: Path) -> None:
    bench, kind = ScienceWorldBench(folder, PATIENT), GameSet("lifespan-longest-lived", 1, 20)
    seeds = {part: [task.seed for task in tasks_of(bench, [kind], part, 5)] for part in PARTS}
    together = [seed for part in seeds.values() for seed in part]
    assert len(set(together)) == len(together) == 25
    for part, split in (("train", "train"), ("bank", "train"), ("selection", "dev"), ("test", "test")):
        assert set(seeds[part]) <= set(variations(kind.family, split, folder, PATIENT))
    with pytest.raises(InputError, match=r"games\.selection = 17 or more: .* has 16 variations"):
        tasks_of(bench, [kind], "selection", 17)


def test_lost_simulators_are_replayed_and_none_is_left(world: ScienceWorldEnvironment, folder: Path) -> None:
    task = science_task("find-living-thing", 0, max_steps=4)
    plan = walkthrough(science_task("find-living-thing", 0), folder, PATIENT)[:4]
    expected = play(world, task, plan)
    pids: list[int] = []
    limits = PoolConfig(size=1, step_timeout=240.0, start_timeout=500.0)
    with EnvironmentPool(ScienceWorld(PATIENT), limits) as pool:

        class Assassin(ExpertPolicy):
            def act(self, situations: Sequence[Situation]) -> list[str]:
                if situations[0].turn == 2:
                    os.kill(pool.pids[0], signal.SIGKILL)
                actions = super().act(situations)
                pids.extend(java_under(pool.pids[0]))
                return actions

        (episode,) = roll_out(pool, Assassin(lambda task: plan), [task])
        assert pool.restarted == 1
        pids.extend(java_under(pool.pids[0]))
    assert [turn.observation for turn in episode.turns] == [view.observation for view in expected[:-1]]
    assert [turn.admissible for turn in episode.turns] == [view.admissible for view in expected[:-1]]
    assert len(set(pids)) == 2 and all(reaches(pid, "ZX") for pid in pids)


def test_a_hung_simulator_is_killed(world: ScienceWorldEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    world.reset(science_task("find-living-thing", 0))
    pid = world.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    assert reaches(pid, "T")  # until then its other threads may still answer
    monkeypatch.setattr(world, "_config", SimulatorConfig(step_timeout=0.5))
    begun = time.monotonic()
    with pytest.raises(SimulatorLostError, match=r"did not answer in 0\.5 s"):
        world.step("look around")
    assert time.monotonic() - begun < 60 and reaches(pid, "ZX")


def java_under(pid: int | None) -> list[int]:
    """The simulators that a process has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in children.read_text().split()] if children.exists() else []


actions = st.lists(st.tuples(st.text("abc ", min_size=1, max_size=5), st.integers(0, 4), st.integers(0, 2)))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(actions, st.integers(1, 12))
def test_lists_are_bounded_and_fair(valid: list[tuple[str, int, int]], limit: int) -> None:
    # An action belongs to one template, as in the simulator.
    valid = list({action: (action, template, objects) for action, template, objects in valid}.values())
    found = bounded(valid, limit)
    assert found == sorted(found) and len(found) == min(limit, len(valid))
    assert found == bounded(valid[::-1], limit)
    simple = {action for action, _, objects in valid if objects < 2}
    assert simple <= set(found) or set(found) <= simple
    counts = {}
    for action, template, objects in valid:
        if objects > 1 and len(simple) < limit:
            here, all_of = counts.setdefault(template, [0, 0])
            counts[template] = [here + (action in found), all_of + 1]
    for here, all_of in counts.values():
        assert here == all_of or here >= max(other for other, _ in counts.values()) - 1
    assert set(found) <= set(bounded(valid, limit + 1))


def test_bad_tasks_are_refused(simulator: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(families()) == 30
    with pytest.raises(InputError, match=r"family 'chess'.*is not one of boil"):
        science_task("chess", 0)
    with pytest.raises(InputError, match="1 \\(simplified\\) or 2"):
        science_task("boil", 0, difficulty=3)
    with pytest.raises(InputError, match="split 'all'"):
        variations("boil", "all", Path("nowhere"))
    with pytest.raises(InputError, match="call reset"):
        ScienceWorld()().goal()
    monkeypatch.setattr(scienceworld_simulator.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"java.*is not installed"):
        ScienceWorld()().reset(science_task("boil", 0))
