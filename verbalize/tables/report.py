"""A table as a report: arms with intervals, claims and decomposition, and what other readers make of the same texts."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recsys.comparison import Comparison, compare, summarise
from recsys.errors import InputError
from recsys.looks import LooksRegister
from recsys.significance import holm
from recsys.storage import read_json, write_text
from verbalize.recipe import LEARNED
from verbalize.report.console import render_console
from verbalize.report.data import ReportData, Shown
from verbalize.report.export import write_report
from verbalize.report.provenance import hardware, revision, today
from verbalize.report.sets import SLATES, combined
from verbalize.report.views import signed
from verbalize.tables.claims import measurables, record, write_claims
from verbalize.tables.results import (
    decisions_of_set,
    learned_arms,
    readers_of,
    resolved,
    roles_of,
    selection_mrr,
    tokens_of_set,
)
from verbalize.tables.run import State
from verbalize.tables.settings import PLACE

METRICS = ("recall@1", "mrr", "ndcg@10")
REFERENCES = ("best_template", "best_template_same_fields", "concatenation")
"""What a crossed learned text is compared with: the first of these among the cell's arms."""


def write_table(state: State, folder: Path, command: str, record_in: Path | None = None) -> ReportData:
    """Write report.html, report.txt and tables/ (CSV, LaTeX) of all that is done; with `record_in`, enter the claims
    into the ledger there."""
    reports: dict[str, ReportData] = {}
    for name in state.table.config.sets:
        decisions = decisions_of_set(state, name)
        claims = write_claims(state, name, decisions, folder, command)
        if record_in is not None:
            record(state, name, decisions, record_in, command)
        reports[name] = _report(state, name, decisions, tuple(claims), command)
    one = len(reports) == 1
    data = next(iter(reports.values())) if one else combined(reports)
    notes = [note if one else f"{name}: {note}" for name, report in reports.items() for note in report.notes]
    looks = LooksRegister(state.table.config.register).entries()
    mine = {claim.id for report in reports.values() for claim in report.claims}
    data = dataclasses.replace(
        data,
        title=state.table.config.title or state.table.config.name,
        subtitle=_subtitle(state),
        notes=tuple(notes),
        looks=tuple(look for look in looks if look["claim_id"] in mine),
    )
    write_report(data, folder, formats=())
    write_text(render_console(data), folder / "report.txt")
    return data


def comparisons_of_set(state: State, name: str, decisions: pl.DataFrame) -> list[Shown]:
    """Claims first, adjusted together; then what is shown without being claimed; then the crossings."""
    primary: dict[str, tuple[str, Comparison]] = {}
    for one in measurables(state, name):
        if one.claim.kind == "recall" and not one.reason:
            a, b = (one.estimator.parameters[side] for side in ("a", "b"))
            found = compared(decisions, a, b, one.claim.relative)
            primary[one.claim.id] = (one.claim.statement.replace(PLACE, name), found)
    mde = _detectable(state, name)
    adjusted = holm({key: found.p for key, (_, found) in primary.items()}) if primary else {}
    shown = [
        Shown(label, found, None if found.relative else mde, adjusted[key]) for key, (label, found) in primary.items()
    ]
    for claim in state.table.config.claims:
        if not claim.id and name in claim.sets:
            try:
                a, b = (resolved(state, name, place) for place in (claim.a, claim.b))
            except InputError:
                continue  # its cells are among the notes
            found = compared(decisions, a, b, claim.relative)
            label = claim.statement.replace(PLACE, name)
            shown.append(Shown(label, found, None if found.relative else mde, primary=False))
    return [*shown, *(one for gains in crossed_gains(state, name, decisions).values() for one in gains.values())]


def crossed_gains(state: State, name: str, decisions: pl.DataFrame) -> dict[str, dict[str, Shown]]:
    """Cell -> reader -> gain of its learned texts over its reference; the reader "" is the cell's own recommender."""
    found: dict[str, dict[str, Shown]] = {}
    for (own, cell), done in state.done.items():
        arms = done.planned.cell.arms
        reference = next((arm for arm in REFERENCES if arm in arms), None)
        readers = readers_of(state, name, cell) if own == name and reference and LEARNED in arms else []
        for reader in ("", *readers) if readers else ():
            at = f"@{reader}" if reader else ""
            gain = compared(decisions, f"{cell}/{LEARNED}{at}", f"{cell}/{reference}{at}")
            label = f"{cell}: {LEARNED} − {reference}, read by {reader or 'its own recommender'}"
            found.setdefault(cell, {})[reader] = Shown(label, gain, primary=False)
    return found


