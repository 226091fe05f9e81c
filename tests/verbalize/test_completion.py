"""Completion: real shells take the code, and the program answers with commands, options and choices."""

import os
import shutil
import subprocess
import sys

import pytest

from verbalize import cli


def completions(line: str) -> list[str]:
    """What the program answers a shell that asks about `line`."""
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": "/dev/stdout",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    code = "import sys; sys.argv = ['verbalize']; from verbalize import cli; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    return [word.strip() for word in done.stdout.split("\n")]


def test_commands_options_and_choices_are_completed() -> None:
    assert {"sweep", "simulate"} & {*completions("verbalize s")} and "run" not in completions("verbalize s")
    assert {"--final", "--workers"} <= {*completions("verbalize sweep x.yaml --")}
    assert "--worker" not in completions("verbalize sweep x.yaml --w")  # internal
    assert {"verify", "assemble", "readme"} <= {*completions("verbalize claims ")}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_code_names_the_program(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    code = capsys.readouterr().out
    assert "verbalize" in code and "_ARGCOMPLETE" in code


def test_bash_accepts_and_registers_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    cli.main(["completion", "bash"])
    code = capsys.readouterr().out
    done = subprocess.run([bash, "-c", f"{code}\ncomplete -p verbalize"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "_python_argcomplete" in done.stdout
    with pytest.raises(SystemExit):
        cli.main(["completion", "tcsh"])
