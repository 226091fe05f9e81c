"""Tasks about a person: whose data an episode holds, and the moment that nothing shown in it may reach.

A game belongs to nobody and to no time; a history does to a user, and it ends at a cutoff. Both travel with the task,
so that whoever draws lessons from an episode, or retrieves lessons for one, finds them there:

    a lesson         remembers the user and is known from the cutoff on, as the outcome looks at the target of that
                     moment and at nothing later
    a retrieval      for a task sees no lesson of its user, none of the task itself and none known only at or after its
                     cutoff; of a game, none of the game itself

What the library has kept so far is, like the policy's weights, the result of all training: a later example can crowd
out an earlier one's lesson. What a kept lesson says, and whether it may be shown, is decided here alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from recsys.errors import InputError
from verbalize.agents.environment import Task, Trajectory
from verbalize.experience.entries import Exclude, Experience, lesson


@dataclass(frozen=True, kw_only=True)
class PersonalTask(Task):
    """A task made from the history of `user` before `cutoff`, which has a time zone. Neither is shown to the agent."""

    user: str
    cutoff: datetime

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.user or self.cutoff.tzinfo is None:
            raise InputError(
                f"task {self.id!r} of user {self.user!r} at {self.cutoff}",
                "needs a user and a moment with a time zone: own and later lessons could not be kept away",
                "take both from the example's row",
            )
        object.__setattr__(self, "cutoff", self.cutoff.astimezone(UTC))  # one moment, one key


def users_of(task: Task) -> tuple[str, ...]:
    """Whose data the task holds; () for a game."""
    return (task.user,) if isinstance(task, PersonalTask) else ()


def cutoff_of(task: Task) -> datetime | None:
    """Before when a lesson must be known to be shown in the task, and from when on its own outcome is; None for a
    game."""
    return task.cutoff if isinstance(task, PersonalTask) else None


def hidden_from(task: Task) -> Exclude:
    """What the task must not see whatever its time: lessons of itself and of its user."""
    return Exclude(users=users_of(task), sources=(task.id,))


def permitted(entries: Sequence[Experience], task: Task) -> int:
    """How many of the records the task may see."""
    cutoff, own = cutoff_of(task), hidden_from(task)
    return sum(
        (cutoff is None or (entry.time is not None and entry.time < cutoff))
        and not set(entry.users) & set(own.users)
        and not set(entry.sources) & set(own.sources)
        for entry in entries
    )


def lesson_of(
    episode: Trajectory, observation: str, text: str, level: str, zone: str, score: float, by: str
) -> Experience:
    """A lesson from an episode, in the name of its task, its user and its moment; `by` marks who extracted it. A blank
    observation is replaced by the episode's goal."""
    task = episode.task
    return lesson(
        observation if observation.strip() else episode.goal,
        text,
        level,
        zone,
        score,
        sources=(task.id, by),
        users=users_of(task),
        family=task.family,
        time=cutoff_of(task),
    )
