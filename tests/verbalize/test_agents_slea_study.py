"""The study: equal games for every arm, resumption, what it may claim, and the recipe that is shipped."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from agents_worlds import Ladder, need_textworld
from experience_helpers import named_vectors
from slea_helpers import EXPERIENCE, LORA, SLEA, TRAINING, ladders, tiny_agent
from tiny_run import model_with_chat

from recsys.errors import InputError
from recsys.models.chat import encode_chat
from recsys.models.loading import load_tokenizer
from recsys.models.tokenisation import encode_text
from verbalize.agents.agent_trainer_turns import ActingSettings, TurnPolicy, fitted_ids
from verbalize.agents.chats import ChatFormat, prompt
from verbalize.agents.environment import Turn, play
from verbalize.agents.evaluation import Cell, GameOutcome
from verbalize.agents.expert import TextWorldBench
from verbalize.agents.pool import LocalEnvironments
from verbalize.agents.rollouts import Situation, roll_out
from verbalize.agents.slea_acting import judged_policy
from verbalize.agents.slea_report import result_of
from verbalize.agents.slea_settings import RANDOM, START, ArmConfig
from verbalize.agents.slea_study import (
    Config,
    Games,
    TaskSets,
    WarmStart,
    claims_of,
    compare_arms,
    start_tasks,
    task_sets,
)
from verbalize.agents.study import load_study
from verbalize.agents.textworld_env import NOTHING
from verbalize.pipeline import Silent

RECIPE = Path(__file__).parents[2] / "experiments" / "agents" / "slea.yaml"
SETS = TaskSets(ladders(2), ladders(1, first=10), ladders(3, first=20))
NO_GAMES = (Games("coin", 1, 1),)


class Closed(LocalEnvironments):
    """Environments that must not be needed."""

    def advance(self, moves: object) -> dict[int, object]:  # type: ignore[override]
        raise AssertionError("played again")


def study_of(name: str, arms: dict[str, ArmConfig], **changes: object) -> Config:
    games = {"train": NO_GAMES, "development": NO_GAMES, "test": NO_GAMES}
    return Config(name=name, arms=arms, **(games | changes))


def config(model: Path, **changes: object) -> Config:
    arms = {"grpo": ArmConfig(), "slea": SLEA}
    training = replace(TRAINING, environment_steps=30)
    made = study_of("tiny", arms, model=str(model), seeds=(0, 1), training=training)
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


RUN = {"development": [[0, 0.7]], "environment_steps": 30, "lessons_by_rules": 0, "lessons_by_model": 0, "shown": 0.0}


def test_claims_need_games_and_seeds() -> None:
    made = study_of("tiny", {"grpo": ArmConfig(), "slea": SLEA}, test=(Games("coin", 1, 100),))
    result = result_of(made, cells(100, 3, {"grpo": 40, "slea": 55}), {"grpo/0": RUN, "slea/0": RUN})
    (claim,) = result.claims
    assert (claim.id, claim.a, claim.b, claim.target) == ("agents.slea_vs_grpo", "slea", "grpo", 0.0)
    assert result.values is not None and len(result.values) == 600
    found = result.facts["differences"]["slea - grpo"]
    assert found["value"] == pytest.approx(0.15) and 0 < found["low"] < 0.15 < found["high"]
    assert result.facts["detectable"]["slea - grpo"] == pytest.approx((found["high"] - found["low"]) / 1.4, abs=1e-5)
    smallest = result.facts["detectable"]["slea - grpo"]
    assert claim.note.startswith("development: the start wins 0.70: outside the range 0.20 to 0.60; ")
    assert f"{smallest:.3f} is the smallest difference found" in claim.note
    few = replace(made, test=(Games("coin", 1, 99),))
    assert result_of(few, cells(99, 3, {"grpo": 40, "slea": 55}), {}).claims == ()
    two = replace(made, seeds=(0, 1))
    assert result_of(two, cells(100, 2, {"grpo": 40, "slea": 55}), {}).values is None
    alone = result_of(replace(made, only=("slea",)), cells(100, 3, {"slea": 55}), {})
    assert alone.claims == () and alone.facts["differences"] == {}


def test_the_shipped_recipe_keeps_its_games_apart() -> None:
    study = load_study(RECIPE)
    assert isinstance(study.config, Config)
    sets = task_sets(study.config)
    ids = [{task.id for task in part} for part in (sets.train, sets.development, sets.test, start_tasks(study.config))]
    assert len(ids[2]) >= 100 and len(study.config.seeds) >= 3
    assert sum(map(len, ids)) == len(set().union(*ids))
    assert [claim.id.removeprefix("agents.") for claim in claims_of(study.config)] == [
        "slea_vs_grpo",
        "slea_vs_gigpo",
        "gigpo_vs_grpo",
        "slea_vs_retrieval",
        "retrieval_vs_grpo",
    ]
    assert ids[3]
    assert len(sets.train) % study.config.training.games_per_batch == 0
    methods = {name: (arm.credit, arm.retrieval) for name, arm in study.config.arms.items()}
    assert methods["grpo"] == ("episode", False) and methods["gigpo"] == ("anchor", False)
    assert methods["retrieval"] == ("episode", True) and methods["slea"] == ("cluster", True)


def test_some_arms_may_be_left_to_a_later_run() -> None:
    arms = {"grpo": ArmConfig(), "gigpo": ArmConfig(credit="anchor"), "slea": SLEA}
    made = study_of("x", arms, test=(Games("coin", 1, 100),))
    assert made.chosen == ["grpo", "gigpo", "slea"]
    assert [claim.target for claim in claims_of(made)] == [0.0, -0.05, None]
    part = replace(made, only=("slea", "grpo"))
    assert part.chosen == ["grpo", "slea"] and [claim.b for claim in claims_of(part)] == ["grpo"]
    with pytest.raises(InputError, match="names arms of the study: grpo, gigpo, slea"):
        replace(made, only=("retrieval",))


def test_lessons_by_the_model_are_claimed_apart_from_those_by_rules() -> None:
    by_model = replace(SLEA, extraction="model")
    made = study_of("x", {"grpo": ArmConfig(), "slea": SLEA, "slea_model": by_model}, test=(Games("coin", 1, 100),))
    assert [(claim.id, claim.target) for claim in claims_of(made)] == [
        ("agents.slea_vs_grpo", 0.0),
        ("agents.slea_model_vs_slea", None),
        ("agents.slea_model_vs_grpo", None),
    ]
    pair = replace(made, only=("slea", "slea_model"))  # looks at other pairs keep what is recorded of them
    (claim,) = claims_of(pair)
    assert "lessons by the model itself" in claim.statement and (claim.a, claim.b) == ("slea_model", "slea")
    result = result_of(pair, cells(100, 3, {"slea": 40, "slea_model": 37}), {"slea/0": RUN, "slea_model/0": RUN})
    assert result.facts["differences"]["slea_model - slea"]["value"] == pytest.approx(-0.03)


def test_the_judged_policy_is_the_trained_one(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Keys kept from turn to turn, prompts that lose their oldest turns included: the same episodes."""
    policy = tiny_agent(model_with_chat(tiny_model_dir, tmp_path / "model"))
    tasks = ladders(3, difficulty=5, max_steps=7)
    lengths: list[int] = []

    class Watched(TurnPolicy):
        def act(self, situations: Sequence[Situation]) -> list[str]:
            lengths.extend(len(encode_chat(self.tokenizer, s.chat, True)) for s in situations)
            return super().act(situations)

    def memory(situations: Sequence[Situation]) -> list[str]:
        return [f"## What to avoid\n- step {s.turn // 2}" for s in situations]

    for shown in (None, memory):
        settings = ActingSettings(temperature=0.0, per_token=True, prompt_budget=240)
        trained = Watched(policy.model, policy.tokenizer, settings)
        judged = judged_policy(policy.model, policy.tokenizer, settings)
        assert not isinstance(judged, TurnPolicy)
        played = [roll_out(LocalEnvironments(Ladder(), 2), acting, tasks, None, shown) for acting in (trained, judged)]
        assert played[0] == played[1]
    assert max(lengths) > 240 > min(lengths), "some prompts were cut, some were not"


