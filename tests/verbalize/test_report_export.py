"""Reports as files: the stored is the shown, tables hold the report's numbers, figures are whole, sets are honest."""

import builtins
import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import optuna
import polars as pl
import pytest
from conftest import Finished, Workshop
from hypothesis import given
from hypothesis import strategies as st
from report_sample import sample_report
from sweep_sample import sample_sweep
from test_report_html import Page
from tiny_run import run

from recsys.errors import CorruptFileError, InputError
from recsys.storage import read_json, read_parquet, write_json
from verbalize import cli
from verbalize.report.data import ReportData
from verbalize.report.export import export_runs, export_sweep, report_of, write_report
from verbalize.report.html import render_html
from verbalize.report.paper_figures import write_figures
from verbalize.report.sets import SLATES, comparable, differences, runs_report
from verbalize.report.store import load, save
from verbalize.report.tables import frames_of, latex, latex_of
from verbalize.sweeps.storage import open_storage

SPECIAL = set("\\{}$&%#_~^")


@pytest.fixture(scope="module")
def data() -> ReportData:
    return sample_report(users=20)


def test_a_stored_report_gives_the_same_page(data: ReportData, tmp_path: Path) -> None:
    save(data, tmp_path / "report.json")
    assert render_html(load(tmp_path / "report.json")) == render_html(data)
    save(ReportData("Nothing yet"), tmp_path / "empty.json")
    assert render_html(load(tmp_path / "empty.json")) == render_html(ReportData("Nothing yet"))


