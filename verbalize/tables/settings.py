"""A table's YAML file as frozen dataclasses: data sets, cells (`verbalize.tables.cells`), claims.

A cell is an ordinary recipe: that of its data set, with the overrides of the set, of the table and its own. Cells share
logs, examples, recommenders and trainings through the store of stages, so a table costs what its different parts cost.
Loading checks what needs no recipe; `verbalize.tables.planning` builds every cell's recipe.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from recsys.errors import InputError
from verbalize.config import build, load_yaml, override
from verbalize.report.claims import check_claim_id
from verbalize.tables.cells import CellConfig, Crossing
from verbalize.tables.names import PLACE, check_among, check_word, parts_of, shuffled_of


@dataclass(frozen=True)
class SetConfig:
    """A data set: a recipe that says how it is read and which slates are ranked."""

    recipe: str
    """Path, from the table file's own folder."""
    overrides: dict[str, Any] = field(default_factory=dict)
    given: bool = False
    """Its source is the folder that `data=PATH` names; without one its cells wait."""
    origin: str = ""
    """Where anyone can get the files: repository and commit."""
    sha256: dict[str, str] = field(default_factory=dict)
    """File below the folder -> hash; other bytes are refused."""


@dataclass(frozen=True)
class TableClaim:
    """A comparison of two arms on each of its data sets; with an id it is a claim of the ledger, listed beforehand.

    An arm is `cell/arm`, or `cell/arm@crossing`; a cell may be a name of `finalists`.
    recall:          Recall@1 of a against b, absolute or `relative`
    surviving_share: share of a's gain over b that is left when a's texts are handed to other users
    """

    statement: str
    sets: tuple[str, ...]
    a: str
    b: str
    id: str = ""
    kind: Literal["recall", "surviving_share"] = "recall"
    relative: bool = False
    target: float | None = 0.0
    direction: Literal["higher", "lower"] = "higher"
    criterion: Literal["interval", "value"] = "interval"

    def __post_init__(self) -> None:
        for name in self.sets if self.id else ():
            check_claim_id(self.id.replace(PLACE, name))
        if len(self.sets) > 1 and self.id and PLACE not in self.id:
            raise InputError(f"claim {self.id}", "would be one id for several data sets", f"write {PLACE} into it")
        if self.kind == "surviving_share" and (self.relative or not self.id):
            raise InputError(f"claim {self.id or self.statement!r}", "is a share already, and a claim", "mend it")


