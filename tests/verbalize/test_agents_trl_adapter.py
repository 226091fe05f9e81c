"""The adapter to TRL: its contract by hand, and stock GRPOTrainer playing an environment through tool calls."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from agents_worlds import Ladder, ladder
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import is_chat_template_prefix_preserving, parse_response, supports_tool_calling

from recsys.errors import InputError
from verbalize.agents.pool import PoolConfig
from verbalize.agents.trl_adapter import (
    OVER,
    ToolConfig,
    ToolEnvironment,
    ToolFactory,
    prepare_tool_tokenizer,
    tool_rows,
)

HERE = ToolConfig(guarded=False)


def begun(config: ToolConfig = HERE, world: Ladder | None = None, **task: int) -> ToolEnvironment:
    environment = ToolFactory(world or Ladder(), config)()
    environment.reset(**tool_rows([ladder(4, **task)])[0], unrelated=1)
    return environment


def call(action: str) -> str:
    return "<tool_call>\n" + json.dumps({"name": "act", "arguments": {"action": action}}) + "\n</tool_call>"


def test_a_rollout_by_hand() -> None:
    environment = ToolFactory(Ladder(), HERE)()
    with pytest.raises(InputError, match="call reset"):
        environment.act("up")
    row = tool_rows([ladder(4, 2)])[0]
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    first = environment.reset(**row)
    assert first == "Climb 2 steps. You stand on step 0 of world 4.\n\nPossible actions: up"
    assert environment.act("up").endswith("Possible actions: down; up") and environment.get_reward() == 0.5
    assert environment.act("up") == f"You stand on step 2 of world 4.\n\n{OVER}"
    assert environment.act("down") == OVER and environment.get_reward() == 1.0
    assert environment.reset(**row) == first and environment.get_reward() == 0.0
    with pytest.raises(InputError, match="lacks 'task_id'"):
        environment.reset(prompt=[])


def test_steps_are_limited_and_inadmissible_actions_cost() -> None:
    environment = begun(ToolConfig(guarded=False, invalid_penalty=0.25, list_actions=False), max_steps=2)
    assert environment.act("fly") == "You stand on step 0 of world 4."
    assert environment.act("up").endswith(OVER)
    assert environment.act("up") == OVER
    assert environment.get_reward() == pytest.approx(1 / 3 - 0.25)
    with pytest.raises(InputError, match="must not reward"):
        ToolConfig(invalid_penalty=-1.0)


def test_a_guarded_environment_survives_its_process(tmp_path: Path) -> None:
    config = ToolConfig(pool=PoolConfig(size=7, step_timeout=20.0))
    environment = begun(config, Ladder(tmp_path))
    environment.act("up")
    assert environment.act("die").startswith("You stand on step 1")
    assert environment.act("up").startswith("You stand on step 2")
    (pid,) = environment._slots.pids  # type: ignore[union-attr]
    del environment
    assert not Path(f"/proc/{pid}").exists()  # nobody calls close: it ends with its last reference


@pytest.fixture
def tokenizer(tiny_model_dir: Path) -> Any:
    return prepare_tool_tokenizer(AutoTokenizer.from_pretrained(tiny_model_dir))


def test_the_template_writes_what_trl_reads(tokenizer: Any) -> None:
    assert supports_tool_calling(tokenizer) and is_chat_template_prefix_preserving(tokenizer)
    chat = [{"role": "user", "content": "Climb."}]
    written = {"name": "act", "arguments": {"action": 'say "up"'}}
    said = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": written}]}
    before = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template([*chat, said], return_dict=False)
    assert whole[: len(before)] == before
    parsed = parse_response(tokenizer, whole[len(before) :], prefix=before, tools=[begun().act])
    assert parsed["tool_calls"] == said["tool_calls"]


def likely(tokenizer: Any, answers: list[str], bias: float = 200.0) -> list[list[Any]]:
    """`sequence_bias` under which a model says one of `answers`, from the generation prompt to the end of the turn."""
    opening = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
    biases = {}
    for answer in answers:
        ids = tokenizer.encode(answer + "<|im_end|>", add_special_tokens=False)
        for end in range(1, len(ids) + 1):
            biases[tuple(opening + ids[:end])] = bias
    return [[list(ids), value] for ids, value in biases.items()]


@pytest.mark.filterwarnings("ignore")
def test_stock_grpo_trains_on_the_environment(tokenizer: Any, tiny_model_dir: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    before = {name: value.clone() for name, value in model.named_parameters()}
    seen: list[tuple[float, list[dict[str, Any]]]] = []

    def watch(completions: list[Any], environments: list[ToolEnvironment], **_: Any) -> list[None]:
        seen.extend(zip([e.get_reward() for e in environments], completions, strict=True))
        return [None] * len(completions)

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=watch,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(tool_rows([ladder(1, 2), ladder(2, 2)], system="Play.")),
        environment_factory=ToolFactory(Ladder(), HERE),
        args=GRPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            max_steps=2,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=600,
            max_tool_calling_iterations=2,
            learning_rate=1e-3,
            logging_steps=1,
            seed=1,
            generation_kwargs={"sequence_bias": likely(tokenizer, [call("up"), call("down")])},
        ),
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(logs) == 2 and len(seen) == 8
    for reward, completion in seen:
        actions = [c["function"]["arguments"]["action"] for m in completion for c in m.get("tool_calls") or []]
        answers = [message["content"] for message in completion if message["role"] == "tool"]
        # The environment answered every call that was carried out, and its reward is what these calls earn.
        assert len(answers) == 2 and {"up", "down"} >= set(actions)
        height = 0
        for action in actions[:2]:
            height = max(0, height + (1 if action == "up" else -1))
        assert reward == height / 2
        assert answers[1].startswith(f"You stand on step {height} of world")
    assert len({reward for reward, _ in seen}) > 1
    assert [entry["reward"] for entry in logs] == pytest.approx(
        [sum(reward for reward, _ in seen[at : at + 4]) / 4 for at in (0, 4)]
    )
    assert all(entry["tools/failure_frequency"] == 0 for entry in logs)
    assert any(not torch.equal(value, before[name]) for name, value in model.named_parameters())