def test_broken_stores_are_named(data: ReportData, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(InputError, match="verbalize report"):
        load(path)
    save(data, path)
    value = read_json(path)
    for broken in (value | {"format": 99}, [], {k: v for k, v in value.items() if k != "arms"}, value | {"arms": 3}):
        write_json(broken, path)
        with pytest.raises((InputError, CorruptFileError), match="report"):
            load(path)


def test_tables_hold_the_reports_numbers(data: ReportData, tmp_path: Path) -> None:
    files = write_report(data, tmp_path, formats=[])
    arms = pl.read_csv(tmp_path / "tables" / "arms.csv")
    assert arms["value"].to_list() == data.arms["value"].to_list() and len(arms) == len(data.arms)
    compared = pl.read_csv(tmp_path / "tables" / "comparisons.csv")
    assert compared["value"].to_list() == [shown.comparison.value for shown in data.comparisons]
    curves = pl.read_csv(tmp_path / "tables" / "curves.csv")
    assert len(curves) == sum(frame.drop("step").count().sum_horizontal().item() for frame in data.curves.values())
    assert files[0] == tmp_path / "report.html" and all(path.stat().st_size for path in files)
    tex = (tmp_path / "tables" / "arms.tex").read_text()
    best = data.arms.filter(metric="recall@1").sort("value", descending=True).row(0, named=True)
    first = tex.split(r"\midrule")[1].strip().splitlines()[0]
    assert first.startswith(best["verbalizer"].replace("_", r"\_")) and f"& {best['value']:.3f} &" in first
    assert set(frames_of(ReportData("x"))) == set() and latex_of(ReportData("x")) == {}


@given(st.text(max_size=40))
def test_no_text_breaks_out_of_a_latex_cell(text: str) -> None:
    """What is left after taking away the commands we write holds no special character and no line break."""
    cell = latex(text)
    known = r"\\text[a-z]+\{\}|\\[{}$&%#_]|\$(-|\\times|\\geq|\\leq)\$"
    rest = re.sub(known, "", cell)
    assert not SPECIAL & set(rest) and "\n" not in cell


def test_figures_are_whole_searchable_and_reproducible(data: ReportData, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_report(data, tmp_path / "a")
    export_sweep(sample_sweep(30), tmp_path / "a" / "sweep")
    again = write_figures(dataclasses.replace(data, curves={}), tmp_path / "b")
    names = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("figures/*")}
    stems = {name.stem for name in names}
    assert {"arms", "tradeoff", "comparisons", "curves", "slice-target-position"} <= stems
    assert {"best_so_far", "importance-recall-at-1", "sweep_tradeoff"} <= stems
    for name in names:
        content = (tmp_path / "a" / name).read_bytes()
        assert content.startswith(b"%PDF-" if name.suffix == ".pdf" else b"<?xml")
    assert len(again) >= 8
    assert all(path.read_bytes() == (tmp_path / "a" / "figures" / path.name).read_bytes() for path in again)
    arms = ElementTree.parse(tmp_path / "a" / "figures" / "arms.svg")
    words = " ".join(arms.getroot().itertext())
    assert "actions · smollm2-135m" in words and "95% interval" in words


def test_without_matplotlib_the_remedy_is_named(
    data: ReportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"verbalize\[figures\]"):
        write_report(data, tmp_path)
    assert write_report(data, tmp_path, formats=[])
    with pytest.raises(InputError):
        write_report(data, tmp_path, formats=["gif"])


def test_a_set_of_runs_stands_side_by_side(data: ReportData) -> None:
    same = dataclasses.replace(data, provenance={**data.provenance, SLATES: "aa"})
    other = dataclasses.replace(data, provenance={**data.provenance, SLATES: "bb"})
    assert "may be compared" in comparable({"a": same, "b": same})
    assert "must not be compared" in comparable({"a": same, "b": other})
    assert "Not every run" in comparable({"a": same, "b": data})
    html = runs_report({"<i>": same, "b": other}, {"<i>": {"x": {"y": [1]}, "name": "<i>"}, "b": {"x": {"y": [2]}}})
    page = Page(html)
    words = " ".join(page.words)
    assert page.open == [] and "<i>" not in html and "<i>: actions" in words and "b: actions" in words
    assert "must not be compared" in words and "x.y" in words
    assert ">&lt;i&gt;: actions</text>" in html and ">b: actions</text>" in html  # the trade-off names run and arm
    assert html.count("<details") == 0  # examples stay in the runs' own reports
    with pytest.raises(InputError, match="at least two"):
        runs_report({"a": same})
    assert differences({"a": {"k": 1}, "b": {}}) == [("k", ["1", "–"])]


@pytest.fixture(scope="module")
def two(workshop: Workshop, finished: Finished) -> Sequence[Path]:
    """The finished run, and a second one that differs in its report alone."""
    second = run(workshop.values, finished.runs, "name=second", "evaluation.example_browser=0")
    return [finished.result.folder, second.folder]


def test_a_real_run_is_exported_as_it_reported(two: Sequence[Path], tmp_path: Path) -> None:
    files = export_runs(two[:1], tmp_path, formats=[])
    assert files[0].read_text() == (two[0] / "report.html").read_text()
    data, recipe = report_of(two[0])
    assert recipe["name"] == "tiny" and data.learned == {"learned"}
    decisions = read_parquet(next((two[0].parent / "artefacts" / "evaluate").glob("*/decisions.parquet")))
    assert set(data.arms["verbalizer"]) <= set(decisions["verbalizer"])
    for example in data.examples:
        for arm in example.arms:
            if arm.arm == "titles":
                assert arm.reading.kept == tuple(range(len(example.history)))
            assert "".join(span.text for span in arm.reading.spans) == arm.text
    assert {path.name for path in files} >= {"arms.csv", "arms.tex", "curves.csv", "slices.csv"}


def test_several_runs_are_exported_together(
    two: Sequence[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["export", *map(str, two), "--out", str(out), "--formats", "none"]) == 0
    assert capsys.readouterr().out.rstrip().endswith(str(out / "runs.html"))
    words = " ".join(Page((out / "runs.html").read_text()).words)
    assert "may be compared" in words and "evaluation.example_browser" in words
    for name in ("tiny", "second"):
        assert (out / name / "report.html").exists() and (out / name / "tables" / "arms.csv").exists()
    assert not list(out.rglob("*.svg"))


def test_a_sweeps_folder_is_exported_from_its_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "sweeps" / "made", tmp_path / "out"
    study = optuna.create_study(storage=open_storage(None, folder), study_name="made", direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    write_json({"sweep": "made", "objective": ["mrr"]}, folder / "sweep.json")
    assert cli.main(["export", str(folder), "--out", str(out), "--formats", "none"]) == 0
    rows = pl.read_csv(out / "tables" / "trials.csv")
    assert rows["mrr"].to_list() == [trial.value for trial in study.trials] and rows["trial"].to_list() == [0, 1, 2]
    assert "mrr (more is better)" in (out / "sweep.html").read_text()
    (folder / "journal.log").unlink()
    assert cli.main(["export", str(folder), "--out", str(out)]) == 2
    assert "--storage URL" in capsys.readouterr().err
    assert cli.main(["export", str(folder), str(tmp_path), "--out", str(out)]) == 2
    assert "exported alone" in capsys.readouterr().err


def test_what_is_no_finished_run_is_refused(
    two: Sequence[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folders, words in (
        ([tmp_path], "holds no run"),
        ([two[0], two[0]], "names of their own"),
        ([two[0].parent / "absent"], "holds no run"),
    ):
        assert cli.main(["export", *map(str, folders), "--out", str(tmp_path / "o")]) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "half").mkdir()
    write_json({"stages": {}, "recipe": {}}, tmp_path / "half" / "manifest.json")
    assert cli.main(["export", str(tmp_path / "half"), "--out", str(tmp_path / "o")]) == 2
    assert "has not come to its report" in capsys.readouterr().err
