"""A table as a report: arms with intervals, their comparisons, and what is chosen, specific or unfinished, in words."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recsys.comparison import summarise
from recsys.looks import LooksRegister
from recsys.storage import read_json, write_text
from verbalize.report.console import render_console
from verbalize.report.data import ReportData
from verbalize.report.export import write_report
from verbalize.report.paper_figures import write_figures
from verbalize.report.provenance import hardware, revision, today
from verbalize.report.sets import SLATES, combined
from verbalize.tables.claims import record, write_claims
from verbalize.tables.comparisons import blind_readers, comparisons_of_set, crossed_gains, reading_of
from verbalize.tables.results import decisions_of_set, learned_arms, roles_of, selection_mrr, tokens_of_set
from verbalize.tables.run import State

METRICS = ("recall@1", "mrr", "ndcg@10")


def write_table(
    state: State, folder: Path, command: str, record_in: Path | None = None, formats: Sequence[str] = ()
) -> ReportData:
    """Write report.html, report.txt, tables/ (CSV, LaTeX) and figures/ (in `formats`, a folder per data set) of what is
    done; with `record_in`, enter the claims into the ledger there."""
    reports: dict[str, ReportData] = {}
    for name in state.table.config.asked:
        decisions = decisions_of_set(state, name)
        claims = write_claims(state, name, decisions, folder, command)
        if record_in is not None:
            record(state, name, decisions, record_in, command)
        reports[name] = _report(state, name, decisions, tuple(claims), command)
        if formats and len(reports[name].arms):
            write_figures(reports[name], folder / "figures" / name, formats)
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
    gains, arms = crossed_gains(state, name, decisions), summarise(decisions, METRICS)
    audits = read_json(state.evaluated(name)[0].folders[0]["evaluate"] / "done.json")["facts"]["audits"]
    return ReportData(
        title=name,
        claims=tuple(claims),
        arms=arms,
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
            *(f"{cell}: {reading_of(readers, blind_readers(readers, arms))}" for cell, readers in gains.items()),
            *_unfinished(state, name),
        ),
    )


def _chosen(state: State, name: str) -> list[str]:
    """Which finalist stands for a name, and which templates play which role; all of it decided on validation."""
    found = []
    for alias, cells in state.table.config.finalists.items():
        if all((name, cell) in state.done for cell in cells):
            scores = {cell: selection_mrr(state.done[name, cell]) for cell in cells}
            listed = ", ".join(f"{cell} {score:.3f}" for cell, score in scores.items())
            found.append(f"{alias} is {max(scores, key=lambda c: scores[c])} (MRR on selection users: {listed}).")
    for done in state.evaluated(name):
        cell, roles = done.planned.cell, [roles_of(folders) for folders in done.folders]
        named = {role: sorted({one[role] for one in roles}) for role in roles[0] if role in cell.arms}
        listed = ", ".join(f"{role} = {' or '.join(names)}" for role, names in named.items())
        found += [f"{cell.id}, chosen on validation: {listed}."] if listed else []
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
