"""TextWorld games by family, difficulty and seed: generated without a network, kept in a folder by content key.

| family   | the goal says           | difficulty                                                                  |
|----------|-------------------------|-----------------------------------------------------------------------------|
| route    | every step of the way   | actions - 1, in a chain of rooms with as many dead ends (1 to 49)           |
| coin     | only what to take where | as `route`, to be explored                                                  |
| treasure | only what to take where | TextWorld's level: 5 empty rooms, 10 with doors and things, 20 locked (1-30) |
| quest    | only the last action    | actions needed: open, unlock, take, put, eat, ... (1 to 12)                 |
| cooking  | to follow the cookbook  | number of skills and ingredients, see COOKING (1 to 7)                      |

TextWorld's generators iterate over sets, so the order of facts would depend on Python's hash seed; games are therefore
made in a process of their own whose hash seed is fixed. Some seeds admit no quest: those are replaced, the same way
every time, by the next seed derived from them.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recsys.errors import InputError
from recsys.seeding import stable_hash
from verbalize.agents.environment import Task

VERSION = 1  # raise when a family's games change: the key of the cache
TRIES = 20
LEVELS = {"route": 49, "coin": 49, "treasure": 30, "quest": 12, "cooking": 7}
"""Families and their highest difficulty."""

_PLAIN: dict[str, Any] = {
    **dict.fromkeys(("recipe", "take", "go"), 1),
    **dict.fromkeys(("open", "cut", "cook", "drop"), False),
    "split": None,
}
_PROCESSED = {"open": True, "cut": True, "cook": True}
COOKING: tuple[dict[str, Any], ...] = (
    _PLAIN,
    _PLAIN | {"open": True},
    _PLAIN | {"open": True, "cut": True},
    _PLAIN | _PROCESSED,
    _PLAIN | _PROCESSED | {"go": 6},
    _PLAIN | _PROCESSED | {"go": 6, "recipe": 2, "take": 2},
    _PLAIN | _PROCESSED | {"go": 9, "recipe": 3, "take": 3},
)
"""Settings of TextWorld's cooking challenge by difficulty - 1."""


def game_task(family: str, difficulty: int, seed: int, max_steps: int = 20) -> Task:
    """The task of one game; `max_steps` should leave room beyond the length of its walkthrough.

    Raises InputError for an unknown family or a difficulty it does not have.
    """
    task = Task(f"{family}-{difficulty}-{seed}", family, seed, difficulty, max_steps)
    _check(task)
    return task


def game_path(task: Task, folder: Path) -> Path:
    """Where the game of a task lies, with its description beside it as .json."""
    _check(task)
    key = f"{stable_hash('textworld', VERSION, _textworld_version(), task.family, task.difficulty, task.seed):016x}"
    return folder / task.family / f"{key}.z8"


def prepare(tasks: Sequence[Task], folder: Path, processes: int = 1) -> list[Path]:
    """The games of `tasks`, those missing made now: 1 to 3 s each (treasure above 25: a minute), `processes` at once.

    Several processes may prepare the same folder at a time. Raises InputError when TextWorld is not installed or makes
    no game.
    """
    if processes < 1:
        raise InputError(f"processes {processes}", "games need one to be made in", "set it from 1")
    paths = [game_path(task, folder) for task in tasks]
    missing = list({path: task for path, task in zip(paths, tasks, strict=True) if not _whole(path)}.values())
    shares = [missing[start::processes] for start in range(processes)]
    makers = [_start_maker(share, folder) for share in shares if share]
    failures = [error for maker in makers for error in [maker.communicate()[1]] if maker.returncode]
    if failures:
        raise InputError(
            f"{len(missing)} TextWorld games",
            f"could not all be made ({failures[0].strip().splitlines()[-1]})",
            "choose other seeds or another difficulty",
        )
    return paths


def walkthrough(task: Task, folder: Path) -> list[str]:
    """The game's own solution; the game is made if need be."""
    from recsys.storage import read_json

    description = prepare([task], folder)[0].with_suffix(".json")
    return open_once(read_json(description)["metadata"]["walkthrough"])


