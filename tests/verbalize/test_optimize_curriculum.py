"""The curriculum by group variance: its draws as mathematics, and what they do to a training run and its resumption."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from conftest import Workshop
from hypothesis import given, settings
from hypothesis import strategies as st
from optimize_helpers import CARD, make_inputs, pays_for_even_events, tiny_policy
from safetensors.torch import load_file
from tiny_run import COMMAND, recipe_of
from tiny_run import run as run_whole

from recsys.errors import InputError
from recsys.models.settings import LoraSettings
from recsys.storage import read_json, read_parquet
from verbalize.optimize.checkpoints import last_complete
from verbalize.optimize.curriculum import (
    STATE,
    Curriculum,
    draw_probabilities,
    effective_number,
    smoothed_variances,
    systematic_draw,
)
from verbalize.optimize.curriculum_settings import CurriculumConfig
from verbalize.optimize.curves import Curves
from verbalize.optimize.drawn_prompts import DrawnPrompts
from verbalize.optimize.rewards import Scored
from verbalize.optimize.settings import LimitsConfig, PreferenceConfig, TrainConfig
from verbalize.optimize.train_actions import train_actions
from verbalize.optimize.training import Job
from verbalize.pipeline import stage_keys
from verbalize.stages import stages_of
from verbalize.verbalizers.actions import ActionConfig

ACTIONS = ActionConfig(instruction="Choose.", show_age_in_prompt=False)
FREE = LimitsConfig(max_kl=None, min_entropy=None, max_dead_groups=None)
CONFIG = TrainConfig(
    steps=6, prompts_per_step=2, group_size=4, learning_rate=3e-3, save_every=2, curriculum=CurriculumConfig()
)
ROWS = [{"example_id": f"e{place}", "prompt": str(place)} for place in range(4)]

variances = st.lists(st.floats(0, 1e3), min_size=1, max_size=12).map(np.array)
floors = st.floats(0.01, 1.0)


def run(tiny_model_dir, folder, config=CONFIG, score=pays_for_even_events, count=5, **options):
    job = Job(
        tiny_policy(tiny_model_dir),
        make_inputs(count),
        config,
        folder,
        CARD,
        LoraSettings(rank=8, alpha=16, mlp=True),
        FREE,
        **options,
    )
    return train_actions(job, score, ACTIONS)


@given(variances, floors)
def test_every_prompt_keeps_its_floor_and_the_rest_follows_the_variance(values: np.ndarray, floor: float) -> None:
    drawn = draw_probabilities(values, floor)
    assert drawn.sum() == pytest.approx(1) and (drawn >= floor / len(values) - 1e-12).all()
    assert 1 - 1e-9 <= effective_number(drawn) <= len(values) + 1e-9
    if values.sum() > 0:
        above = drawn - floor / len(values)
        np.testing.assert_allclose(above, (1 - floor) * (values / values.sum()), atol=1e-9)
    else:
        np.testing.assert_allclose(drawn, 1 / len(values))


@given(variances, st.integers(1, 20), st.floats(0, 1, exclude_max=True), st.randoms())
def test_a_step_repeats_a_prompt_no_more_than_its_probability_asks(
    values: np.ndarray, count: int, offset: float, random
) -> None:
    probabilities = draw_probabilities(values, 0.2)
    order = np.array(random.sample(range(len(values)), len(values)))
    found = np.bincount(systematic_draw(probabilities, count, offset, order), minlength=len(values))
    assert found.sum() == count
    assert (found >= np.floor(count * probabilities - 1e-9)).all()
    assert (found <= np.ceil(count * probabilities + 1e-9)).all()


@settings(max_examples=30)
@given(variances, floors, st.integers(1, 6), st.data())
def test_weighted_draws_are_unbiased_and_weights_are_bounded_by_the_floor(
    values: np.ndarray, floor: float, count: int, data: st.DataObject
) -> None:
    """Over all offsets the weighted mean of any function of the prompt is its plain mean over all prompts."""
    gradients = np.array(data.draw(st.lists(st.floats(-5, 5), min_size=len(values), max_size=len(values))))
    probabilities = draw_probabilities(values, floor)
    weights = 1 / (len(values) * probabilities)
    assert weights.max() <= 1 / floor + 1e-9
    offsets = (np.arange(4000) + 0.5) / 4000
    order = np.arange(len(values))
    drawn = np.concatenate([systematic_draw(probabilities, count, offset, order) for offset in offsets])
    expected = gradients.mean()
    # An offset on the wrong side of one of the N ends moves one of the draws: an error of the order of N / 4000.
    assert (weights[drawn] * gradients[drawn]).mean() == pytest.approx(expected, abs=20 * len(values) / floor / 4000)


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 5)), min_size=1, max_size=8), st.floats(0.1, 10))
def test_an_estimate_lies_between_the_prompts_own_mean_and_that_of_all(
    seen: list[tuple[float, int]], smoothing: float
) -> None:
    means, counts = np.array([mean for mean, _ in seen]), np.array([float(count) for _, count in seen])
    sums = means * counts
    found = smoothed_variances(sums, counts, smoothing)
    total = sums.sum() / counts.sum() if counts.sum() else 0.0
    own = np.where(counts > 0, means, total)
    assert (found >= np.minimum(own, total) - 1e-9).all() and (found <= np.maximum(own, total) + 1e-9).all()


def test_prompts_whose_rollouts_agree_are_drawn_less_but_never_given_up() -> None:
    curriculum = Curriculum(ROWS, CurriculumConfig(floor=0.2), 0)
    assert curriculum.draw(0, 4).log["curriculum.effective_prompts"] == pytest.approx(4)
    assert sorted(curriculum.draw(0, 4).indices) == [0, 1, 2, 3]  # knowing nothing it repeats nothing
    for _ in range(20):
        curriculum.observe([0, 1, 2, 3], np.array([[0.0, 1.0]] + [[0.5, 0.5]] * 3))
    drawn = np.concatenate([curriculum.draw(step, 4).indices for step in range(200)])
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    assert shares[0] > 0.7 and (shares[1:] > 0.03).all()
    found = curriculum.draw(0, 4)
    assert found.log["curriculum.effective_prompts"] < 2 and found.log["curriculum.visited"] == 1
    assert (found.weights[found.indices == 0] < 1).all()


def test_what_was_long_ago_is_forgotten_at_the_rate_of_the_decay() -> None:
    """A prompt that is solved by now loses its weight, the sooner the smaller the decay."""
    shares = []
    for decay in (1.0, 0.5):
        curriculum = Curriculum(ROWS, CurriculumConfig(decay=decay), 0)
        for rewards in ([0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]):
            curriculum.observe([0], np.array([rewards]))
        curriculum.observe([1], np.array([[0.0, 0.5]]))
        estimates = smoothed_variances(curriculum.sums, curriculum.counts, 1.0)
        shares.append(estimates[0] / estimates.sum())
    assert shares[1] < shares[0]


def test_the_pool_counts_as_the_first_group_and_a_restored_state_draws_alike() -> None:
    pool = pl.DataFrame(
        {"example_id": ["e0", "e0", "e1", "e1", "other"], "candidate": list("ababa"), "reward": [0.0, 2.0, 1, 1, 5]}
    )
    curriculum = Curriculum(ROWS, CurriculumConfig(), 3, pool)
    assert curriculum.sums.tolist() == [2.0, 0, 0, 0] and curriculum.counts.tolist() == [1, 1, 0, 0]
    assert not curriculum.visits.any() and curriculum.digest() != Curriculum(ROWS, CurriculumConfig(), 3).digest()
    curriculum.observe([2, 0], np.array([[0.1, 0.7], [0.3, 0.31]]))
    again = Curriculum(ROWS, CurriculumConfig(), 3)
    again.restore(json.loads(json.dumps(curriculum.state())))
    for step in range(5):
        one, other = curriculum.draw(step, 3), again.draw(step, 3)
        assert one.indices.tolist() == other.indices.tolist() and one.log == other.log
        assert np.array_equal(one.weights, other.weights)


class _Scores:
    """The part of TRL's trainer around which prompts are drawn: what it was given to roll out, and advantages of 1."""

    def __init__(self) -> None:
        self.state = type("State", (), {"global_step": 0})()

    def _generate_and_score_completions(self, inputs):
        self.given = inputs
        return {"advantages": torch.ones(len(inputs))}


