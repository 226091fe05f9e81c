"""Lessons for a verbalizer from the scored pool: for a training history, what answer served best and what served worst.

A lesson's key is the history's sketch, by which later histories find it; its text says what kind of viewer it was, what
was answered and what that gained. The gain is the reward minus the mean over the example's pool: rewards themselves
tell mostly how hard the example was. The score is the reward as it was.

A lesson is known from the moment of its example's target on, which is the example's cutoff: the reward looks at that
target, and at nothing later.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

import polars as pl

from recsys.errors import InputError
from verbalize.experience.entries import Experience, lesson
from verbalize.experience.settings import MemoryConfig
from verbalize.verbalizers import template_expressions as expressions
from verbalize.verbalizers.base import verbalizer_inputs
from verbalize.verbalizers.sanitise import sanitise_history
from verbalize.verbalizers.templates import TemplateVerbalizer

_GENRES = 3
_CUT = "…"
NOTHING = "(nothing)"


def sketches(inputs: pl.DataFrame, template: str) -> list[str]:
    """B histories as the texts by which they are compared; "no events" for an empty one."""
    return [text or "no events" for text in TemplateVerbalizer(template).verbalize(inputs)]


def viewers(inputs: pl.DataFrame) -> list[str]:
    """B histories in a few words: "8 events, Drama, Comedy, War, around 1995"; what is unknown is left out."""
    history = pl.col("safe")
    n = history.list.len()
    genres = expressions.genre_counts(history, _GENRES).list.eval(pl.element().struct[0]).list.join(", ")
    year = history.list.eval(expressions.field("year")).list.median().floor().cast(pl.Int32).cast(pl.String)
    parts = [
        pl.concat_str(n.cast(pl.String), pl.when(n == 1).then(pl.lit(" event")).otherwise(pl.lit(" events"))),
        pl.when(genres != "").then(genres),
        pl.concat_str(pl.lit("around "), year),
    ]
    safe = inputs.select(safe=sanitise_history(pl.col("history")))
    return safe.select(text=pl.concat_str(parts, separator=", ", ignore_nulls=True)).to_series().to_list()


def pool_lessons(
    examples: pl.DataFrame, rewards: pl.DataFrame, answers: Mapping[str, Sequence[str]], config: MemoryConfig
) -> list[Experience]:
    """The `best` candidates of each example as strategies and its `worst` as warnings.

    `examples`: B rows with example_id, user_id, cutoff_time, history. `rewards`: example_id, candidate, reward.
    `answers`: candidate -> its answer to each of the B examples. Equal answers of an example count once; a strategy
    gained, a warning lost, so an example whose candidates are worth the same teaches nothing. Raises InputError for an
    example without rewards.
    """
    by_example: dict[str, list[tuple[str, float]]] = {}
    for example_id, candidate, reward in rewards.select("example_id", "candidate", "reward").iter_rows():
        by_example.setdefault(example_id, []).append((candidate, reward))
    inputs = verbalizer_inputs(examples)
    known = examples.select("example_id", "user_id", "cutoff_time").iter_rows()
    found = []
    for row, ((example_id, user, cutoff), sketch, viewer) in enumerate(
        zip(known, sketches(inputs, config.sketch), viewers(inputs), strict=True)
    ):
        if example_id not in by_example:
            raise InputError(f"example {example_id}", "has no rewards in the pool", "score it first")
        pool = by_example[example_id]
        mean = fmean(reward for _, reward in pool)
        distinct: dict[str, tuple[str, float]] = {}
        for candidate, reward in pool:
            distinct.setdefault(answers[candidate][row], (candidate, reward))
        ranked = sorted(distinct.items(), key=lambda one: -one[1][1])  # stable: the first listed among equals
        chosen = [(one, "strategy") for one in ranked[: config.best] if one[1][1] > mean]
        chosen += [(one, "warning") for one in ranked[::-1][: config.worst] if one[1][1] < mean]
        for (answer, (candidate, reward)), zone in chosen:
            found.append(
                lesson(
                    sketch,
                    f"{viewer}: {answer or NOTHING}, gain {reward - mean:+.2f}",
                    "example",
                    zone,
                    reward,
                    sources=[example_id],
                    users=[user],
                    family=candidate,
                    time=cutoff,
                )
            )
    return found


def shown_actions(actions: Sequence[int], symbols: Sequence[str], characters: int) -> str:
    """Actions as the symbols a policy answers with, oldest event first; the newest are kept where it is too long.

    >>> shown_actions([0, 2, 3], (" A", " B", " C", " D"), 100), shown_actions([0, 2, 3], (" A", " B", " C", " D"), 4)
    ('A C D', '… D')
    """
    text = " ".join(symbols[action].strip() for action in actions)
    return text if len(text) <= characters else f"{_CUT} {text[-max(characters - 2, 1) :].strip()}"


def shown_text(text: str, characters: int) -> str:
    """The beginning of a text, on one line.

    >>> shown_text("Heat (1995; Crime); Alien", 12)
    'Heat (1995;…'
    """
    line = " ".join(text.split())
    return line if len(line) <= characters else f"{line[: characters - 1]}{_CUT}"
