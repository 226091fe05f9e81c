"""The `verbalize` command: its parser, its errors and its exit codes. The subcommands are in `verbalize/commands`.

Exit codes: 0 done · 1 a check failed (a claim, the doctor), or workers of a sweep ended early · 2 bad input or usage ·
130 interrupted, resumable.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from recsys.errors import InputError
from verbalize.commands import COMMANDS, completion
from verbalize.commands.stages import STAGE_COMMANDS
from verbalize.processes import process_count


def parser() -> argparse.ArgumentParser:
    """The command line, without importing anything heavy."""
    root = argparse.ArgumentParser(
        prog="verbalize", description="Learned verbalization: from interaction logs to text."
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="command")
    for command in COMMANDS:
        command.add(commands)
    return root


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parsed arguments; overrides may stand before and after options, which argparse alone does not allow."""
    root = parser()
    if completion.HOOK in os.environ:
        completion.answer(root)
    options, rest = root.parse_known_args(arguments)
    overridable = hasattr(options, "overrides")
    if rest and (not overridable or any(word.startswith("-") or "=" not in word for word in rest)):
        root.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        _check_launcher(options.command)
        return int(options.call(options))
    except InputError as error:
        print(f"verbalize: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nverbalize: interrupted; nothing is lost, the same command resumes", file=sys.stderr)
        return 130


def _check_launcher(command: str) -> None:
    """Raises InputError for a command that several processes would each carry out whole, over each other's files."""
    if process_count() > 1 and command not in STAGE_COMMANDS:
        raise InputError(
            f"verbalize {command} with {process_count()} processes",
            "is the work of one process",
            f"run it without a launcher; {', '.join(STAGE_COMMANDS)} share the training between processes",
        )


if __name__ == "__main__":
    sys.exit(main())
