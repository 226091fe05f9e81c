"""Lessons of the verbalization task, for SLEA-RL: what was decided for a history, and what that gained.

What an episode earns tells mostly how hard its example was, so episodes are compared with the others of their own
example: the score that divides a batch and ranks its lessons is the *gain*, the outcome minus the mean outcome of the
example's episodes in the batch. Among the text game's rules a first reward or a goal reached say nothing here: every
text earns something, and only the last action is paid.

| rule   | lesson, a strategy where something was gained, a warning where it was lost                       |
|--------|----------------------------------------------------------------------------------------------------|
| plan   | all decisions of the episode, at its first observation: a sketch of the viewer (principle)         |
| choice | one decision, at the observation it answered (example)                                             |

Looking at a session and stopping decide nothing; an episode that only did that has the plan "stop at once".
"""

from collections.abc import Sequence
from statistics import fmean

from verbalize.agents.environment import Trajectory, Turn
from verbalize.agents.personal import lesson_of
from verbalize.agents.slea_briefing import Briefing
from verbalize.agents.slea_memory import BY
from verbalize.agents.verbalization_drafts import STOP
from verbalize.agents.verbalization_env import SYSTEM
from verbalize.experience.entries import Experience
from verbalize.experience.evolution import Episode

LEAST_GAIN = 1e-6
"""Episodes of one example that differ by less earned the same."""


def gains(episodes: Sequence[Trajectory]) -> list[float]:
    """Outcome minus the mean outcome of the task's episodes in the batch."""
    outcomes: dict[str, list[float]] = {}
    for episode in episodes:
        outcomes.setdefault(episode.task.id, []).append(episode.outcome)
    return [episode.outcome - fmean(outcomes[episode.task.id]) for episode in episodes]


def by_gain(successes: Sequence[Episode], failures: Sequence[Episode]) -> list[Experience]:
    """The plan of every episode, then its choices in turn; `Episode.score` is the gain. An episode among the batch's
    successes that lost teaches nothing, nor does a failure that gained."""
    chosen = [(one, "strategy") for one in successes if one.score > LEAST_GAIN]
    chosen += [(one, "warning") for one in failures if one.score < -LEAST_GAIN]
    chosen = [(one, zone) for one, zone in chosen if one.payload.turns]
    choices = [[_choice(one, turn, zone) for turn in decisions(one.payload)] for one, zone in chosen]
    longest = max(map(len, choices), default=0)
    in_turn = [of_one[place] for place in range(longest) for of_one in choices if place < len(of_one)]
    return [*(_plan(one, zone) for one, zone in chosen), *in_turn]


def decisions(episode: Trajectory) -> list[Turn]:
    """The turns that changed the draft, or tried to."""
    return [turn for turn in episode.turns if turn.action != STOP and not turn.action.startswith("inspect ")]


def _plan(episode: Episode, zone: str) -> Experience:
    actions = ", then ".join(f'"{turn.action}"' for turn in decisions(episode.payload)) or f'"{STOP}" at once'
    first = episode.payload.turns[0].observation
    return _lesson(episode, first, f"{actions}: {_gained(episode.score)}.", "principle", zone, "plan")


def _choice(episode: Episode, turn: Turn, zone: str) -> Experience:
    text = f'"{turn.action}" here: {_gained(episode.score)} in the end.'
    return _lesson(episode, turn.observation, text, "example", zone, "choice")


def _gained(score: float) -> str:
    return f"{'gained' if score > 0 else 'lost'} {abs(score):.2f}"


def _lesson(episode: Episode, observation: str, text: str, level: str, zone: str, name: str) -> Experience:
    return lesson_of(episode.payload, observation, text, level, zone, episode.score, f"{BY}rules.{name}")


BRIEFING = Briefing(SYSTEM, by_gain, gains)
"""What SLEA-RL is told of the verbalization task."""
