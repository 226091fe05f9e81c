"""What SLEA-RL is told of a kind of environment: the system message, the rules that draw lessons there, and by what
score a batch's episodes are called successes and failures. The defaults are those of text games."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from verbalize.agents.chats import SYSTEM
from verbalize.agents.environment import Trajectory
from verbalize.agents.slea_lessons import by_rules
from verbalize.experience.evolution import Extract


def outcomes(episodes: Sequence[Trajectory]) -> list[float]:
    """What each episode of a batch earned."""
    return [episode.outcome for episode in episodes]


@dataclass(frozen=True)
class Briefing:
    """`scores`: a batch's episodes -> one score each, by which the library divides and credits them."""

    system: str = SYSTEM
    rules: Extract = by_rules
    scores: Callable[[Sequence[Trajectory]], list[float]] = outcomes