def open_once(actions: Sequence[str]) -> list[str]:
    """The actions without openings of what is open already: TextWorld's cooking solutions open a door at each passage.

    >>> open_once(["open door", "go east", "open door", "close door", "open door"])
    ['open door', 'go east', 'close door', 'open door']
    """
    opened: set[str] = set()
    kept = []
    for action in actions:
        verb, _, what = action.partition(" ")
        if verb == "open" and what in opened:
            continue
        if verb == "open":
            opened.add(what)
        elif verb == "close":
            opened.discard(what)
        kept.append(action)
    return kept


def _check(task: Task) -> None:
    if task.family not in LEVELS:
        raise InputError(f"family {task.family!r}", f"must be one of {', '.join(LEVELS)}", "choose one")
    if task.difficulty > LEVELS[task.family]:
        raise InputError(
            f"{task.family} of difficulty {task.difficulty}",
            f"the family ends at {LEVELS[task.family]}",
            "lower the difficulty",
        )


def _textworld_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("textworld")
    except PackageNotFoundError as error:
        raise InputError("textworld", "is not installed", "pip install 'verbalize[agents]'") from error


def _whole(path: Path) -> bool:
    return path.is_file() and path.with_suffix(".json").is_file()


def _start_maker(tasks: Sequence[Task], folder: Path) -> subprocess.Popen[str]:
    asked = json.dumps([[task.family, task.difficulty, task.seed] for task in tasks])
    return subprocess.Popen(
        [sys.executable, "-m", "verbalize.agents.textworld_games", asked, str(folder)],
        env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _make(task: Task, folder: Path) -> None:
    """Generate and compile one game, in the process whose hash seed is fixed."""
    from textworld.generator import compile_game

    from recsys.storage import replacing

    game, options = _generate(task)
    target = game_path(task, folder)
    with tempfile.TemporaryDirectory() as name:
        options.path = str(Path(name) / target.name)
        compiled = Path(compile_game(game, options))
        for suffix in (".z8", ".json"):  # the description last: with it the game is whole
            with replacing(target.with_suffix(suffix)) as temporary:
                shutil.copyfile(compiled.with_suffix(suffix), temporary)


def _generate(task: Task) -> tuple[Any, Any]:
    import textworld
    from textworld.generator import QuestGenerationError, make_game
    from textworld.generator.game import GameOptions

    for attempt in range(TRIES):
        seed = stable_hash("textworld", VERSION, task.family, task.difficulty, task.seed, attempt) % 2**31
        textworld.g_rng.set_seed(seed)
        options = GameOptions()
        options.seeds = seed
        options.grammar.only_last_action = task.family != "route"
        try:
            if task.family == "quest":
                options.nb_rooms = 2 + task.difficulty // 2
                options.nb_objects = 4 + 2 * task.difficulty
                options.quest_length = task.difficulty
                return make_game(options), options
            return _challenge(task, seed, options), options
        except QuestGenerationError:
            continue
    raise InputError(
        f"{task.family} of difficulty {task.difficulty}, seed {task.seed}",
        f"no game found in {TRIES} tries",
        "choose another seed",
    )


def _challenge(task: Task, seed: int, options: Any) -> Any:
    """A game of TextWorld's own challenges."""
    from textworld.challenges import CHALLENGES

    if task.family == "cooking":
        return CHALLENGES["tw-cooking"][1](COOKING[task.difficulty - 1] | {"recipe_seed": seed}, options)
    if task.family == "treasure":
        return CHALLENGES["tw-treasure_hunter"][1]({"level": task.difficulty}, options)
    # Levels above 100 give each room of the chain a dead end.
    return CHALLENGES["tw-coin_collector"][1]({"level": 101 + task.difficulty}, options)


if __name__ == "__main__":
    for family, difficulty, game_seed in json.loads(sys.argv[1]):
        _make(game_task(family, difficulty, game_seed), Path(sys.argv[2]))
