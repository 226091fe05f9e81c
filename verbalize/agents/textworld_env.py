"""TextWorld (Côté et al. 2018, version 1.7) as an `Environment`: the real interpreter's texts, its admissible commands.

Only admissible commands reach the interpreter. It knows others that would spoil an episode (undo, restart, save, quit);
any action outside the list is answered by NOTHING, costs a step and changes nothing. The reward is the game's score
over its highest; 1 when the game is won.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.errors import InputError
from verbalize.agents.environment import Task
from verbalize.agents.textworld_games import prepare

NOTHING = "Nothing happens."
SEED = 0  # of the interpreter, whose replies may draw lots

_TITLE = re.compile(r"\A.*\$\$[^\n]*", re.DOTALL)
_STATUS = re.compile(r"\n>\s*-=[^\n]*\s*\Z")
_ENDING = re.compile(r"\s*\*\*\* (.*?) \*\*\*.*", re.DOTALL)


@dataclass(frozen=True)
class TextWorld:
    """Makes environments whose games lie in `folder`, to be called in the process that plays them."""

    folder: Path

    def __call__(self) -> "TextWorldEnvironment":
        return TextWorldEnvironment(self.folder)


class TextWorldEnvironment:
    """One game at a time; a game played again is not loaded again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: Path | None = None
        self._game: Any = None
        self._state: Any = None

    def reset(self, task: Task) -> str:
        path = prepare([task], self._folder)[0]
        if path != self._loaded:
            self.close()
            self._game, self._loaded = _start(path), path
        self._game.seed(SEED)
        self._state = self._game.reset()
        return readable(self._state.feedback)

    def step(self, action: str) -> tuple[str, bool]:
        if action not in self.admissible():
            return NOTHING, self._over()
        self._state, _, _ = self._game.step(action)
        return readable(self._state.feedback), self._over()

    def goal(self) -> str:
        return " ".join(self._playing().objective.split())

    def admissible(self) -> list[str]:
        """Sorted; none once the game is over."""
        return [] if self._over() else list(self._playing().admissible_commands)

    def reward(self) -> float:
        state = self._playing()
        return 1.0 if state.won else (state.score or 0) / max(state.max_score, 1)

    def close(self) -> None:
        if self._game is not None:
            self._game.close()
        self._game = self._loaded = self._state = None

    def _over(self) -> bool:
        return bool(self._playing().won or self._playing().lost)

    def _playing(self) -> Any:
        if self._state is None:
            raise InputError("environment without a task", "has nothing to show", "call reset(task) first")
        return self._state


def readable(feedback: str) -> str:
    """The interpreter's reply without title picture, status line, closing menu and surplus white space.

    >>> readable("__\\n |$$ __ $$\\n\\nTake  it.\\n\\n\\n\\n-= Hall =-\\n\\n>  -= Hall =-0/1")
    'Take it.\\n\\n-= Hall =-'
    >>> readable("Taken.\\n\\n   *** You lost! ***\\n\\nWould you like to RESTART or QUIT?")
    'Taken.\\n\\nYou lost!'
    """
    text = _STATUS.sub("", _ENDING.sub(r"\n\n\1", _TITLE.sub("", feedback)))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _start(path: Path) -> Any:
    import textworld

    asked = textworld.EnvInfos(
        admissible_commands=True, objective=True, score=True, max_score=True, won=True, lost=True
    )
    return textworld.start(str(path), asked)
