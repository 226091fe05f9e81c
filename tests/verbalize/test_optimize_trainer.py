"""GRPO on the slot policy: shared forwards, learning, resumption, limits, aborts."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from optimize_helpers import CARD, make_inputs, pays_for_even_events, tiny_policy
from safetensors.torch import load_file

from recsys.errors import InputError
from recsys.models.settings import LoraSettings
from verbalize.optimize.action_trainer import ActionGRPOTrainer
from verbalize.optimize.checkpoints import FiniteGradients, last_complete
from verbalize.optimize.curves import Curves
from verbalize.optimize.limits import broken_limit
from verbalize.optimize.policy import ActionPolicyVerbalizer, entropy
from verbalize.optimize.rewards import Scored
from verbalize.optimize.settings import LimitsConfig, TrainConfig
from verbalize.optimize.train_actions import train_actions
from verbalize.optimize.training import Job, Validation, prompt_order, trainable_policy
from verbalize.optimize.trl_settings import grpo_config
from verbalize.verbalizers.actions import ActionConfig, action_prompts

ACTIONS = ActionConfig(instruction="Choose.", show_age_in_prompt=False)
LORA = LoraSettings(rank=8, alpha=16, mlp=True)
FREE = LimitsConfig(max_kl=None, min_entropy=None, max_dead_groups=None)
CONFIG = TrainConfig(
    steps=6, prompts_per_step=2, group_size=4, learning_rate=3e-3, save_every=2, eval_every=2, beta=0.05
)


def run(tiny_model_dir, folder, config=CONFIG, score=pays_for_even_events, **options):
    validation = Validation(make_inputs(3), pays_for_even_events)
    options = {"limits": FREE, "validation": validation, "lora": LORA} | options
    return train_actions(
        Job(tiny_policy(tiny_model_dir), make_inputs(5), config, folder, CARD, **options), score, ACTIONS
    )


def adapter_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.fixture
def trainer(tiny_model_dir, tmp_path):
    lm = tiny_policy(tiny_model_dir)
    model = trainable_policy(lm, LORA, 0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # a fresh adapter changes nothing: give it something to say
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(3))
    policy = ActionPolicyVerbalizer(replace(lm, model=model), ACTIONS)
    rows = [{"prompt": prompt, "example_id": "e"} for prompt in action_prompts(make_inputs(4), ACTIONS)]
    made = ActionGRPOTrainer(
        model=model,
        reward_funcs=lambda completion_ids, **_: [float(ids[0] == ids[1]) for ids in completion_ids],
        args=grpo_config(replace(CONFIG, beta=0.0), tmp_path, 5),
        train_dataset=Dataset.from_list(rows),
        processing_class=lm.tokenizer,
        tokens=policy.tokens,
    )
    made.policy = policy
    return made


def test_loss_inputs_equal_each_rollout_computed_alone(trainer):
    """Padded, grouped and shared against one prompt at a time; padding gives 0."""
    _, prompts = trainer.policy.fit(make_inputs(2))  # 4 and 5 events
    alphabet = trainer.tokens.alphabet
    rollouts = [(0, [0, 1, 2, 3]), (1, [3, 3, 0, 0, 1]), (0, [2, 2, 2, 2]), (1, [0, 1, 0, 1, 0])]
    width = max(map(len, prompts))
    pad = trainer._tokenizer.pad_token_id
    ids, mask = [], []
    for which, actions in rollouts:
        prompt, completion = prompts[which], [alphabet[action] for action in actions]
        left, right = width - len(prompt), 5 - len(completion)
        ids.append([pad] * left + prompt + completion + [pad] * right)
        mask.append([0] * left + [1] * (len(prompt) + len(completion)) + [0] * right)
    logps, entropies, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model, torch.tensor(ids), torch.tensor(mask), 5, compute_entropy=True
    )
    assert logps.shape == entropies.shape == (4, 5)
    for row, (which, actions) in enumerate(rollouts):
        prompt = prompts[which]
        slots = [place for place, token in enumerate(prompt) if token == trainer.tokens.marker]
        logits = trainer.model(torch.tensor([prompt])).logits[0, slots][:, list(alphabet)]
        expected = logits.log_softmax(-1)
        chosen = expected[torch.arange(len(actions)), torch.tensor(actions)]
        torch.testing.assert_close(logps[row, : len(actions)], chosen, atol=1e-5, rtol=0)
        torch.testing.assert_close(entropies[row, : len(actions)], entropy(expected), atol=1e-5, rtol=0)
        assert logps[row, len(actions) :].abs().sum() == 0


def test_a_group_costs_one_forward_in_sampling_and_one_in_the_loss(trainer):
    rows = []
    handle = trainer.model.get_base_model().register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    trainer.args.max_steps = 1
    trainer.train()
    handle.remove()
    assert rows == [1] * 4  # 2 prompts sampled, then 2 micro-batches of one group of 4 rollouts each


def test_the_loss_is_alphabet_renormalised_everywhere(trainer):
    """TRL's stock log-probabilities are never computed: its fused output layer must not be called."""

    def refuse(*args, **kwargs):
        assert not kwargs.get("fused_lm_head"), "TRL recomputed logits over the vocabulary"

    handle = trainer.model.get_base_model().register_forward_pre_hook(
        lambda module, args, kwargs: refuse(*args, **kwargs), with_kwargs=True
    )
    trainer.args.max_steps = 1
    trainer.train()
    handle.remove()
    assert 0 < trainer.state.log_history[0]["entropy"] <= np.log(4)


