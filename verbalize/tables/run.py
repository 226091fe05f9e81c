"""Carrying a table out: cells tier by tier, each up to its decisions, then the table as far as it has come.

The order within a cell is that of every opening of test: training and validation first, then what could be seen is
stated, the looks are registered, and only then test is ranked. A look is taken at each cell, and at each claim it
serves; the same configuration again is a resumption. A cell that refuses its input does not end the table: it is named,
and what needs it stays unmeasured.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recsys.errors import InputError
from recsys.looks import LooksRegister
from recsys.storage import file_hash
from verbalize.pipeline import STORE, Context, Progress, Silent
from verbalize.recipe import Recipe
from verbalize.report.data import ReportData
from verbalize.report.provenance import revision
from verbalize.runs import run_recipe
from verbalize.stages import samples
from verbalize.stages.plan import plan_of
from verbalize.tables.crossed import Side, cross
from verbalize.tables.names import PLACE, parts_of
from verbalize.tables.planning import Planned, keys_of, left_out, plan_table
from verbalize.tables.settings import Table, TableClaim

FOLDER = "tables"


@dataclass(frozen=True)
class Done:
    """A finished cell: the folders of its stages by recipe (a reader's end with its recommender), and those of its
    crossings by recipe, cell whose texts are read and reader."""

    planned: Planned
    folders: tuple[Mapping[str, Path], ...]
    crossed: tuple[Mapping[tuple[str, str], Path], ...]


@dataclass
class State:
    """How far a table has come. `done` and `refused` by (set, cell); `missing` says why a data set has no cells."""

    table: Table
    planned: list[Planned]
    done: dict[tuple[str, str], Done] = field(default_factory=dict)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    report: ReportData | None = None

    def evaluated(self, name: str) -> list[Done]:
        """The finished cells of a data set that have arms, in the order in which they ran."""
        return [one for (own, _), one in self.done.items() if own == name and not one.planned.cell.is_reader]

    def why_not(self, name: str, cell: str) -> str:
        """Why there is no result of a cell."""
        if name in self.missing:
            return self.missing[name]
        if (name, cell) in self.refused:
            return f"cell {cell}: {self.refused[name, cell]}"
        tier = self.table.config.cell(cell).tiers[name]
        return f"cell {cell} on {name} belongs to tier {tier}, which has not been carried out"


def folder_of_table(runs: Path | str, name: str) -> Path:
    """`<runs>/tables/<name>`: the report, its tables, claims and evidence."""
    return Path(runs) / FOLDER / name


def run_table(
    table: Table,
    runs: Path | str,
    command: str,
    progress: Progress | None = None,
    up_to: int | None = None,
    record_in: Path | None = None,
    formats: Sequence[str] = (),
) -> State:
    """Carry out what is not up to date, up to and including tier `up_to`; after each tier write the table into
    `<runs>/tables/<name>`, figures in `formats` with it, and, with `record_in`, its claims into the ledger of the
    repository there.

    Calling it again after any interruption resumes. Raises InputError for a table that cannot run at all.
    """
    from verbalize.tables.report import write_table

    progress, folder = progress or Silent(), folder_of_table(runs, table.config.name)
    for name, one in table.config.sets.items():
        if one.given and table.config.data is not None:
            _check_files(Path(table.config.data), one.sha256, name)
    state = State(table, plan_table(table, Path(runs) / STORE))
    state.missing = left_out(table)
    for reason in state.missing.values():
        progress.stage("table", "leaves out", reason)
    for tier, cells in itertools.groupby(state.planned, key=lambda planned: planned.tier):
        if up_to is not None and tier > up_to:
            break
        for planned in cells:
            progress.stage("table", f"tier {tier}", planned.name)
            try:
                state.done[planned.set, planned.cell.id] = _carry_out(state, planned, runs, command, progress)
            except InputError as error:
                state.refused[planned.set, planned.cell.id] = str(error)
                progress.stage("table", "refused", f"{planned.name}: {error}")
        state.report = write_table(state, folder, command, record_in, formats)
        progress.stage("table", "wrote", f"tier {tier}" + (", recorded" if record_in else ""))
    if state.report is None:
        state.report = write_table(state, folder, command, record_in, formats)
    return state


def _carry_out(state: State, planned: Planned, runs: Path | str, command: str, progress: Progress) -> Done:
    for earlier in planned.cell.needs:
        if (planned.set, earlier) not in state.done:
            raise InputError(
                f"cell {planned.cell.id}", f"needs {earlier}, which has no result", "see to that one first"
            )
    store = Path(runs) / STORE
    folders: list[Mapping[str, Path]] = []
    crossed: list[Mapping[tuple[str, str], Path]] = []
    for place, recipe in enumerate(planned.recipes):
        reading = planned.cell.is_reader  # it opens no test users: the cells whose texts it reads have
        trained = run_recipe(recipe, runs, command, progress, until="recommender" if reading else "train")
        if recipe.evaluation.split == "test" and not reading:
            _look(state, planned, recipe, trained.stages)
        last = trained if reading else run_recipe(recipe, runs, command, progress, until="evaluate")
        folders.append(last.stages)
        mine: dict[tuple[str, str], Path] = {}
        for crossing in planned.cell.crossed:
            own = Side(planned.cell, recipe, folders[-1])
            writer, reader = (
                own if cell is None else _side(state.done[planned.set, cell], place)
                for cell in (crossing.texts, crossing.recommender)
            )
            limit = state.table.config.crossed_examples
            found = cross(writer, reader, crossing.mode, store, command, progress, limit)
            mine[writer.cell.id, crossing.name(planned.cell.id)] = found
        crossed.append(mine)
    return Done(planned, tuple(folders), tuple(crossed))


def _side(done: Done, place: int) -> Side:
    """A finished cell as one side of a crossing."""
    return Side(done.planned.cell, done.planned.at(place), done.folders[min(place, len(done.folders) - 1)])


def _look(state: State, planned: Planned, recipe: Recipe, folders: Mapping[str, Path]) -> None:
    """Register a look for every claim that this cell serves; its own look the evaluation registers itself."""
    config = state.table.config
    claims = [claim for claim in config.claims if claim.id and planned.set in claim.sets]
    serves = [claim for claim in claims if planned.cell.id in cells_of(state.table, claim)]
    if not serves:
        return
    examples = samples.load_examples(folders["examples"], "test", recipe.sample.test)
    plan = plan_of(recipe, Context(folders["templates"], folders), examples)
    for claim in serves:
        LooksRegister(config.register).open(
            claim.id.replace(PLACE, planned.set),
            digest=_digest(state, planned.set, claim),
            arms=[claim.a, claim.b],
            n=plan["n"],
            n_effective=plan["n_effective"],
            mde=plan["detectable"]["absolute"],
            revision=revision(),
        )


def cells_of(table: Table, claim: TableClaim) -> list[str]:
    """The cells whose decisions a claim may rest on, recommenders of crossings included."""
    found = []
    for place in (claim.a, claim.b):
        name, _, crossing = parts_of(place)
        for cell in table.config.candidates(name):
            found.append(cell)
            if crossing:
                owner, one = table.config.crossings_of(cell)[crossing]
                found += [owner.id, *one.earlier]
    return list(dict.fromkeys(found))


def _digest(state: State, name: str, claim: TableClaim) -> str:
    """What is looked at: both arms and the evaluations of all cells concerned, all of it known before any has run."""
    cells = cells_of(state.table, claim)
    keys = {
        planned.cell.id: [keys_of(recipe)["evaluate"] for recipe in planned.recipes]
        for planned in state.planned
        if planned.set == name and planned.cell.id in cells
    }
    parts = [claim.a, claim.b, claim.kind, keys]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _check_files(folder: Path, expected: Mapping[str, str], name: str) -> None:
    """Refuse other bytes than those the table was written for."""
    for file, wanted in expected.items():
        path = folder / file
        if not path.is_file():
            raise InputError(f"data={folder}", f"holds no {file}, which set {name} reads", "give another folder")
        if (found := file_hash(path)) != wanted:
            raise InputError(
                f"{path} with sha256 {found}",
                f"is not the file that set {name} was written for ({wanted})",
                "fetch that version, or set sets.NAME.sha256 to {} and call the result another one",
            )
