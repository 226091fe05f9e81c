"""A cell of a table: its recipe's changes, its arms, who else reads its texts and what it is compared with."""

from dataclasses import dataclass, field
from typing import Any

from recsys.errors import InputError
from recsys.recommenders.language import MODES
from verbalize.recipe_sections import BASELINES, LEARNED, SHUFFLED
from verbalize.tables.names import check_word, reference_of

REFERENCES = ("best_template", "best_template_same_fields", "concatenation")
"""What other readers are given beside a learned text, to see its gain: the first of these among the cell's arms."""


@dataclass(frozen=True)
class Crossing:
    """Finished texts before another reader: this cell's texts read by another cell's recommender, another cell's texts
    read by this one's, or another answering mode.

    A verbalizer and its recommender may learn to please each other alone; a gain that other readers do not see is
    theirs. Other cells are of the same data set and stand before this one. A crossing in which the texts would meet
    the recommender that they were written for, in its own mode, is refused (`verbalize.tables.planning`).
    """

    recommender: str | None = None
    """The cell whose recommender reads; None is this cell's own."""
    texts: str | None = None
    """The cell whose texts are read; None is this cell."""
    mode: str | None = None
    """An answering mode of a local language model; None is that of the reader's recipe."""

    def __post_init__(self) -> None:
        if (self.recommender is None) == (self.texts is None) and (self.recommender or self.mode is None):
            raise InputError(
                f"crossed {self}", "is no pair of this cell and another reader", "name recommender, texts or a mode"
            )
        if self.mode is not None and self.mode not in MODES:
            raise InputError(f"crossed mode {self.mode!r}", f"is none of {', '.join(MODES)}", "choose one of these")

    def name(self, cell: str) -> str:
        """What stands behind the @ of an arm: the reader, where `cell` lists this crossing."""
        reader = cell if self.texts else self.recommender
        return "+".join(part for part in (reader, self.mode) if part)

    @property
    def earlier(self) -> list[str]:
        """The other cell, where there is one."""
        return [cell for cell in (self.recommender, self.texts) if cell is not None]


@dataclass(frozen=True)
class CellConfig:
    """A recipe of the table and the arms it contributes."""

    id: str
    tiers: dict[str, int]
    """Data set -> the tier in which the cell runs there."""
    overrides: dict[str, Any] = field(default_factory=dict)
    arms: tuple[str, ...] = (LEARNED,)
    """`learned`, `learned_shuffled`, templates, roles and baselines, as a recipe's claims name them. `[]` makes the
    cell a *reader*: its recommender is trained, nothing else, and it reads the texts of other cells."""
    crossed: tuple[Crossing, ...] = ()
    compare_with: str | None = None
    """An earlier cell, whose learned text this cell's learned text is compared with, or `cell/arm` (of this cell, too)
    for another arm; a cell that shows no learned text compares each of its arms. Paired over the seeds that both
    learned texts have, shown in the report, and no claim."""
    learns_from: str | None = None
    """A cell before this one, whose learned texts train this cell's recommender, beside the templates and actions of
    its `recommender_training`: the second half of a round."""

    def __post_init__(self) -> None:
        check_word("cell", self.id)
        names = [(crossing.texts, crossing.name(self.id)) for crossing in self.crossed]
        if len(set(names)) < len(names):
            raise InputError(f"cell {self.id}: crossed", "names a reader twice", "drop one of them")
        if not self.tiers or min(self.tiers.values()) < 1:
            raise InputError(f"cell {self.id}", "needs tiers from 1 on", "for example tiers: {movielens: 1}")
        if self.is_reader and (self.compare_with or any(crossing.texts is None for crossing in self.crossed)):
            raise InputError(
                f"cell {self.id} without arms",
                "is a reader and has no texts of its own",
                "give it arms, or leave it only crossings that name texts",
            )

    @property
    def is_reader(self) -> bool:
        """Whether only its recommender is wanted."""
        return not self.arms

    @property
    def reference(self) -> tuple[str, str] | None:
        """`compare_with` as (cell, arm)."""
        return reference_of(self.compare_with) if self.compare_with else None

    @property
    def compared_arms(self) -> tuple[str, ...]:
        """The arms that meet the reference: the learned text, or all where there is none."""
        return (LEARNED,) if LEARNED in self.arms else self.arms

    @property
    def gain_over(self) -> str | None:
        """The arm over which every reader's gain from the learned text is measured, if the cell has both."""
        return next((arm for arm in REFERENCES if arm in self.arms), None) if LEARNED in self.arms else None

    @property
    def crossed_arms(self) -> list[str]:
        """The arms that other readers are given: the learned text and what its gain is measured against, which is what
        a crossing is for; every text where none was learned."""
        if LEARNED in self.arms:
            return [LEARNED, *([self.gain_over] if self.gain_over else [])]
        return [arm for arm in self.arms if arm not in (*BASELINES, SHUFFLED)]

    @property
    def needs(self) -> list[str]:
        """The cells without which this one cannot run."""
        crossed = [earlier for crossing in self.crossed for earlier in crossing.earlier]
        return list(dict.fromkeys([*([self.learns_from] if self.learns_from else []), *crossed]))