@pytest.mark.real_model
def test_the_shipped_games_fit_into_the_prompt(smollm2_dir: Path, tmp_path: Path) -> None:
    """The longest prompt that cannot be shortened: full memory, the first observation and a look around."""
    need_textworld()
    config = load_study(RECIPE).config
    kinds = {(games.family, games.difficulty, games.max_steps) for games in (*config.train, *config.test)}
    tasks = [task for kind in sorted(kinds) for task in Games(kind[0], kind[1], 3, 0, kind[2]).tasks()]
    bench = TextWorldBench(tmp_path / "games", 2)
    bench.prepare(tasks)
    tokenizer = load_tokenizer(str(smollm2_dir))
    memory = " the" * config.training.memory_budget
    assert len(encode_text(tokenizer, memory)) == config.training.memory_budget
    world = bench.make()
    for task in tasks:
        first, looked = play(world, task, ["look"])
        assert looked.observation != NOTHING
        turn = Turn(first.observation, first.admissible, "look", 0.0)
        chat = prompt([turn], looked.observation, looked.admissible, ChatFormat(), memory)
        assert len(encode_chat(tokenizer, chat, True)) <= config.training.prompt_budget, task.id
        whole = prompt([turn] * task.max_steps, looked.observation, None, ChatFormat(), memory)
        assert fitted_ids(tokenizer, whole, config.training.prompt_budget)
    world.close()


def test_test_games_must_be_new() -> None:
    with pytest.raises(InputError, match="test game coin-1-3"):
        start = WarmStart((Games("coin", 1, 4),))
        task_sets(study_of("x", {"grpo": ArmConfig()}, test=(Games("coin", 1, 1, 3),), warm_start=start))
    with pytest.raises(InputError, match="both say where the arms start"):
        study_of("x", {"grpo": ArmConfig()}, adapter="a", warm_start=WarmStart(NO_GAMES))
    with pytest.raises(InputError, match="test game coin-1-4"):
        task_sets(
            study_of(
                "x",
                {"grpo": ArmConfig()},
                train=(Games("coin", 1, 5),),
                development=(Games("coin", 1, 1, 9),),
                test=(Games("coin", 1, 3, 4),),
            )
        )
