"""End to end with the real model as policy and as recommender: two steps on two prompts."""

from pathlib import Path

import polars as pl
import pytest
from optimize_helpers import CARD, make_inputs

from recsys.models.loading import load_language_model
from recsys.recommenders.language import LanguageRecommenderConfig, build_language_recommender
from verbalize.optimize.policy import ActionPolicyVerbalizer
from verbalize.optimize.rewards import ConfiguredReward, RewardConfig
from verbalize.optimize.scoring import RewardScorer
from verbalize.optimize.settings import TrainConfig
from verbalize.optimize.train_actions import train_actions
from verbalize.optimize.training import Job, Validation
from verbalize.optimize.traits import text_traits
from verbalize.verbalizers.actions import ActionConfig
from verbalize.verbalizers.base import Verbalizer


@pytest.mark.real_model
def test_smollm2_trains_against_smollm2(smollm2_dir: Path, tmp_path: Path) -> None:
    inputs = make_inputs(2)
    titles = ["Toy Story", "Heat", "Casino", "Babe", "Clueless", "Braveheart"]
    catalogue = {str(number): title for number, title in enumerate(titles)}
    slates = pl.DataFrame(
        {
            "example_id": ["e0", "e0", "e1", "e1"],
            "slate_index": [0, 1, 0, 1],
            "slate": [["0", "1", "2"], ["3", "0", "4"], ["5", "1", "3"], ["2", "5", "0"]],
            "target_index": [0, 1, 0, 1],
        },
        schema_overrides={"slate_index": pl.Int32, "target_index": pl.Int32},
    )
    recommender = build_language_recommender(LanguageRecommenderConfig(model=str(smollm2_dir)), catalogue)
    policy = load_language_model(str(smollm2_dir))
    traits = text_traits(inputs, policy.tokenizer, titles)
    score = RewardScorer(recommender, slates, ConfiguredReward(RewardConfig(kind="margin", slates=2)), traits)
    records = []
    config = TrainConfig(steps=2, prompts_per_step=2, group_size=4, save_every=2, eval_every=2, beta=0.01)
    validation = Validation(inputs, score)
    result = train_actions(
        Job(policy, inputs, config, tmp_path, CARD, validation=validation, on_step=records.append), score
    )
    assert result.steps == 2 and result.best_reward >= result.start_reward
    train = [record for record in records if record["kind"] == "train"]
    assert all(record["grad_norm"] > 0 and record["entropy"] > 0.1 for record in train)
    assert train[0]["kl"] == pytest.approx(0, abs=1e-5) and train[1]["kl"] > 0
    assert all(record["component.faithful"] == 1 for record in train)  # executed actions only write what was watched
    assert isinstance(ActionPolicyVerbalizer(policy, ActionConfig()), Verbalizer)
