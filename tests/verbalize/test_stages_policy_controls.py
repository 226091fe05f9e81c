"""Controls of what a policy did: its actions, kept from the one run that wrote the texts, tell a constant policy."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optimize_helpers import make_inputs, tiny_policy

from recsys.storage import write_json
from verbalize.optimize.policy import ActionPolicyVerbalizer
from verbalize.report.claims import Claim, Estimator
from verbalize.stages import notes
from verbalize.stages.policy_controls import actions_path, controls, sentences, written
from verbalize.verbalizers.actions import KEEP_METADATA, ActionConfig, constant_actions, execute, history_lengths

CONFIG = ActionConfig()


def test_texts_are_the_policys_own_and_so_are_their_actions(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = ActionPolicyVerbalizer(tiny_policy(tiny_model_dir), CONFIG)
    inputs = make_inputs(5, events=4)
    expected = policy.verbalize(inputs)
    runs, forward = [], policy._logprobs
    monkeypatch.setattr(policy, "_logprobs", lambda prompts: runs.append(len(prompts)) or forward(prompts))
    texts, actions = written(policy, inputs, CONFIG)
    assert texts == expected and runs == [5]  # one pass of the policy serves both
    assert execute(policy.fit(inputs)[0], actions, CONFIG) == expected
    assert written(policy, inputs, None) == (expected, [])


def facts_of(folder: Path, actions: list[list[int]]) -> dict[str, Any]:
    """Of a policy that acts so on four events of six histories and keeps a fifth, beside keep_all_metadata."""
    inputs = make_inputs(6, events=4)
    actions = [row + [KEEP_METADATA] * (n - 4) for row, n in zip(actions, history_lengths(inputs, CONFIG), strict=True)]
    constant = execute(inputs, constant_actions("keep_all_metadata", history_lengths(inputs, CONFIG)), CONFIG)
    assert len(set(constant)) > 1  # texts differ although the actions do not
    write_json(actions, actions_path(folder, 0))
    return controls(folder, "actions", {0: execute(inputs, actions, CONFIG)}, ("keep_all_metadata", constant))


def test_a_constant_policy_scores_0_and_a_varied_one_does_not(tmp_path: Path) -> None:
    constant = facts_of(tmp_path, [[KEEP_METADATA] * 4] * 6)
    assert constant["actions"]["0"] == {"distinct": 0.0, "symbols": {"keep with metadata": 1.0}}
    assert constant["equal_to_constant"] == {"constant": "keep_all_metadata", "share": {"0": 1.0}}
    varied = facts_of(tmp_path, [[3, 3, 3, 3], [0, 3, 3, 3], [2, 3, 3, 3], [3, 0, 3, 3], [3, 2, 3, 3], [3, 3, 0, 3]])
    assert varied["actions"]["0"]["distinct"] == 1.0 and varied["equal_to_constant"]["share"]["0"] == pytest.approx(
        1 / 6
    )
    assert sum(varied["actions"]["0"]["symbols"].values()) == pytest.approx(1.0)
    idle = facts_of(tmp_path, [[0, 3, 3, 3]] * 3 + [[1, 3, 3, 3]] * 3)  # to drop with metadata on is to drop
    assert idle["actions"]["0"]["distinct"] == 0.0
    told = " ".join(sentences(constant))
    assert "one length 0%" in told and "keep with metadata 100%" in told and "to the letter: seed 0 100%" in told


def test_runs_that_kept_no_actions_have_no_such_facts(tmp_path: Path) -> None:
    found = controls(tmp_path, "actions", {0: ["a", "b"]}, ("keep_all", ["a", "c"]))
    assert found["actions"] == {} and found["equal_to_constant"]["share"] == {"0": 0.5}
    assert sentences({"distinct_texts": {"0": 0.88}}) == []  # what such a run's actions were is not known
    rewritten = controls(tmp_path, "rewrite", {0: ["same", "same"]}, ("keep_all", ["a", "c"]))
    assert rewritten["distinct_texts"] == {"0": 0.5} and "actions" not in rewritten
    assert any("Distinct texts" in sentence for sentence in sentences(rewritten))


def test_headroom_is_told_with_the_claims_number(tmp_path: Path) -> None:
    room = {"value": -0.02, "low": -0.04, "high": 0.0, "constant": 0.2, "naive_example_oracle": 0.6}
    write_json({"facts": {"headroom_recall_at_1": room}}, tmp_path / "done.json")
    context: Any = SimpleNamespace(inputs={"pool": tmp_path})
    listed = [SimpleNamespace(id="toy.room", kind="pool_headroom"), SimpleNamespace(id="toy.other", kind="recall")]
    recipe: Any = SimpleNamespace(evaluation=SimpleNamespace(claims=listed))
    claims = [
        Claim(name, "", "recall@1 difference", Estimator("headroom"), value, value - 0.02, value + 0.02)
        for name, value in (("toy.other", 0.5), ("toy.room", -0.012))
    ]
    assert "Recall@1 -0.012 [-0.032, +0.008]" in notes.headroom(context, notes.pool_claim(recipe, claims))
    assert "Recall@1 -0.020 [-0.040, +0.000]" in notes.headroom(context, notes.pool_claim(recipe, claims[:1]))
