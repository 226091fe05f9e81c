"""Prompt evolution with the package GEPA and the tiny model: budget, replay, what is kept, what is refused."""

import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Workshop
from tiny_run import Recorder, recipe_of, run

from recsys.errors import InputError
from recsys.storage import read_json
from verbalize.optimize.prompt_settings import PromptEvolutionConfig
from verbalize.optimize.rewards import Scored
from verbalize.optimize.settings import TrainConfig
from verbalize.pipeline import stage_keys
from verbalize.stages import stages_of
from verbalize.verbalizers.rewrite import RewriteConfig

REWRITE = (
    "policy.kind=rewrite",
    "warm_start=null",
    "recommender_training=null",
    "evaluation.untrained=[]",
    "seeds=[0]",
    "policy.rewrite.max_new_tokens=6",
    "policy.rewrite.instruction=Summarise.",
    "policy.rewrite.max_events=1",
    "sample.selection=2",
)
GEPA = (*REWRITE, "gepa.minibatch=1", "gepa.reflection_tokens=8", "gepa.instruction_tokens=64")


@pytest.fixture
def gepa() -> None:
    """The package, or a skip that names it."""
    if importlib.util.find_spec("gepa") is None:
        if os.environ.get("VERBALIZE_REQUIRE_SERVICES") == "1":
            pytest.fail("the package gepa is not installed")
        pytest.skip("the package gepa is not installed: pip install 'verbalize[gepa]'")


def test_the_budget_is_what_grpo_would_rank() -> None:
    train = TrainConfig(steps=16, prompts_per_step=4, group_size=8, eval_every=8)
    assert PromptEvolutionConfig().budget(train, validated=60) == 16 * 4 * 8 + 3 * 60
    assert PromptEvolutionConfig().budget(replace(train, iterations=2), validated=60) == 8 * 4 * 8 + 3 * 60
    assert PromptEvolutionConfig(calls=7).budget(train, validated=60) == 7


def test_what_would_be_ignored_or_cannot_work_is_refused(workshop: Workshop) -> None:
    for overrides, wrong in (
        (("gepa.minibatch=2",), "gepa with policy.kind actions"),
        ((*GEPA, "dpo.beta=0.1"), "and dpo"),
        ((*GEPA, "gepa.instruction_tokens=600"), r"gepa\.instruction_tokens = 600"),
        ((*GEPA, "gepa.minibatch=0"), r"gepa\.minibatch = 0"),
    ):
        with pytest.raises(InputError, match=wrong):
            recipe_of(workshop.values, *overrides)


def test_declaring_a_model_capable_changes_no_key_and_another_reflection_model_does(workshop: Workshop) -> None:
    def train_key(*overrides: str) -> str:
        return stage_keys(stages_of(recipe_of(workshop.values, *GEPA, *overrides), ""))["train"]

    assert train_key("gepa.capable=true") == train_key() != train_key("gepa.minibatch=2")
    remote = 'gepa.remote={endpoint: "http://localhost:8000/v1", model: big}'
    patient = (
        'gepa.remote={endpoint: "http://localhost:8000/v1", model: big, timeout_s: 5, send_texts_to: "localhost:8000"}'
    )
    assert train_key(remote) == train_key(patient) != train_key()


def test_no_calls_is_the_zero_shot_rewriter(workshop: Workshop, tmp_path: Path) -> None:
    trained = run(workshop.values, tmp_path, *GEPA, "gepa.calls=0", until="train")
    result = read_json(trained.stages["train"] / "seed-0" / "result.json")
    assert result["instruction"] == "Summarise." and result["calls"] == result["reflections"] == 0
    assert PromptEvolutionConfig(calls=0).is_rival and not PromptEvolutionConfig(calls=1).is_rival


def test_an_instruction_evolves_within_its_budget_and_is_evaluated(
    workshop: Workshop, tmp_path: Path, gepa: None
) -> None:
    recorder = Recorder()
    result = run(workshop.values, tmp_path, *GEPA, "train.steps=4", progress=recorder)
    folder = result.stages["train"] / "seed-0"
    outcome = read_json(folder / "result.json")
    budget = 4 * 2 * 4 + 5 * 2
    assert 2 + 1 <= outcome["calls"] <= budget and outcome["reflections"] >= 1
    found = read_json(folder / "instructions.json")
    assert found["instructions"][0] == "Summarise." and outcome["steps"] == len(found["instructions"]) - 1
    assert found["rewards"][outcome["best_step"]] == max(found["rewards"]) == outcome["best_reward"]
    assert found["instructions"][outcome["best_step"]] == outcome["instruction"]
    assert (folder / "validation" / f"step-{outcome['best_step']:05d}.parquet").exists()
    assert "learned" in result.console and "train" in recorder.began()

    # Killed before its end: the replay asks the reflection model nothing, and comes to the same.
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "reflections").iterdir()}
    (folder / "result.json").unlink()
    (result.stages["train"] / "done.json").unlink()
    run(workshop.values, tmp_path, *GEPA, "train.steps=4", until="train")
    assert read_json(folder / "result.json") == outcome
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "reflections").iterdir()} == before