@dataclass(frozen=True)
class TableConfig:
    """A whole table file."""

    name: str
    sets: dict[str, SetConfig]
    cells: tuple[CellConfig, ...]
    title: str = ""
    claims: tuple[TableClaim, ...] = ()
    finalists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Name -> cells; of these the one whose learned texts have the highest MRR on the selection users stands for the
    name. So a claim may speak of the best learned text without anyone having looked at test."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Of every cell, after those of the data set and before the cell's own."""
    paired_seeds: bool = False
    """Each seed trains a recommender of its own (its `recommender_training.seed`), so that intervals know that luck
    too. False trains one recommender for all seeds of a cell, at a fraction of the cost."""
    crossed_examples: int | None = None
    """How many of a cell's examples other readers are given, the first in its order; None is all. Crossings are half of
    what a table costs, and say who sees a gain, which takes fewer examples than the claims. The own reader's gain
    beside theirs is then that of the same examples."""
    data: str | None = None
    """Folder of the data sets that are `given`."""
    only: tuple[str, ...] = ()
    """The data sets to carry out now; none named: all. The same table run again with others keeps what is recorded."""
    register: str = "runs/looks.json"

    def __post_init__(self) -> None:
        check_word("name", self.name)
        for name in self.sets:
            check_word("set", name)
        for name in self.only:
            check_among("only: set", name, self.sets)
        known: list[str] = []
        for cell in self.cells:
            if cell.id in known:
                raise InputError(f"cell {cell.id}", "is there twice", "give every cell its own id")
            self._check_others(cell, known)
            for name in cell.tiers:
                check_among(f"cell {cell.id}: set", name, self.sets)
            known.append(cell.id)
        for name, cells in self.finalists.items():
            check_word("finalists", name)
            if name in known or not cells:
                raise InputError(f"finalists.{name}", "names a cell, or nobody", "give it a name and cells of its own")
            for one in cells:
                check_among(f"finalists.{name}: cell", one, known)
        if self.crossed_examples is not None and self.crossed_examples < 1:
            raise InputError(f"crossed_examples {self.crossed_examples}", "must be at least 1", "set null for all")
        for claim in self.claims:
            self._check_claim(claim)

    @property
    def asked(self) -> list[str]:
        """The data sets that are carried out, in the order of the file."""
        return [name for name in self.sets if name in self.only or not self.only]

    def cell(self, name: str) -> CellConfig:
        """The cell of that id."""
        return next(cell for cell in self.cells if cell.id == name)

    def crossings_of(self, name: str) -> dict[str, tuple[CellConfig, Crossing]]:
        """Who else reads a cell's texts: name of the reader -> the cell that lists the crossing, and the crossing."""
        return {
            crossing.name(cell.id): (cell, crossing)
            for cell in self.cells
            for crossing in cell.crossed
            if (crossing.texts or cell.id) == name
        }

    def candidates(self, name: str) -> tuple[str, ...]:
        """The cells that a claim's cell may mean: itself, or the finalists under that name."""
        return self.finalists.get(name, (name,))

    def _check_others(self, cell: CellConfig, known: list[str]) -> None:
        for earlier in cell.needs:
            self._check_earlier(cell, earlier, known)
        writers = [("texts", one.texts) for one in cell.crossed] + [("learns_from", cell.learns_from)]
        for what, writer in writers:
            if writer is not None and self.cell(writer).is_reader:
                raise InputError(f"cell {cell.id}: {what} {writer}", "is a reader and writes none", "name another cell")
        if cell.reference is not None:
            other, arm = cell.reference
            if other != cell.id:
                self._check_earlier(cell, other, known)
            check_among(f"cell {cell.id}: compare_with, arm of {other}", arm, self.cell(other).arms)
            if (other, (arm,)) == (cell.id, cell.compared_arms):
                raise InputError(f"cell {cell.id}: compare_with", "is the arm itself", "name another cell or arm")

    def _check_earlier(self, cell: CellConfig, earlier: str, known: list[str]) -> None:
        check_among(f"cell {cell.id}: earlier cell", earlier, known)
        for name, tier in cell.tiers.items():
            if self.cell(earlier).tiers.get(name, tier + 1) > tier:
                raise InputError(
                    f"cell {cell.id} in set {name}, tier {tier}",
                    f"needs {earlier}, which does not run there by then",
                    f"give {earlier} a tier up to {tier} there",
                )

    def _check_claim(self, claim: TableClaim) -> None:
        label = f"claim {claim.id or claim.statement!r}"
        for name in claim.sets:
            check_among(f"{label}: set", name, self.sets)
        arms = [claim.a, claim.b, *([shuffled_of(claim.a)] if claim.kind == "surviving_share" else [])]
        for place in arms:
            named, arm, crossing = parts_of(place)
            check_among(f"{label}: cell", named, [*(cell.id for cell in self.cells), *self.finalists])
            if crossing and claim.id and self.crossed_examples is not None:
                raise InputError(
                    f"{label}: arm {place}",
                    f"is given to another reader on {self.crossed_examples} examples only, and a claim needs all",
                    "set crossed_examples: null, or take the id from the claim",
                )
            for cell in map(self.cell, self.candidates(named)):
                check_among(f"{label}: arm of {cell.id}", arm, cell.arms)
                if crossing:
                    check_among(f"{label}: reader of {cell.id}", crossing, self.crossings_of(cell.id))
                    check_among(f"{label}: arm of {cell.id} given to other readers", arm, cell.crossed_arms)
                for name in claim.sets:
                    check_among(f"{label}: set of {cell.id}", name, cell.tiers)


@dataclass(frozen=True)
class Table:
    """A table and where its file lies, from which recipes are found."""

    config: TableConfig
    path: Path

    def recipe_path(self, name: str) -> Path:
        """The recipe file of a data set."""
        return Path(os.path.normpath(self.path.parent / self.config.sets[name].recipe))


def load_table(path: Path | str, overrides: Iterable[str] = ()) -> Table:
    """Read a table file, `key=value` overrides of its own keys applied. Raises InputError as `load_recipe` does."""
    return Table(build(TableConfig, override(load_yaml(path), overrides)), Path(path))


def assignments(values: Mapping[str, Any], where: str = "") -> list[str]:
    """`key=value` overrides of nested values; sections are merged key by key, lists and scalars replaced.

    >>> assignments({"train": {"steps": 3}, "policy.kind": "rewrite", "recommender_training": None})
    ['train.steps=3', 'policy.kind="rewrite"', 'recommender_training=null']
    """
    import json

    found = []
    for key, value in values.items():
        name = f"{where}.{key}" if where else str(key)
        if isinstance(value, Mapping) and value:
            found += assignments(value, name)
        else:
            found.append(f"{name}={json.dumps(value, ensure_ascii=False)}")
    return found