def test_dropout_is_refused(tiny_model_dir, tmp_path):
    with pytest.raises(InputError, match="dropout"):
        run(tiny_model_dir, tmp_path, lora=LoraSettings(dropout=0.1))


def test_a_known_optimum_is_learned(tiny_model_dir, tmp_path):
    """Reward 1 for keeping exactly the even events, plain. Also: records, rollout tables, greedy validation."""
    seen = []
    result = run(
        tiny_model_dir,
        tmp_path,
        replace(CONFIG, steps=20, prompts_per_step=4, group_size=8, eval_every=10, save_every=20, beta=0.0),
        on_step=seen.append,
    )
    train = [record for record in seen if record["kind"] == "train"]
    assert (
        np.mean([record["reward"] for record in train[-5:]]) > np.mean([record["reward"] for record in train[:3]]) + 0.1
    )
    assert result.best_reward > result.start_reward + 0.1
    assert train[-1]["entropy"] < train[0]["entropy"]
    assert {"component.wrong", "groups.dead_groups", "groups.mixed_groups", "grad_norm", "seconds"} <= train[0].keys()
    validation = [record for record in seen if record["kind"] == "validation"]
    assert [record["step"] for record in validation] == [0, 10, 20]
    assert validation[0]["kl"] == 0 < validation[-1]["kl"]
    table = [json.loads(line) for line in (tmp_path / "rollouts" / "step-00000.jsonl").read_text().splitlines()]
    assert len(table) == 32 and np.mean([row["reward"] for row in table]) == pytest.approx(train[0]["reward"], abs=1e-6)


def test_the_adapter_kept_is_the_best_on_validation(tiny_model_dir, tmp_path):
    result = run(tiny_model_dir, tmp_path)
    judged = Curves(tmp_path / "curves.jsonl").of_kind("validation")
    best = max(judged, key=lambda record: (record["reward"], -record["step"]))
    assert (result.best_step, result.best_reward) == (best["step"], best["reward"])
    lm = tiny_policy(tiny_model_dir)
    from recsys.models.adapters import load_adapter

    again = ActionPolicyVerbalizer(replace(lm, model=load_adapter(lm.model, tmp_path / "adapter", None)), ACTIONS)
    inputs = make_inputs(3)
    scored = pays_for_even_events(inputs["example_id"].to_list(), again.verbalize(inputs))
    assert np.mean([one.reward for one in scored]) == pytest.approx(best["reward"])
    assert not (tmp_path / "adapter" / "ref").exists()


