"""Sweeps as plain data and as a page: fronts against brute force, importance on a known function, nothing hidden."""

import math
import xml.etree.ElementTree as ElementTree

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_sample import HOSTILE, OBJECTIVES, SAMPLE_FINAL, sample_sweep
from test_report_html import Page

from recsys.errors import InputError
from verbalize.report.optuna_trials import importances, table_of_study
from verbalize.report.pareto import front
from verbalize.report.plots import GRADES, Axis, Point, best_so_far, parallel, scatter
from verbalize.report.sweep import sweep_report
from verbalize.report.sweep_views import axis_of, grades_of, ordered
from verbalize.report.trials import Objective, SweepTable, Trial, trials_frame

numbers = st.one_of(st.integers(0, 4).map(float), st.just(math.nan))


@given(st.lists(st.tuples(numbers, numbers, numbers), max_size=12))
@settings(max_examples=100, deadline=None)
def test_the_front_is_what_nothing_dominates(points: list[tuple[float, float, float]]) -> None:
    """Against the definition, written out: more, less, more is better."""
    whole = [p for p in points if not any(map(math.isnan, p))]

    def beats(a: tuple[float, float, float], b: tuple[float, float, float]) -> bool:
        return (a[0] >= b[0] and a[1] <= b[1] and a[2] >= b[2]) and (a[0] > b[0] or a[1] < b[1] or a[2] > b[2])

    expected = [i for i, p in enumerate(points) if p in whole and not any(beats(other, p) for other in whole)]
    assert front(points, [True, False, True]) == expected


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    """Forty trials of 10 x - y² / 100, z without effect; one trial failed, one lost, one refused, one pruned."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0), study_name="known")

    def objective(trial: optuna.Trial) -> float:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        z = trial.suggest_categorical("z", ["a", "b"])
        if z == "a":
            trial.suggest_float("only.a", 1e-5, 1e-1, log=True)
        trial.report(x, 1)
        return 10 * x - y * y / 100

    made.optimize(objective, n_trials=40)
    for name, value in (("error", "out of memory"), ("worker", "gone"), ("refused", True)):
        trial = made.ask()
        trial.set_user_attr(name, value)
        made.tell(trial, state=optuna.trial.TrialState.FAIL)
    pruned = made.ask()
    pruned.report(0.1, 3)
    made.tell(pruned, state=optuna.trial.TrialState.PRUNED)
    return made


def test_a_study_becomes_a_table(study: optuna.Study) -> None:
    table = table_of_study(study, [Objective("value")])
    states = [trial.state for trial in table.trials]
    assert states[:40] == ["complete"] * 40 and states[40:] == ["failed", "lost", "pruned"]
    assert table.trials[40].note == "out of memory" and table.trials[42].intermediate == {3: 0.1}
    assert [trial.number for trial in table.best] == [study.best_trial.number]
    assert table.log_params == {"only.a"} and table.params[0] == "x"
    values = [trial.value for trial in study.trials[:40]]
    assert trials_frame(table)["value"].to_list()[:40] == values
    drawn = trials_frame(table)["only.a"].is_not_null().to_list()[:40]
    assert drawn == [trial.params["z"] == "a" for trial in study.trials[:40]]


def test_importance_finds_the_parameter_that_matters(study: optuna.Study) -> None:
    shares = importances(study)
    assert set(shares) == {"x", "y", "z"}  # not the conditional one: half of the trials never drew it
    assert shares["x"] > 0.9 and sum(shares.values()) == pytest.approx(1.0) and shares == importances(study)


def test_too_few_or_equal_trials_have_no_importance() -> None:
    few = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    few.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=7)
    assert importances(few) == {}
    flat = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    flat.optimize(lambda trial: 0 * trial.suggest_float("x", 0, 1), n_trials=9)
    assert importances(flat) == {}


def test_the_page_holds_every_trial_failures_said_and_text_harmless() -> None:
    table = sample_sweep(40)
    html = sweep_report(table)
    page = Page(html)
    words = " ".join(page.words)
    assert page.open == [] and [tag for tag, _ in page.tags].count("script") == 1
    assert f"CUDA out of memory {HOSTILE}" in words and HOSTILE not in html
    rows = [str(a["data-trial"]) for tag, a in page.tags if tag == "tr" and "data-trial" in a]
    assert rows == [str(trial.number) for trial in ordered(table)] and len(rows) == 40
    best = min(table.complete, key=lambda trial: (-trial.values["recall@1"], trial.number))
    assert rows[0] == str(best.number) and "optimistic" in words
    assert sweep_report(table) == html
    for tag, attributes in page.tags:
        assert not {a for a in attributes if a.startswith("on") or a in ("style", "src")}, (tag, attributes)


@pytest.mark.parametrize("objectives", [1, 3])
@pytest.mark.parametrize("trials", [0, 1, 2])
def test_small_sweeps_render(objectives: int, trials: int) -> None:
    assert Page(sweep_report(sample_sweep(trials, objectives))).open == []


def test_the_comparison_on_test_users_opens_the_page() -> None:
    page = Page(sweep_report(sample_sweep(4), SAMPLE_FINAL))
    words = " ".join(" ".join(page.words).split())
    assert page.open == [] and words.index("On test users") < words.index("Every trial")
    assert "+0.021 [−0.004, +0.045]" in words and "differences from 0.030 could be seen" in words and "missed" in words
    assert "On test users" not in sweep_report(sample_sweep(4))


def test_grades_follow_the_first_objective() -> None:
    table = sample_sweep(40)
    grades = grades_of(table)
    by_value = [grades[t.number] for t in sorted(table.complete, key=lambda t: t.values["recall@1"])]
    assert by_value == sorted(by_value) and by_value[-1] == GRADES - 1 and by_value[0] == 0
    assert all(grades[t.number] == 0 for t in table.trials if t.state != "complete")
    less = SweepTable(
        "x", (Objective("loss", maximise=False),), tuple(Trial(i, "complete", {}, {"loss": i}) for i in range(5))
    )
    assert grades_of(less) == {0: 4, 1: 3, 2: 2, 3: 1, 4: 0} and [t.number for t in ordered(less)] == [0, 1, 2, 3, 4]


def test_contradictions_are_refused() -> None:
    with pytest.raises(InputError, match="one for each"):
        SweepTable("x", OBJECTIVES[:1], (Trial(0, "complete"),))
    with pytest.raises(InputError, match="number of their own"):
        SweepTable("x", OBJECTIVES[:1], (Trial(0, "failed"), Trial(0, "failed")))
    with pytest.raises(InputError, match="at least one"):
        SweepTable("x", (), ())
    with pytest.raises(InputError, match="is none of"):
        SweepTable("x", OBJECTIVES[:1], (Trial(0, "done"),))  # type: ignore[arg-type]


def test_figures_place_points_and_break_lines() -> None:
    nan = math.nan
    svg = scatter(
        [Point(0, 0, "low"), Point(10, 1, "high", 0.5, 1.0, front=True), Point(5, nan, "none")], "x", "y", "t"
    )
    tree = ElementTree.fromstring(svg)
    circles = {c.get("r"): (float(c.get("cx") or 0), float(c.get("cy") or 0)) for c in tree.iter("circle")}
    assert len(circles) == 2 and circles["5"][0] > circles["4"][0] and circles["5"][1] < circles["4"][1]
    axes = [Axis("a", [0.0, 1.0], [(0.0, "0")]), Axis("b", [nan, 0.5], []), Axis("<c>", [1.0, 1.0], [])]
    lines = {
        p.get("data-trial"): p.get("d") or ""
        for p in ElementTree.fromstring(parallel(axes, [7, 8], [0, 4], ["", ""])).iter("path")
    }
    assert lines["7"].count("M") == 2 and lines["7"].count("L") == 0 and lines["8"].count("L") == 2
    steps = ElementTree.fromstring(
        best_so_far([Point(i, v, "", trial=i) for i, v in enumerate([1, 3, 2])], "x", "y", "t")
    )
    assert (steps.findall("path")[-1].get("d") or "").count("V") == 2
    assert axis_of("n", [3, 3]).places == [0.5, 0.5] and axis_of("n", [None, None]).ticks == []
    assert [text for _, text in axis_of("n", [1, 4]).ticks] == ["1", "4"]  # no 2.5 epochs
