"""Verbalized candidates: which fields every candidate of a slate shows, chosen for the person who is to choose.

The policy reads `display_prompts`: an instruction, the profile of the history, its titles with metadata, and one slot.
Its action is a display, one of the four sets of fields a candidate can show; the text about the viewer is a template.

The choice follows from the history alone, and all candidates of a slate are shown alike: which fields are there says
nothing of the slate, and nothing in it can point to the target.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from recsys.errors import InputError
from recsys.recommenders.candidates import CandidateDisplay
from verbalize.verbalizers import template_expressions as expressions
from verbalize.verbalizers.base import guard_inputs, memories
from verbalize.verbalizers.sanitise import sanitise_history
from verbalize.verbalizers.templates import template

DISPLAYS = {
    "show_title": CandidateDisplay(("title",)),
    "show_title_year": CandidateDisplay(("title", "year")),
    "show_title_genres": CandidateDisplay(("title", "genres")),
    "show_title_year_genres": CandidateDisplay(("title", "year", "genres")),
}
"""Name -> what candidates show, in the order of the symbols; as an arm, each shows it to everybody."""

INSTRUCTION = (
    "Choose what a recommender is told of every film it may suggest to this viewer. "
    "Answer A for the title, B for title and year, C for title and genres, D for all three."
)
QUESTION = "Show"


@dataclass(frozen=True)
class DisplayConfig:
    """How the display policy is asked.

    template: the text of the history that the recommender reads beside every display; None is the best template on the
    selection examples. marker: the one slot, at the end of the prompt. symbols: the texts whose next-token
    probabilities are the policy, in the order of `DISPLAYS`; one token each. show_rating_in_prompt: show the policy the
    mean of the user's ratings.
    """

    template: str | None = None
    marker: str = " ->"
    symbols: tuple[str, str, str, str] = (" A", " B", " C", " D")
    instruction: str = INSTRUCTION
    show_rating_in_prompt: bool = True

    def __post_init__(self) -> None:
        if self.template is not None:
            template(self.template)
        if len(set(self.symbols)) != len(DISPLAYS):
            raise InputError(f"symbols {self.symbols}", "name four displays", "set four different ones")
        if ">" not in self.marker:
            # Sanitising leaves no ">" in any title: with it in the marker, no title can forge a slot.
            raise InputError(f"marker {self.marker!r}", "must contain '>', which no title can contain", "use ' ->'")
        if self.marker in self.instruction:
            raise InputError(f"instruction {self.instruction!r}", f"contains the marker {self.marker!r}", "reword it")


def display_prompts(inputs: pl.DataFrame, config: DisplayConfig) -> list[str]:
    """B inputs -> B prompts, each with exactly one slot, at its end.

    Layout: instruction, memory where the inputs hold any, profile of the history, its titles with metadata, "Show ->".
    """
    history = pl.col("history")
    shown = (
        guard_inputs(inputs)
        .with_columns(history=sanitise_history(history))
        .select(
            profile=expressions.profile(history, ratings=config.show_rating_in_prompt),
            events=expressions.joined(history, expressions.event_title_with_metadata()).fill_null(""),
        )
    )
    remembered = [f"{text}\n" if text else "" for text in memories(inputs)]
    return [
        f"{config.instruction}\n{memory}{profile}\n{events}\n{QUESTION}{config.marker}"
        for memory, (profile, events) in zip(remembered, shown.iter_rows(), strict=True)
    ]


def chosen_displays(inputs: pl.DataFrame, actions: Sequence[Sequence[int]]) -> list[str]:
    """One action per input -> the display it names. Raises InputError for any other number, or another symbol.

    >>> chosen_displays(pl.DataFrame({"example_id": ["x", "y"]}), [[0], [3]])
    ['show_title', 'show_title_year_genres']
    """
    names = list(DISPLAYS)
    if len(actions) != len(inputs) or any(len(row) != 1 or row[0] not in range(len(names)) for row in actions):
        raise InputError(
            f"{len(actions)} action lists for {len(inputs)} histories",
            f"each history takes exactly one action, of {list(range(len(names)))}",
            "decode the one slot of its prompt",
        )
    return [names[row[0]] for row in actions]


def constant_displays(count: int) -> dict[str, list[list[int]]]:
    """Display -> the action that chooses it, for each of `count` histories: the pool of the warm start."""
    return {name: [[symbol]] * count for symbol, name in enumerate(DISPLAYS)}
