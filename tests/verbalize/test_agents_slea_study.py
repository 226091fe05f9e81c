"""The study: equal games for every arm, resumption, what it may claim, and the recipe that is shipped."""

from dataclasses import replace
from pathlib import Path

import pytest
from agents_worlds import Ladder
from experience_helpers import named_vectors
from slea_helpers import EXPERIENCE, LORA, SLEA, TRAINING, ladders
from tiny_run import model_with_chat

from recsys.errors import InputError
from verbalize.agents.evaluation import Cell, GameOutcome
from verbalize.agents.pool import LocalEnvironments
from verbalize.agents.slea_settings import ArmConfig
from verbalize.agents.slea_study import RANDOM, START, Config, Games, TaskSets, compare_arms, result_of, task_sets
from verbalize.agents.study import load_study
from verbalize.pipeline import Silent

RECIPE = Path(__file__).parents[2] / "experiments" / "agents" / "slea.yaml"
SETS = TaskSets(ladders(2), ladders(1, first=10), ladders(3, first=20))
NO_GAMES = (Games("coin", 1, 1),)


class Closed(LocalEnvironments):
    """Environments that must not be needed."""

    def advance(self, moves: object) -> dict[int, object]:  # type: ignore[override]
        raise AssertionError("played again")


def config(model: Path, **changes: object) -> Config:
    arms = {"grpo": ArmConfig(), "slea": SLEA}
    training = replace(TRAINING, environment_steps=30)
    made = Config("tiny", arms, NO_GAMES, NO_GAMES, NO_GAMES, str(model), seeds=(0, 1), training=training)
    return replace(made, **({"lora": LORA, "experience": EXPERIENCE} | changes))


def test_every_arm_plays_the_same_games_and_nothing_twice(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = model_with_chat(tiny_model_dir, tmp_path / "model")
    arguments = SETS, LocalEnvironments(Ladder(), 4), named_vectors, tmp_path / "study", Silent(), "verbalize agents"
    result = compare_arms(config(model), *arguments)
    facts = result.facts
    assert set(facts["success"]) == {RANDOM, START, "grpo", "slea"}
    assert facts["success"]["slea"]["n"] == 3 and facts["success"]["slea"]["seeds"] == 2
    assert set(facts["runs"]) == {"grpo/0", "grpo/1", "slea/0", "slea/1"}
    for run in facts["runs"].values():
        assert 30 <= run["environment_steps"] < 30 + 2 * 4 * 6
        assert run["development"][0][0] == 0 and run["development"][-1][0] == run["environment_steps"]
    assert facts["runs"]["slea/0"]["clusters"] > 0 == facts["runs"]["grpo/0"]["clusters"]
    assert result.claims == () and result.values is None  # three games carry no claim
    again = compare_arms(config(model), SETS, Closed(Ladder()), named_vectors, *arguments[3:])
    assert again == result
    with pytest.raises(AssertionError, match="played again"):  # only what depends on a changed option
        compare_arms(
            config(model, experience=replace(EXPERIENCE, compact_segments=65)),
            SETS,
            Closed(Ladder()),
            named_vectors,
            *arguments[3:],
        )
    assert len(list((tmp_path / "study" / "runs").iterdir())) == 5


def cells(games: int, seeds: int, wins: dict[str, int]) -> dict[tuple[str, int], Cell]:
    def won(count: int) -> Cell:
        return Cell(tuple(GameOutcome(f"g{n}", "coin", 1, n < count, 0.0, 3, 0, False) for n in range(games)), 1.0)

    return {(arm, seed): won(count) for arm, count in wins.items() for seed in range(seeds)}


def test_claims_need_games_and_seeds() -> None:
    made = Config("tiny", {"grpo": ArmConfig(), "slea": SLEA}, NO_GAMES, NO_GAMES, NO_GAMES)
    result = result_of(made, cells(100, 3, {"grpo": 40, "slea": 55}), {})
    (claim,) = result.claims
    assert (claim.id, claim.a, claim.b, claim.target) == ("agents.slea_vs_grpo", "slea", "grpo", 0.0)
    assert result.values is not None and len(result.values) == 600
    found = result.facts["differences"]["slea - grpo"]
    assert found["value"] == pytest.approx(0.15) and 0 < found["low"] < 0.15 < found["high"]
    assert result_of(made, cells(99, 3, {"grpo": 40, "slea": 55}), {}).claims == ()
    two = replace(made, seeds=(0, 1))
    assert result_of(two, cells(100, 2, {"grpo": 40, "slea": 55}), {}).values is None


def test_the_shipped_recipe_keeps_its_games_apart() -> None:
    study = load_study(RECIPE)
    assert isinstance(study.config, Config)
    sets = task_sets(study.config)
    ids = [{task.id for task in part} for part in (sets.train, sets.development, sets.test)]
    assert len(ids[2]) >= 100 and len(study.config.seeds) >= 3
    assert sum(map(len, ids)) == len(set().union(*ids))
    assert len(sets.train) % study.config.training.games_per_batch == 0
    methods = {name: (arm.credit, arm.retrieval) for name, arm in study.config.arms.items()}
    assert methods["grpo"] == ("episode", False) and methods["gigpo"] == ("anchor", False)
    assert methods["retrieval"] == ("episode", True) and methods["slea"] == ("cluster", True)


def test_test_games_must_be_new() -> None:
    with pytest.raises(InputError, match="test game coin-1-4"):
        task_sets(
            Config(
                "x", {"grpo": ArmConfig()}, (Games("coin", 1, 5),), (Games("coin", 1, 1, 9),), (Games("coin", 1, 3, 4),)
            )
        )
