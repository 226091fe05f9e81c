"""Rewrites through TRL's stock generation: budgets, hostile contents, a few steps, resumption of the same code path."""

import json
from dataclasses import replace

from optimize_helpers import CARD, make_inputs, tiny_policy

from recsys.models.chat import install_chat_template
from recsys.models.settings import LoraSettings
from recsys.storage import read_json
from verbalize.optimize.curriculum_settings import CurriculumConfig
from verbalize.optimize.curves import Curves
from verbalize.optimize.rewards import Scored
from verbalize.optimize.rewrite_trainer import texts_of, train_rewrites
from verbalize.optimize.settings import LimitsConfig, TrainConfig
from verbalize.optimize.training import Job, Validation
from verbalize.verbalizers.rewrite import RewriteConfig, prompt_ids, rewrite_messages

REWRITE = RewriteConfig(instruction="Summarise.", prompt_tokens=300, max_new_tokens=6)
CONFIG = TrainConfig(steps=3, prompts_per_step=2, group_size=2, learning_rate=1e-3, save_every=2, eval_every=3)
FREE = LimitsConfig(max_kl=None, min_entropy=None, max_dead_groups=None)


def pays_for_length(example_ids, texts):
    return [Scored(len(text) / 100, {"hit": 0.0, "characters": float(len(text))}) for text in texts]


def test_three_steps_within_the_budget(tiny_model_dir, tmp_path):
    lm = tiny_policy(tiny_model_dir)
    install_chat_template(lm.tokenizer)
    inputs = make_inputs(4, events=12)
    assert max(map(len, prompt_ids(rewrite_messages(inputs, REWRITE), lm.tokenizer))) > REWRITE.prompt_tokens

    validation = Validation(make_inputs(2), pays_for_length)
    job = Job(lm, inputs, CONFIG, tmp_path, CARD, LoraSettings(rank=4), FREE, validation)
    result = train_rewrites(job, pays_for_length, REWRITE)
    assert result.steps == 3 and result.best_reward >= result.start_reward
    train = Curves(tmp_path / "curves.jsonl").of_kind("train")
    assert [record["step"] for record in train] == [1, 2, 3]
    assert all(1 <= record["completion_length"] <= REWRITE.max_new_tokens for record in train)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists() and (
        tmp_path / "adapter" / "card.json"
    ).exists()
    rows = [json.loads(line) for line in (tmp_path / "rollouts" / "step-00000.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and {row["example_id"] for row in rows} <= set(inputs["example_id"])
    fresh = replace(lm, model=tiny_policy(tiny_model_dir).model)
    assert train_rewrites(replace(job, lm=fresh), pays_for_length, REWRITE) == result


def test_a_curriculum_draws_the_prompts_of_rewrites_too(tiny_model_dir, tmp_path):
    """Texts of the first example alone differ in what they are paid: its variance is all the state comes to hold."""
    lm = tiny_policy(tiny_model_dir)
    install_chat_template(lm.tokenizer)

    def pays_the_first(example_ids, texts):
        scored = pays_for_length(example_ids, texts)
        return [
            one if key == "e0" else Scored(0.0, one.components) for key, one in zip(example_ids, scored, strict=True)
        ]

    config = replace(CONFIG, steps=6, save_every=6, group_size=4, curriculum=CurriculumConfig(floor=0.2))
    job = Job(lm, make_inputs(4), config, tmp_path, CARD, LoraSettings(rank=4), FREE)
    assert train_rewrites(job, pays_the_first, REWRITE).steps == 6
    state = read_json(tmp_path / "checkpoint-6" / "curriculum.json")
    assert state["sums"][0] > 0 == sum(state["sums"][1:]) and sum(state["visits"]) == 6 * 2
    assert state["visits"][0] > 3  # uniform draws would come to three visits


def test_completions_are_cleaned_as_at_evaluation():
    completions = [[{"role": "assistant", "content": 'Profile: "Likes drama."<|im_end|>'}]]
    assert texts_of(["e"], completions, [[1]]) == ["Likes drama."]
