"""Episodes played by a policy in many environments at once, each move of all of them one batch for the policy.

A slot that ends its episode begins the next one in the following move, while the others act; it joins them when its
world is ready, so the loading of a game overlaps with the policy's work. What an episode becomes does not depend on the
slots, as long as the policy answers each situation by itself: then parallel and sequential rollouts are equal.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from recsys.errors import InputError
from verbalize.agents.chats import ChatFormat, prompt
from verbalize.agents.environment import Task, Trajectory, Turn, View
from verbalize.agents.pool import Environments, Move


@dataclass(frozen=True)
class RolloutConfig:
    """`attempts` episodes per task; what an inadmissible action costs; how the chat is written."""

    attempts: int = 1
    invalid_penalty: float = 0.0
    form: ChatFormat = field(default_factory=ChatFormat)

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.invalid_penalty < 0:
            raise InputError(
                f"attempts {self.attempts}, invalid_penalty {self.invalid_penalty}",
                "needs an attempt, and a penalty that does not reward",
                "set attempts from 1 and invalid_penalty from 0",
            )


@dataclass(frozen=True)
class Situation:
    """What a policy acts on: turn number `turn` (from 0) of an attempt at a task. The chat ends with the present
    observation and holds the experience retrieved for it.
    """

    task: Task
    attempt: int
    turn: int
    goal: str
    observation: str
    chat: list[dict[str, str]]
    admissible: tuple[str, ...] | None


class Policy(Protocol):
    def act(self, situations: Sequence[Situation]) -> list[str]:
        """One action per situation."""


Memory = Callable[[Sequence[Situation]], Sequence[str]]
"""Retrieval, batched over the slots: situations (chats without memory) -> one block for the system message each; ""
shows nothing."""


@dataclass
class _Episode:
    task: Task
    attempt: int
    turns: list[Turn] = field(default_factory=list)
    begun: bool = False
    view: View | None = None  # before the next action; None until the environment has shown it

    def begin(self) -> Task:
        self.begun = True
        return self.task

    def ended(self) -> bool:
        return self.view is not None and (self.view.done or len(self.turns) >= self.task.max_steps)

    def trajectory(self) -> Trajectory:
        view = self._shown()
        return Trajectory(
            self.task,
            self.attempt,
            view.goal,
            tuple(self.turns),
            view.observation,
            view.reward,
            truncated=not view.done,
            crashed=view.crashed,
        )

    def situation(self, form: ChatFormat, memory: str = "") -> Situation:
        view = self._shown()
        chat = prompt(self.turns, view.observation, view.admissible, form, memory)
        turn = len(self.turns)
        return Situation(self.task, self.attempt, turn, view.goal, view.observation, chat, view.admissible)

    def see(self, view: View, action: str | None, memory: str, penalty: float) -> None:
        """The view that follows an action, or (None) the beginning."""
        if action is not None:
            before = self._shown()
            turn = Turn(before.observation, before.admissible, action, view.reward - before.reward, memory)
            self.turns.append(turn if turn.valid else replace(turn, reward=turn.reward - penalty))
        self.view = view

    def _shown(self) -> View:
        if self.view is None:
            raise InputError(f"task {self.task.id}", "has not begun", "begin it before acting")
        return self.view


def roll_out(
    environments: Environments,
    policy: Policy,
    tasks: Sequence[Task],
    config: RolloutConfig | None = None,
    memory: Memory | None = None,
) -> list[Trajectory]:
    """`config.attempts` episodes of every task, task by task: len(tasks) · attempts trajectories.

    Raises InputError when the policy answers with another number of actions, and for what environments refuse.
    """
    config = config or RolloutConfig()
    episodes = [_Episode(task, attempt) for task in tasks for attempt in range(config.attempts)]
    waiting = deque(episodes)
    slots: list[_Episode | None] = [None] * environments.size
    while True:
        for number, episode in enumerate(slots):
            if episode is None or episode.ended():
                slots[number] = waiting.popleft() if waiting else None
        active = {number: episode for number, episode in enumerate(slots) if episode}
        if not active:
            return [episode.trajectory() for episode in episodes]
        acting = {number: episode for number, episode in active.items() if episode.view}
        fresh = {number: episode for number, episode in active.items() if not episode.begun}
        blocks = _recall(memory, list(acting.values()), config.form)
        chosen = _act(policy, list(acting.values()), blocks, config.form)
        actions = dict(zip(acting, chosen, strict=True))
        shown = dict(zip(acting, blocks, strict=True))
        begins: dict[int, Move] = {number: episode.begin() for number, episode in fresh.items()}
        for number, view in environments.advance(begins | actions).items():
            active[number].see(view, actions.get(number), shown.get(number, ""), config.invalid_penalty)


def _recall(memory: Memory | None, episodes: Sequence[_Episode], form: ChatFormat) -> list[str]:
    if memory is None or not episodes:
        return [""] * len(episodes)
    return list(memory([episode.situation(form) for episode in episodes]))


def _act(policy: Policy, episodes: Sequence[_Episode], blocks: Sequence[str], form: ChatFormat) -> list[str]:
    if not episodes:
        return []
    situations = [episode.situation(form, block) for episode, block in zip(episodes, blocks, strict=True)]
    actions = policy.act(situations)
    if len(actions) != len(situations):
        raise InputError(
            f"{len(actions)} actions for {len(situations)} situations",
            "a policy answers every situation once",
            "correct the policy",
        )
    return actions