class _Drawing(DrawnPrompts, _Scores):
    pass


@pytest.mark.parametrize("unbiased", [True, False])
def test_prompts_take_their_places_and_weights_meet_their_own_advantages(unbiased: bool) -> None:
    curriculum = Curriculum(ROWS, CurriculumConfig(unbiased=unbiased), 0)
    curriculum.observe([1], np.array([[0.0, 1.0]]))
    curriculum.observe([0, 2, 3], np.zeros((3, 2)))
    trainer = _Drawing(curriculum=curriculum, prompts_per_step=3)
    outputs = trainer._generate_and_score_completions([{"place": place} for place in (0, 0, 1, 1, 2, 2)])
    drawn = curriculum.draw(0, 3)
    expected = [ROWS[index]["example_id"] for index in drawn.indices for _ in range(2)]
    assert [row["example_id"] for row in trainer.given] == expected
    weights = np.repeat(drawn.weights, 2) if unbiased else np.ones(6)
    np.testing.assert_allclose(outputs["advantages"], weights, rtol=1e-6)
    assert unbiased == (outputs["advantages"].unique().numel() > 1)


def test_training_rolls_out_what_the_state_asks_for_and_logs_it(tiny_model_dir, tmp_path) -> None:
    """Three of four histories are paid alike whatever is written: their groups are dead, and drawn less and less."""

    def only_the_first(ids, texts):
        paid = pays_for_even_events(ids, texts)
        return [one if key == "e0" else Scored(0.5, one.components) for key, one in zip(ids, paid, strict=True)]

    config = replace(CONFIG, steps=20, save_every=10, curriculum=CurriculumConfig(floor=0.2))
    run(tiny_model_dir, tmp_path, config, only_the_first, count=4)
    tables = [tmp_path / "rollouts" / f"step-{step:05d}.jsonl" for step in range(20)]
    rolled = [[json.loads(line) for line in table.read_text().splitlines()] for table in tables]
    first = [sum(row["example_id"] == "e0" for row in rows) / len(rows) for rows in rolled]
    assert np.mean(first[10:]) > 0.5  # uniform draws would give a quarter
    assert {row["example_id"] for rows in rolled for row in rows} == {"e0", "e1", "e2", "e3"}
    # The rollouts written beside it are all the state follows from.
    again = Curriculum([{"example_id": f"e{place}"} for place in range(4)], config.curriculum, config.seed)
    for step, rows in enumerate(rolled):
        drawn = again.draw(step, 2).indices.tolist()
        assert [row["example_id"] for row in rows[::4]] == [f"e{index}" for index in drawn]
        again.observe(drawn, np.array([row["reward"] for row in rows], dtype=np.float32).reshape(2, 4).astype(float))
    kept = read_json(tmp_path / "checkpoint-20" / STATE)
    assert {name: pytest.approx(values) for name, values in again.state().items()} == kept
    records = Curves(tmp_path / "curves.jsonl").of_kind("train")
    effective = [record["curriculum.effective_prompts"] for record in records]
    assert effective[0] == 4 and effective[-1] < 3 and records[-1]["curriculum.visited"] == 1
    assert all("groups.dead_groups" in record for record in records)


