"""Our environments as the tools of stock TRL: `GRPOTrainer(..., environment_factory=ToolFactory(make))`.

TRL 1.16 makes one object per rollout, calls `reset` with the columns of the dataset's row, appends what it returns to
the last user message, offers every further public method to the model as a tool, and scores the rollout by
`get_reward`. So there is one tool, `act`, in every environment. The model's context only ever grows: experience that
changes from turn to turn needs `roll_out`, where each turn is its own sample.

Each rollout has its environment in a worker process of its own by default, replaced when it dies or hangs, as in every
pool; with `guarded=False` it lives in the trainer's process.
"""

import weakref
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from recsys.errors import InputError
from recsys.models.chat import install_chat_template
from verbalize.agents.chats import SYSTEM
from verbalize.agents.environment import MakeEnvironment, Task, View
from verbalize.agents.pool import EnvironmentPool, LocalEnvironments, PoolConfig

OVER = "The episode is over."


@dataclass(frozen=True)
class ToolConfig:
    """`list_actions` ends every observation with the admissible actions; what an inadmissible action costs; whether the
    environment has a process of its own, and with which limits (`pool.size` is always 1: an object per rollout).
    """

    list_actions: bool = True
    invalid_penalty: float = 0.0
    guarded: bool = True
    pool: PoolConfig = field(default_factory=PoolConfig)

    def __post_init__(self) -> None:
        if self.invalid_penalty < 0:
            raise InputError(
                f"invalid_penalty {self.invalid_penalty}", "a penalty must not reward", "set it to 0 or more"
            )


@dataclass(frozen=True)
class ToolFactory:
    """What `environment_factory` wants: called without arguments, makes the environment of one rollout."""

    make: MakeEnvironment
    config: ToolConfig = ToolConfig()

    def __call__(self) -> "ToolEnvironment":
        return ToolEnvironment(self.make, self.config)


class ToolEnvironment:
    """One rollout's environment. Its public methods are TRL's contract: `reset`, `get_reward`, and one tool."""

    def __init__(self, make: MakeEnvironment, config: ToolConfig) -> None:
        self._config = config
        self._slots: EnvironmentPool | LocalEnvironments = (
            EnvironmentPool(make, replace(config.pool, size=1)) if config.guarded else LocalEnvironments(make)
        )
        weakref.finalize(self, self._slots.close)  # TRL never says that it is done with an environment
        self._view: View | None = None
        self._steps_left = 0
        self._penalty = 0.0

    def reset(self, **row: Any) -> str:
        """Begin the task whose fields the dataset's row holds (see `tool_rows`); other columns are ignored."""
        try:
            task = Task(row["task_id"], row["family"], row["seed"], row["difficulty"], row["max_steps"])
        except KeyError as error:
            raise InputError(f"a row with columns {sorted(row)}", f"lacks {error}", "make rows by tool_rows") from error
        self._view = self._slots.advance({0: task})[0]
        self._steps_left, self._penalty = task.max_steps, 0.0
        return self._shown(self._view)

    def act(self, action: str) -> str:
        """
        Carry out one action in the game.

        Args:
            action: The action, in the words of the game.

        Returns:
            What happens.
        """
        view = self._begun()
        if view.done or not self._steps_left:
            return OVER
        if view.admissible is not None and action not in view.admissible:
            self._penalty += self._config.invalid_penalty
        self._view = self._slots.advance({0: action})[0]
        self._steps_left -= 1
        return self._shown(self._view)

    def get_reward(self) -> float:
        """What the episode earned, less its penalties."""
        return self._begun().reward - self._penalty

    def _shown(self, view: View) -> str:
        if view.done or not self._steps_left:
            return f"{view.observation}\n\n{OVER}"
        listed = self._config.list_actions and view.admissible
        return view.observation + (f"\n\nPossible actions: {'; '.join(view.admissible or ())}" if listed else "")

    def _begun(self) -> View:
        if self._view is None:
            raise InputError("environment without a task", "has nothing to act in", "call reset with a task's row")
        return self._view


def tool_rows(tasks: Sequence[Task], system: str = SYSTEM) -> list[dict[str, Any]]:
    """The dataset of `tasks` for GRPOTrainer (`datasets.Dataset.from_list`): a prompt, to which `reset` adds the first
    observation, and the task's fields."""
    chat = [{"role": "system", "content": system}] if system else []
    rows = []
    for task in tasks:
        fields = asdict(task)
        rows.append({"prompt": [*chat, {"role": "user", "content": ""}], "task_id": fields.pop("id"), **fields})
    return rows


def prepare_tool_tokenizer(tokenizer: Any) -> Any:
    """Give the tokenizer our chat template, which writes tool calls, and TRL's parser that reads them back.

    Only for tokenizers of the ChatML family; one whose own template TRL knows needs nothing. Returns the tokenizer;
    raises InputError when it lacks ChatML's tokens.
    """
    from trl.chat_template_utils import qwen3_template

    install_chat_template(tokenizer)
    tokenizer.response_template = qwen3_template  # the same marks around calls as in our template
    return tokenizer