class Oracle:
    """A reward that likes long instructions, so that evolution has something to find; counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, ids: Any, texts: Any) -> list[Scored]:
        self.asked += len(ids)
        components = {"hit": 1.0, "reciprocal_rank": 1.0, "compression": 0.5, "faithful": 1.0}
        return [Scored(float(len(text)), components) for text in texts]


def job_of(workshop: Workshop, folder: Path) -> Any:
    """Six examples, four to learn from and two to judge by, and the tiny model."""
    from recsys.models.loading import load_language_model
    from recsys.models.settings import AdapterCard
    from verbalize.optimize.training import Job, Validation
    from verbalize.stages import samples
    from verbalize.verbalizers.base import verbalizer_inputs

    stages = run(workshop.values, folder / "runs", *GEPA, until="examples").stages
    inputs = verbalizer_inputs(samples.load_examples(stages["examples"], "train", 6))
    oracle, config = Oracle(), TrainConfig(steps=8, prompts_per_step=2, group_size=4)
    lm = load_language_model(str(workshop.model))
    card = AdapterCard(lm.name, lm.base_digest, "tiny", "train", "none", "", "", "")
    job = Job(lm, inputs[:4], config, folder / "evolution", card, validation=Validation(inputs[4:], oracle))
    return job, oracle


def test_a_better_instruction_is_found_and_unusable_ones_are_not_kept(
    workshop: Workshop, tmp_path: Path, gepa: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verbalize.optimize import prompt_evolution
    from verbalize.verbalizers.rewrite import RewriteVerbalizer

    # The tiny model's texts say nothing of its instruction, so here they are the instruction: what is tested is the
    # search, with a known optimum.
    monkeypatch.setattr(RewriteVerbalizer, "verbalize", lambda self, rows: [self.config.instruction] * len(rows))
    job, oracle = job_of(workshop, tmp_path)
    proposals = iter(["```\nSay more.\n```", "```\n\n```", f"```\n{'word ' * 500}\n```", "```\nSay still more.\n```"])
    seen: list[str] = []

    def reflect(lm: Any, config: PromptEvolutionConfig) -> Any:
        def answer(prompt: str) -> str:
            seen.append(prompt)
            return next(proposals, "```\nNo.\n```")

        return answer

    settings = PromptEvolutionConfig(minibatch=1, instruction_tokens=64)
    result = prompt_evolution.evolve_instruction(
        job, score=oracle, gepa=settings, rewrite=RewriteConfig(instruction="Say.", max_events=2), reflect=reflect
    )
    kept = read_json(job.folder / "instructions.json")["instructions"]
    assert kept == ["Say.", "Say more.", "Say still more."] and result.instruction == "Say still more."
    assert result.calls <= settings.budget(job.config, 2) and oracle.asked <= result.calls + len(kept) * 2
    assert "Reward 4.000" in seen[0] and "Zyxwood" in seen[0]  # the log and how its profile served, for the reflection


def test_a_reflection_model_that_fails_ends_the_run_instead_of_the_budget(
    workshop: Workshop, tmp_path: Path, gepa: None
) -> None:
    from verbalize.optimize.prompt_evolution import evolve_instruction
    from verbalize.optimize.reflection import reflection_model

    job, oracle = job_of(workshop, tmp_path)
    remote = {"endpoint": "http://localhost:9/v1", "model": "big"}
    from recsys.recommenders.remote.settings import RemoteSettings

    settings = PromptEvolutionConfig(minibatch=1, remote=RemoteSettings(**remote))
    with pytest.raises(
        InputError, match=r"not sent without consent.*gepa\.remote\.send_texts_to=localhost:9"
    ) as caught:
        evolve_instruction(
            job,
            score=oracle,
            gepa=settings,
            rewrite=RewriteConfig(instruction="Summarise.", max_events=1, max_new_tokens=4),
            reflect=reflection_model,
        )
    assert "Zyxwood" in caught.value.value  # the preview shows what would be sent


def test_a_server_words_instructions_in_as_many_tokens_as_it_may() -> None:
    from remote_servers import says, serving

    from recsys.recommenders.remote.settings import RemoteSettings
    from verbalize.optimize.reflection import reflection_model

    with serving(says("```\nSay more.\n```")) as served:
        remote = RemoteSettings(endpoint=served.endpoint, model="big", send_texts_to=served.host)
        settings = PromptEvolutionConfig(remote=remote, reflection_tokens=77)
        assert reflection_model(None, settings)("Improve this.") == "```\nSay more.\n```"  # type: ignore[arg-type]
        (asked,) = served.bodies
    assert asked["messages"] == [{"role": "user", "content": "Improve this."}] and asked["max_tokens"] == 77
    assert "logprobs" not in asked and settings.reflector == "big"


def test_a_budget_without_room_for_a_proposal_is_refused(workshop: Workshop, tmp_path: Path, gepa: None) -> None:
    with pytest.raises(InputError, match="a budget of 5 ranked texts: is spent before one proposal"):
        run(workshop.values, tmp_path, *GEPA, "gepa.calls=5", until="train")
