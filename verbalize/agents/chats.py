"""Episodes as chats: observations are the user's messages, actions the assistant's (ExpRAG, arXiv 2603.18272).

The same function renders an episode in play, for training and for the library, so a policy meets in training the chats
it will act on. Retrieved experience goes into the system message only, as both papers have it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from verbalize.agents.environment import Trajectory, Turn
from verbalize.agents.personal import cutoff_of, users_of
from verbalize.experience.entries import Experience, trajectory
from verbalize.experience.memory import with_memory

SYSTEM = "You play a text game. Reach the goal in few steps. Answer with one action and nothing else."


@dataclass(frozen=True)
class ChatFormat:
    """`system` opens every chat; `list_actions` ends every observation with the admissible actions."""

    system: str = SYSTEM
    list_actions: bool = False


def prompt(
    turns: Sequence[Turn],
    observation: str,
    admissible: Sequence[str] | None,
    form: ChatFormat,
    memory: str = "",
) -> list[dict[str, str]]:
    """The chat that asks for the next action: the turns so far and the present observation."""
    chat = [{"role": "system", "content": form.system}] if form.system else []
    for turn in turns:
        chat += [_said(turn.observation, turn.admissible, form), {"role": "assistant", "content": turn.action}]
    return with_memory([*chat, _said(observation, admissible, form)], memory)


def transcript(episode: Trajectory, form: ChatFormat) -> list[dict[str, str]]:
    """The whole episode up to its last observation, without the experience that was shown."""
    return prompt(episode.turns, episode.last_observation, None, form)


def training_chat(episode: Trajectory, form: ChatFormat, memory: str = "") -> list[dict[str, str]]:
    """The whole episode up to its last action, for a loss on the assistant's messages."""
    return with_memory(transcript(episode, form)[:-1], memory)


def as_experience(episode: Trajectory, time: datetime | None = None) -> Experience:
    """The episode as an entry of the experience library, found by its goal; lists of actions and system message are
    left out. `time` is when its outcome became known: of a task about a person, whose entry it then is, the cutoff.
    """
    return trajectory(
        episode.goal,
        transcript(episode, ChatFormat(system="")),
        episode.outcome,
        episode.success,
        source=episode.source,
        user=next(iter(users_of(episode.task)), ""),
        family=episode.task.family,
        time=time or cutoff_of(episode.task),
    )


def _said(observation: str, admissible: Sequence[str] | None, form: ChatFormat) -> dict[str, str]:
    listed = f"\n\nPossible actions: {'; '.join(admissible)}" if form.list_actions and admissible else ""
    return {"role": "user", "content": observation + listed}
