"""The command: light until asked, exit codes, messages on the right stream, overrides that arrive."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Finished, Workshop
from tiny_run import write_recipe

from recsys.errors import InputError
from verbalize import cli, runs
from verbalize.commands.console import Console
from verbalize.recipe import Recipe
from verbalize.runs import RunResult

HEAVY = ("torch", "transformers", "trl", "peft", "polars", "datasets", "wandb", "yaml", "numpy")


@pytest.fixture
def recipe(workshop: Workshop, tmp_path: Path) -> Path:
    return write_recipe(workshop.values, tmp_path / "tiny.yaml")


def test_the_help_of_every_command_imports_nothing_heavy() -> None:
    code = f"""
import contextlib, io, sys
from verbalize import cli
cli.parser()
shown = io.StringIO()
for arguments in (["--help"], ["run", "--help"], ["data", "fetch", "--help"], ["claims", "--help"]):
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        cli.main(arguments)
assert "resumes after any interruption" in shown.getvalue()
sys.exit(",".join(sorted(set({HEAVY!r}) & set(sys.modules))) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_answers_within_a_second() -> None:
    """The best of three: a whole process, from its start to its end."""
    command = [sys.executable, "-c", "from verbalize import cli; cli.main(['--help'])"]
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - began)
        assert done.stdout.startswith("usage: verbalize")
    assert min(seconds) < 1.0, seconds


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian.steps=3"], ["trian", "did you mean train?"]),
        (["train.stepz=3"], ["train.stepz", "did you mean steps?"]),
        (["train.steps=many"], ["train.steps = 'many'", "int"]),
        (["train.steps"], ["'train.steps'", "key=value"]),
        (["evaluation.split=tets"], ["evaluation.split = 'tets'", "did you mean test?"]),
        (["source.path=nowhere"], ["'nowhere'", "does not exist"]),
        (["examples.slate.size=200"], ["slate of 200", "slate.size"]),
    ],
)
def test_bad_input_exits_2_with_value_rule_and_remedy_on_stderr(
    recipe: Path, tmp_path: Path, arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", str(recipe), *arguments, "--runs", str(tmp_path / "runs")]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("verbalize: ") and "Remedy: " in shown.err and shown.err.count("\n") == 1
    for word in words:
        assert word in shown.err
    assert not list(tmp_path.glob("runs/*/report.html"))


def test_a_missing_recipe_and_unknown_commands_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", str(tmp_path / "absent.yaml")]) == 2
    assert "absent.yaml: no such file" in capsys.readouterr().err
    for arguments in (["rnu"], [], ["claims", "verfy"], ["data", "fetch"]):
        with pytest.raises(SystemExit) as left:
            cli.main(arguments)
        assert left.value.code == 2
    assert cli.main(["data", "fetch", "movielens-100"]) == 2
    assert "movielens-100k" in capsys.readouterr().err


def test_overrides_runs_folder_and_command_line_arrive(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple] = []

    def spy(
        recipe: Recipe, runs: str, command: str, progress: object, until: str | None, record: Path | None
    ) -> RunResult:
        seen.append((recipe, runs, command, until, record))
        return RunResult(tmp_path / "made", {}, "the report")

    monkeypatch.setattr(runs, "run_recipe", spy)
    monkeypatch.chdir(tmp_path)
    overrides = ["train.steps=7", "seeds=[4, 5]", "policy.lora.rank=16", "title=Other words"]
    assert cli.main(["run", str(recipe), *overrides, "--runs", "elsewhere", "--record"]) == 0
    assert cli.main(["train", str(recipe)]) == 0
    (made, folder, command, until, record), (plain, default, _, stage, unrecorded) = seen
    assert (made.train.steps, made.seeds, made.policy.lora.rank, made.title) == (7, (4, 5), 16, "Other words")
    assert plain.train.steps == 2 and plain.policy.lora.alpha == made.policy.lora.alpha
    assert (folder, until, record) == ("elsewhere", None, tmp_path) and (default, stage, unrecorded) == (
        "runs",
        "train",
        None,
    )
    assert command == f"verbalize run {recipe} {' '.join(overrides)} --record"
    assert "the report" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "the same command resumes"),
        (InputError("slates 0", "must be positive", "raise it"), 2, "slates 0: must be positive. Remedy: raise it"),
    ],
)
def test_exit_codes(
    recipe: Path,
    raised: BaseException,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(runs, "run_recipe", fail)
    assert cli.main(["run", str(recipe)]) == code
    shown = capsys.readouterr()
    assert words in shown.err and shown.out == ""


def test_what_is_done_is_reported_without_running(
    recipe: Path, finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("train", "evaluate", "report", "run"):
        assert cli.main([command, str(recipe), "--runs", str(finished.runs)]) == 0
        shown = capsys.readouterr().out
        assert "train        up to date" in shown and " starts" not in shown
        assert ("tiny.vs_template" in shown) == (command in ("report", "run"))
        assert shown.rstrip().endswith(str(finished.result.folder))


def test_claims_outside_a_repository_are_refused_and_inside_checked(
    workshop: Workshop,
    finished: Finished,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for action in ("verify", "assemble", "readme"):
        assert cli.main(["claims", action]) == 2
        assert "experiments/results" in capsys.readouterr().err
    assert not (tmp_path / "experiments").exists()

    assert cli.main(["run", str(recipe), "--runs", str(finished.runs), "--record"]) == 0
    (tmp_path / "README.md").write_text("Gain: <!-- claim:tiny.learned_margin -->?<!-- /claim -->\n")
    assert cli.main(["claims", "verify"]) == 1  # the README does not say the number
    assert "README.md" in capsys.readouterr().out
    assert cli.main(["claims", "readme"]) == 0 and cli.main(["claims", "verify"]) == 0
    shown = capsys.readouterr().out
    assert "every number agrees with its artefact" in shown and "nats" in (tmp_path / "README.md").read_text()
    for path in (tmp_path / "experiments" / "results" / "artefacts").iterdir():
        path.unlink()
    assert cli.main(["claims", "verify"]) == 1
    assert "missing" in capsys.readouterr().out


def test_progress_estimates_from_this_process_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A resumed stage finds 90 of 100 parts: the next one after a minute means nine more minutes, not 5 seconds."""
    clock = iter([1000.0, 1060.0, 1090.0])
    monkeypatch.setattr("verbalize.commands.console.time.monotonic", lambda: next(clock))
    console = Console()
    console.step("pool", 90, 100)
    console.step("pool", 91, 100, "<b>")
    first, second = capsys.readouterr().out.splitlines()
    assert "min left" not in first and "pool         91/100  9 min left  <b>" in second


def test_overrides_may_stand_before_and_after_options() -> None:
    options = cli.parse(["run", "r.yaml", "a=1", "--runs", "elsewhere", "b.c=2"])
    assert (options.overrides, options.runs) == (["a=1", "b.c=2"], "elsewhere")
    with pytest.raises(SystemExit):
        cli.parse(["run", "r.yaml", "--runs", "elsewhere", "--recrod"])