def reading_of(gains: Mapping[str, Shown]) -> str:
    """Whether a gain is seen by every reader, in words; `gains` as in `crossed_gains`."""
    own, others = gains[""].comparison, {name: one.comparison for name, one in gains.items() if name}
    listed = "; ".join(
        f"{name or 'its own recommender'} {signed(one.difference)} [{signed(one.low)}, {signed(one.high)}]"
        for name, one in {"": own, **others}.items()
    )
    gaining = [name or "its own recommender" for name, one in {"": own, **others}.items() if one.low > 0]
    if not gaining:
        return f"no reader shows a gain ({listed})."
    if len(gaining) == len(gains):
        return f"the gain is seen by every reader ({listed})."
    return f"the gain is specific to {', '.join(gaining)} ({listed})."


def compared(decisions: pl.DataFrame, a: str, b: str, relative: bool = False) -> Comparison:
    """Recall@1 of two of the table's arms, by name, whoever read them."""
    flat = decisions.filter(pl.col("verbalizer").is_in([a, b])).with_columns(recommender=pl.lit(""))
    return compare(flat, (a, ""), (b, ""), relative=relative)


def summary(state: State) -> dict[str, Any]:
    """The table as plain values: cells by state, claims, and Recall@1 of every arm."""
    data = state.report or ReportData("")
    arms = data.arms.filter(pl.col("metric") == METRICS[0]) if len(data.arms) else data.arms
    return {
        "table": state.table.config.name,
        "done": [f"{name}.{cell}" for name, cell in state.done],
        "refused": {f"{name}.{cell}": why for (name, cell), why in state.refused.items()},
        "left_out": state.missing,
        "claims": [claim.to_json() for claim in data.claims],
        "arms": arms.select("verbalizer", "recommender", "n", "n_effective", "value", "low", "high").to_dicts(),
    }


def _report(state: State, name: str, decisions: pl.DataFrame | None, claims: Sequence[Any], command: str) -> ReportData:
    if decisions is None:
        return ReportData(title=name, claims=tuple(claims), notes=tuple(_unfinished(state, name)))
    gains = crossed_gains(state, name, decisions)
    first = next(one for (own, _), one in state.done.items() if own == name)
    audits = read_json(first.folders[0]["evaluate"] / "done.json")["facts"]["audits"]
    return ReportData(
        title=name,
        claims=tuple(claims),
        arms=summarise(decisions, METRICS),
        tokens=tokens_of_set(state, name),
        learned=learned_arms(state, name),
        comparisons=tuple(comparisons_of_set(state, name, decisions)),
        provenance={
            "command": command,
            "revision": revision(),
            "date": today(),
            "hardware": hardware(),
            SLATES: audits["slates_sha256"],
        },
        notes=(
            *_chosen(state, name),
            *(f"{cell}: {reading_of(readers)}" for cell, readers in gains.items()),
            *_unfinished(state, name),
        ),
    )


def _detectable(state: State, name: str) -> float | None:
    """The smallest difference of Recall@1 that could be seen, as the first cell stated it before it looked."""
    first = next(done for (own, _), done in state.done.items() if own == name)
    plan = read_json(first.folders[0]["evaluate"] / "plan.json")
    smallest: float | None = plan["detectable"]["absolute"]
    return smallest


def _chosen(state: State, name: str) -> list[str]:
    """Which finalist stands for a name, and which templates play which role; all of it decided on validation."""
    found = []
    for alias, cells in state.table.config.finalists.items():
        if all((name, cell) in state.done for cell in cells):
            scores = {cell: selection_mrr(state.done[name, cell]) for cell in cells}
            listed = ", ".join(f"{cell} {score:.3f}" for cell, score in scores.items())
            found.append(f"{alias} is {max(scores, key=lambda c: scores[c])} (MRR on selection users: {listed}).")
    for (own, cell), done in state.done.items():
        if own == name:
            roles = [roles_of(folders) for folders in done.folders]
            named = {role: sorted({one[role] for one in roles}) for role in roles[0] if role in done.planned.cell.arms}
            listed = ", ".join(f"{role} = {' or '.join(names)}" for role, names in named.items())
            found += [f"{cell}, chosen on validation: {listed}."] if listed else []
    return found


def _unfinished(state: State, name: str) -> list[str]:
    if name in state.missing:
        return [f"left out: {state.missing[name]}."]
    later = [one.cell.id for one in state.planned if one.set == name and (name, one.cell.id) not in state.done]
    refused = [cell for cell in later if (name, cell) in state.refused]
    waiting = [cell for cell in later if cell not in refused]
    found = [f"cell {cell} was refused: {state.refused[name, cell]}" for cell in refused]
    return [*found, *([f"not carried out yet: {', '.join(waiting)}."] if waiting else [])]


def _subtitle(state: State) -> str:
    done, planned = len(state.done), len(state.planned)
    tiers = sorted({one.planned.tier for one in state.done.values()})
    return f"{done} of {planned} cells done" + (f", tiers {', '.join(map(str, tiers))}" if tiers else "")