def test_killed_and_resumed_equals_uninterrupted(tiny_model_dir, tmp_path) -> None:
    """SIGKILL in step 5, after rollouts that the checkpoint of step 4 knows nothing of: same draws, weights, curves."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(tiny_model_dir, whole)
    script = (
        "import os, signal, sys; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
        "import test_optimize_curriculum as t\n"
        "kill = lambda r: r['kind'] == 'train' and r['step'] == 5 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "t.run(Path(sys.argv[1]), Path(sys.argv[2]), on_step=kill)\n"
    )
    command = [sys.executable, "-c", script, str(tiny_model_dir), str(broken), str(Path(__file__).parent)]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    killed = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=300
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    checkpoint = last_complete(broken)
    assert checkpoint is not None and checkpoint.name == "checkpoint-4"
    assert read_json(checkpoint / STATE) != read_json(whole / "checkpoint-6" / STATE)
    run(tiny_model_dir, broken)
    assert read_json(broken / "checkpoint-6" / STATE) == read_json(whole / "checkpoint-6" / STATE)
    for step in range(6):
        name = f"rollouts/step-{step:05d}.jsonl"
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    expected = load_file(whole / "adapter" / "adapter_model.safetensors")
    for name, value in load_file(broken / "adapter" / "adapter_model.safetensors").items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=0)
    curves = [
        [{k: v for k, v in record.items() if k != "seconds"} for record in Curves(folder / "curves.jsonl").records]
        for folder in (whole, broken)
    ]
    assert curves[0] == curves[1]


def test_a_recipe_begins_with_its_pool_and_without_a_curriculum_no_key_changes(
    workshop: Workshop, store_copy: Path
) -> None:
    plain_stages = stages_of(recipe_of(workshop.values), COMMAND)
    assert "curriculum" not in next(stage.config for stage in plain_stages if stage.name == "train")["train"]
    asked = ("train.curriculum.floor=0.5", "seeds=[0]")
    stages = stages_of(recipe_of(workshop.values, *asked), COMMAND)
    keys, others = stage_keys(plain_stages), stage_keys(stages)
    assert {name for name in keys if keys[name] != others[name]} == {"train", "evaluate", "report"}
    assert "pool" in next(stage.needs for stage in stages if stage.name == "train")
    cold = stages_of(recipe_of(workshop.values, "warm_start=null", *asked), COMMAND)
    assert "pool" not in [stage.name for stage in cold]

    trained = run_whole(workshop.values, store_copy, *asked, until="train")
    folder = trained.stages["train"] / "seed-0"
    rewards = read_parquet(trained.stages["pool"] / "rewards.parquet")
    ids = rewards["example_id"].unique(maintain_order=True).to_list()
    begun = Curriculum([{"example_id": key} for key in ids], CurriculumConfig(floor=0.5), 0, rewards)
    first = [json.loads(line) for line in (folder / "rollouts" / "step-00000.jsonl").read_text().splitlines()]
    assert [row["example_id"] for row in first[::4]] == [ids[index] for index in begun.draw(0, 2).indices]
    assert Curves(folder / "curves.jsonl").of_kind("train")[0]["curriculum.effective_prompts"] < len(ids)


def test_settings_refuse_what_cannot_work() -> None:
    for change in ({"floor": 0.0}, {"floor": 1.5}, {"smoothing": 0.0}, {"decay": 0.0}, {"decay": 1.1}):
        with pytest.raises(InputError, match=f"train.curriculum.{next(iter(change))}"):
            CurriculumConfig(**change)
    with pytest.raises(InputError, match=r"train\.curriculum.*belongs to GRPO"):
        PreferenceConfig().check(CONFIG)
