"""A run's, several runs' or a sweep's report as files: HTML, tables as CSV and LaTeX, figures as SVG and PDF."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import InputError
from recsys.storage import read_json, replacing, write_text
from verbalize.pipeline import STORE, folder_of
from verbalize.report.data import ReportData
from verbalize.report.exported import note
from verbalize.report.html import render_html
from verbalize.report.paper_figures import USUAL, write_figures, write_sweep_figures
from verbalize.report.sets import runs_report
from verbalize.report.store import FILE, load
from verbalize.report.sweep import sweep_report
from verbalize.report.tables import frames_of, latex_of
from verbalize.report.trials import Objective, SweepTable, trials_frame


def export_runs(folders: Sequence[Path], out: Path, formats: Sequence[str] = USUAL) -> list[Path]:
    """Write the reports of finished runs below `out`; returns the files, the page to open first.

    One run: report.html, tables/, figures/. Several: runs.html over all of them, and the same for each below its name.
    Each run's folder notes where its export went (`exported`). Raises InputError for a folder that is no finished run,
    or two runs of one name.
    """
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) != len(names):
        raise InputError(f"runs {names}", "need names of their own", "rename a run: verbalize report RECIPE name=other")
    found = {name: report_of(folder) for name, folder in zip(names, folders, strict=True)}
    for folder in folders:
        note(folder, out)
    if len(found) == 1:
        written = write_report(next(iter(found.values()))[0], out, formats)
        note(folders[0], out, written)
        return written
    pages = [out / "runs.html"]
    reports = {name: data for name, (data, _) in found.items()}
    write_text(runs_report(reports, {name: recipe for name, (_, recipe) in found.items()}), pages[0])
    for folder, name in zip(folders, names, strict=True):
        written = write_report(reports[name], out / name, formats)
        note(folder, out, [pages[0], *written])
        pages += written
    return pages


def report_of(folder: Path) -> tuple[ReportData, Any]:
    """A run's report data and its recipe's plain values, from `<runs>/<name>` and the store beside it."""
    if not (folder / "manifest.json").exists():
        raise InputError(str(folder), "holds no run", "give a folder such as runs/demo")
    manifest = read_json(folder / "manifest.json")
    if "report" not in manifest["stages"]:
        raise InputError(str(folder), "has not come to its report", "run `verbalize report RECIPE` first")
    stage = folder_of(folder.resolve().parent / STORE, "report", manifest["stages"]["report"]["key"])
    return load(stage / FILE), manifest["recipe"]


def write_report(data: ReportData, out: Path, formats: Sequence[str] = USUAL) -> list[Path]:
    """One report's files below `out`."""
    page = out / "report.html"
    write_text(render_html(data), page)
    written = [page]
    for name, frame in frames_of(data).items():
        written.append(_write_csv(frame, out / "tables" / f"{name}.csv"))
    for name, text in latex_of(data).items():
        written.append(out / "tables" / f"{name}.tex")
        write_text(text, written[-1])
    return written + (write_figures(data, out / "figures", formats) if formats else [])


def export_sweep(
    table: SweepTable, out: Path, final: Mapping[str, Any] | None = None, formats: Sequence[str] = USUAL
) -> list[Path]:
    """A sweep's files below `out`: sweep.html, tables/trials.csv, figures/. `final`: the contents of its final.json."""
    page = out / "sweep.html"
    write_text(sweep_report(table, final), page)
    written = [page, _write_csv(trials_frame(table), out / "tables" / "trials.csv")]
    return written + (write_sweep_figures(table, out / "figures", formats) if formats else [])


def table_of_sweep(folder: Path, url: str | None = None) -> SweepTable:
    """The trials of `<runs>/sweeps/<name>`, from its journal or, at `url`, from the database that a sweep named.

    Raises InputError for a folder that is no sweep, and where the trials are in a database and `url` is missing.
    """
    import optuna

    from verbalize.report.optuna_trials import table_of_study
    from verbalize.sweeps.results import RESULTS
    from verbalize.sweeps.storage import JOURNAL, open_storage

    if not (folder / RESULTS).exists():
        raise InputError(str(folder), "holds no results of a sweep", "run `verbalize sweep FILE` first")
    if url is None and not (folder / JOURNAL).exists():
        raise InputError(str(folder), "keeps its trials in a database", "give its address: --storage URL")
    found = read_json(folder / RESULTS)
    metric, *costs = found["objective"]
    study = optuna.load_study(study_name=found["sweep"], storage=open_storage(url, folder))
    return table_of_study(study, [Objective(metric), *(Objective(cost, maximise=False) for cost in costs)])


def final_of_sweep(folder: Path) -> dict[str, Any] | None:
    """What `verbalize sweep --final` found on test users; None where it was not run."""
    from verbalize.sweeps.results import FINAL

    return read_json(folder / FINAL) if (folder / FINAL).exists() else None


def _write_csv(frame: pl.DataFrame, path: Path) -> Path:
    with replacing(path) as temporary:
        frame.write_csv(temporary)
    return path
