"""Verbalization as a task of several steps: inspect sessions, keep, drop, group, enrich, stop; a recommender judges.

The agent begins with a text that keeps every event. Its actions change the draft (`verbalization_drafts`); `stop`, or
the last step, executes it, and the reward is what the scorer pays for the text: at most 1, and 1 is success. The
reciprocal rank of the target over the example's slates suits that (`RewardConfig(kind="reciprocal_rank")`).

Nothing of target or slates can reach the agent: the environment is made from the columns a verbalizer may see and
refuses others, slates live in the scorer alone, and the scorer is asked after the last observation is settled; what it
answers is no part of any observation.

The world is cheap, the recommender is not: with a language model use `LocalEnvironments`, whose slots share one scorer.
In a pool each worker makes its own by `make_score`.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl

from recsys.errors import InputError
from verbalize.agents.environment import Task
from verbalize.agents.verbalization_drafts import (
    STOP,
    Draft,
    DraftConfig,
    History,
    first_draft,
    open_history,
    possible,
    revise,
    write,
)
from verbalize.optimize.scoring import ScoreFunction
from verbalize.verbalizers import template_expressions as expressions
from verbalize.verbalizers.actions import KEEP, KEEP_METADATA
from verbalize.verbalizers.base import guard_inputs

FAMILY = "verbalization"
NOTHING = "That changes nothing."
WRITTEN = "Written: "
"""Begins the last observation of an episode, which shows the text that was judged."""
SYSTEM = (
    "You decide what a recommender should know about a viewer. Inspect sessions, keep, drop or enrich sessions and "
    "events, group what is kept, then stop. Answer with one action and nothing else."
)
"""The system message for `ChatFormat.system` in this environment."""


@dataclass(frozen=True, eq=False)
class Verbalization:
    """Makes environments over the rows of `inputs` (example_id, cutoff_time, history), to be called in the process that
    plays them; for a pool `make_score` must be picklable. `eq=False`: frames do not compare.
    """

    inputs: pl.DataFrame
    make_score: Callable[[], ScoreFunction]
    config: DraftConfig = field(default_factory=DraftConfig)

    def __call__(self) -> "VerbalizationEnvironment":
        return VerbalizationEnvironment(self.inputs, self.make_score, self.config)


class VerbalizationEnvironment:
    """One example at a time; the scorer is made when the first text is to be judged, and kept."""

    def __init__(self, inputs: pl.DataFrame, make_score: Callable[[], ScoreFunction], config: DraftConfig) -> None:
        self._inputs, self._make_score, self._config = guard_inputs(inputs), make_score, config
        self._score: ScoreFunction | None = None
        self._task: Task | None = None
        self._history: History | None = None
        self._draft = Draft(())
        self._steps = 0
        self._reward: float | None = None

    def reset(self, task: Task) -> str:
        self._history = history_of(self._inputs, task, self._config)
        self._task, self._draft = task, first_draft(self._history)
        self._steps, self._reward = 0, None
        return f"{self.goal()}\n{overview(self._history, self._draft)}"

    def step(self, action: str) -> tuple[str, bool]:
        history = self._playing()
        if self._reward is not None:
            return NOTHING, True
        known = action in possible(history, self._draft)
        before = self._draft
        if known:
            self._draft = revise(history, before, action)
        self._steps += 1
        if (known and action == STOP) or (self._task is not None and self._steps >= self._task.max_steps):
            self._reward = self._judged(history)
            return f"{WRITTEN}{self.text()}", True
        return (_answer(history, before, self._draft) if known else NOTHING), False

    def goal(self) -> str:
        return goal_of(self._playing())

    def admissible(self) -> list[str]:
        history = self._playing()
        return [] if self._reward is not None else possible(history, self._draft)

    def reward(self) -> float:
        """0 until the text is judged."""
        self._playing()
        return self._reward or 0.0

    def text(self) -> str:
        """The text of the present draft."""
        return write(self._playing(), self._draft)

    def close(self) -> None:
        self._score = None

    def _judged(self, history: History) -> float:
        if self._score is None:
            self._score = self._make_score()
        reward = self._score([history.example_id], [self.text()])[0].reward
        if reward > 1.0 + 1e-9:
            raise InputError(
                f"reward {reward:g}",
                "an episode earns at most 1, which is success",
                "use reward.kind reciprocal_rank, or paper_like without further weights",
            )
        return min(float(reward), 1.0)

    def _playing(self) -> History:
        if self._history is None:
            raise InputError("environment without a task", "has nothing to show", "call reset(task) first")
        return self._history


def verbalization_tasks(inputs: pl.DataFrame, max_steps: int = 20) -> list[Task]:
    """One task per row; an episode that does not stop by itself is judged after `max_steps` actions."""
    return [Task(str(example_id), FAMILY, 0, max_steps=max_steps) for example_id in inputs["example_id"]]


def history_of(inputs: pl.DataFrame, task: Task, config: DraftConfig) -> History:
    """The history a task is about. Raises InputError for a task that no row belongs to."""
    row = inputs.filter(pl.col("example_id") == task.id)
    if row.is_empty():
        raise InputError(f"task {task.id!r}", "is no example of this environment", "make tasks by verbalization_tasks")
    return open_history(row, config)


def goal_of(history: History) -> str:
    """The task in words, with a sketch of the history: under it experience of like viewers is found."""
    sketch = history.row.select(expressions.profile(pl.col("history"))).item()
    return f"Say what a recommender should know about this viewer. {sketch}".strip()


def overview(history: History, draft: Draft) -> str:
    """One line per session."""
    return "\n".join(_session_line(history, draft, number) for number in range(1, len(history.starts) + 1))


def _session_line(history: History, draft: Draft, number: int) -> str:
    places = history.session(number)
    days = (history.row["cutoff_time"][0] - history.events[places[0]]["event_time"]).days
    kept = sum(draft.symbols[place] >= KEEP for place in places)
    enriched = sum(draft.symbols[place] == KEEP_METADATA for place in places)
    counts = Counter(genre for place in places for genre in history.events[place]["genres"] or ())
    mostly = f", mostly {min(counts, key=lambda genre: (-counts[genre], genre))}" if counts else ""
    details = f", {enriched} with metadata" if enriched else ""
    return f"Session {number}, {days} days ago: {len(places)} events{mostly}; {kept} kept{details}."


def _event_line(history: History, draft: Draft, place: int) -> str:
    event = history.events[place]
    facts = [str(event["year"])] if event["year"] is not None else []
    facts += [", ".join(event["genres"])] if event["genres"] else []
    shown = event["title"] + (f" ({'; '.join(facts)})" if facts else "")
    if event["rating"] is not None:
        shown += f", rated {event['rating']:.1f}"
    elif event["completion"] is not None:
        shown += f", watched {event['completion']:.0%}"
    state = ("dropped", "dropped", "kept", "kept with metadata")[draft.symbols[place]]
    return f"Event {place + 1}: {shown}. {state.capitalize()}."


def _answer(history: History, before: Draft, after: Draft) -> str:
    """What an action that changes something is answered by."""
    if after.looked_at != before.looked_at:
        places = history.session(after.looked_at)
        return "\n".join(_event_line(history, after, place) for place in places)
    if after.group != before.group:
        return f"Grouped by {after.group}." if after.group else "No longer grouped."
    changed = [place for place, symbol in enumerate(after.symbols) if symbol != before.symbols[place]]
    numbers = range(1, len(history.starts) + 1)
    touched = [number for number in numbers if set(changed) & set(history.session(number))]
    return "\n".join(_session_line(history, after, number) for number in touched)