def test_killed_and_resumed_equals_uninterrupted(tiny_model_dir, tmp_path):
    """SIGKILL after step 5, a half-written checkpoint beside the whole one, resumed: same weights, same curves."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(tiny_model_dir, whole)
    script = (
        "import os, signal, sys; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
        "import test_optimize_trainer as t\n"
        "kill = lambda r: r['kind'] == 'train' and r['step'] == 5 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "t.run(Path(sys.argv[1]), Path(sys.argv[2]), on_step=kill)\n"
    )
    command = [sys.executable, "-c", script, str(tiny_model_dir), str(broken), str(Path(__file__).parent)]
    root = str(Path(__file__).parents[2])
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    (broken / "checkpoint-5").mkdir()
    (broken / "checkpoint-5" / "adapter_model.safetensors").write_bytes(b"cut")
    assert last_complete(broken).name == "checkpoint-4"
    assert not (broken / "checkpoint-5").exists()
    result = run(tiny_model_dir, broken)
    assert result.steps == 6
    expected = load_file(whole / "policies" / "step-00006.safetensors")
    for name, value in load_file(broken / "policies" / "step-00006.safetensors").items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=0)
    for name, value in adapter_weights(broken).items():
        torch.testing.assert_close(value, adapter_weights(whole)[name], atol=1e-6, rtol=0)
    curves = [
        [{k: v for k, v in record.items() if k != "seconds"} for record in Curves(folder / "curves.jsonl").records]
        for folder in (whole, broken)
    ]
    assert curves[0] == curves[1]
    start = load_file(whole / "policies" / "step-00000.safetensors")
    assert any(not torch.equal(value, start[name]) for name, value in expected.items())


def test_a_finished_run_is_returned_and_another_is_refused(tiny_model_dir, tmp_path):
    config = replace(CONFIG, steps=2)
    first = run(tiny_model_dir, tmp_path, config)

    def refuse(ids, texts):
        raise AssertionError("trained again")

    assert run(tiny_model_dir, tmp_path, config, score=refuse) == first
    with pytest.raises(InputError, match="begun with another config"):
        run(tiny_model_dir, tmp_path, replace(config, learning_rate=1.0))
    longer = run(tiny_model_dir, tmp_path, replace(config, steps=4))
    assert longer.steps == 4


def test_several_iterations_reuse_rollouts(tiny_model_dir, tmp_path):
    calls = []

    def score(ids, texts):
        calls.append(len(texts))
        return pays_for_even_events(ids, texts)

    result = run(tiny_model_dir, tmp_path, replace(CONFIG, iterations=2, steps=4), score=score)
    assert result.steps == 4
    assert calls == [8, 8]


def test_the_reference_is_the_starting_policy_and_stays_put(tiny_model_dir, tmp_path):
    lm = tiny_policy(tiny_model_dir)
    model = trainable_policy(lm, LORA, 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)  # a warm start
    warm = replace(lm, model=model)
    job = Job(warm, make_inputs(5), replace(CONFIG, steps=2, beta=0.5), tmp_path, CARD, LORA, FREE)
    train_actions(job, pays_for_even_events, ACTIONS)
    records = Curves(tmp_path / "curves.jsonl").of_kind("train")
    assert records[0]["kl"] == pytest.approx(0, abs=1e-6)  # reference == the warm policy, not the bare base model
    assert records[1]["kl"] > 0
    ref = load_file(tmp_path / "checkpoint-2" / "ref" / "adapter_model.safetensors")
    assert all((value == 0.05).all() for name, value in ref.items() if "lora_B" in name)


def test_a_loss_that_is_not_finite_aborts_with_the_batch(tiny_model_dir, tmp_path):
    lm = tiny_policy(tiny_model_dir)
    lm = replace(lm, model=trainable_policy(lm, LORA, 0))

    def breaks_the_policy(ids, texts):
        with torch.no_grad():
            next(value for name, value in lm.model.named_parameters() if "lora_B" in name).fill_(float("nan"))
        return pays_for_even_events(ids, texts)

    with pytest.raises(InputError, match=r"loss nan at step 0.*aborted-step-0\.pt"):
        train_actions(Job(lm, make_inputs(5), replace(CONFIG, beta=0.0), tmp_path, CARD), breaks_the_policy, ACTIONS)
    batch = torch.load(tmp_path / "aborted-step-0.pt", weights_only=False)
    assert {"prompt_ids", "completion_ids", "advantages"} <= batch[0].keys()


def test_a_gradient_that_is_not_finite_aborts(tiny_model_dir, tmp_path, trainer):
    finite = FiniteGradients()
    finite.trainer = trainer
    parameter = next(value for name, value in trainer.model.named_parameters() if "lora_A" in name)
    parameter.grad = torch.full_like(parameter, float("inf"))
    with pytest.raises(InputError, match=r"gradient of .*lora_A"):
        finite.on_pre_optimizer_step(None, None, None, model=trainer.model)


def test_a_reward_that_is_not_finite_is_an_error(tiny_model_dir, tmp_path):
    def score(ids, texts):
        return [Scored(float("inf") if index == 0 else 0.0, {"hit": 0.0}) for index in range(len(texts))]

    with pytest.raises(InputError, match="reward inf of example e"):
        run(tiny_model_dir, tmp_path, score=score, validation=None)


def test_dead_groups_stop_the_run_with_an_explanation(tiny_model_dir, tmp_path):
    def flat(ids, texts):
        return [Scored(0.5, {"hit": 0.0}) for _ in texts]

    result = run(tiny_model_dir, tmp_path, score=flat, limits=LimitsConfig(window=3))
    assert result.steps == 3
    assert "max_dead_groups" in result.stop_reason
    assert run(tiny_model_dir, tmp_path, score=flat, limits=LimitsConfig(window=3)) == result


def test_limits_need_a_full_window_and_kl_does_not():
    limits = LimitsConfig(max_kl=1.0, min_entropy=0.1, max_dead_groups=0.5, max_completion_length=10, window=2)
    low = {"entropy": 0.01}
    assert broken_limit([low], limits) is None
    assert "min_entropy" in broken_limit([low, low], limits)
    assert broken_limit([low, {"entropy": 0.3}], limits) is None
    assert "max_kl" in broken_limit([{"kl": 1.5}], limits)
    assert broken_limit([{"kl": 1.5}, {"kl": 0.5}], limits) is None
    assert "max_completion_length" in broken_limit([{"completion_length": 11.0}] * 2, limits)
    assert broken_limit([low, low], FREE) is None


def test_prompt_order_is_a_prefix_property():
    assert prompt_order(7, 30, 1)[:16] == prompt_order(7, 16, 1)
    assert sorted(prompt_order(7, 7, 1)) == list(range(7))
    assert prompt_order(7, 14, 1)[:7] != prompt_order(7, 14, 1)[7:]
    assert prompt_order(50, 50, 1) != prompt_order(50, 50, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"group_size": 1},
        {"steps": 0},
        {"iterations": 4},
        {"loss_type": "ppo"},
        {"prompts_per_forward": 3},
        {"learning_rate": 0.0},
    ],
)
def test_settings_refuse_what_cannot_work(change):
    with pytest.raises(InputError):
        replace(CONFIG, **change)
