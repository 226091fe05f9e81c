"""The subcommands of `verbalize`, one module each: thin, every command is one library call, imported when asked for.

A module has `add(commands)`, which adds its parsers and gives each a default `call`: options -> exit code. Modules
import nothing heavy at the top, so that `verbalize --help` answers at once.
"""

import argparse
from typing import Protocol

from verbalize.commands import agents, claims, completion, data, doctor, export, runs, simulate, stages, sweep, table


class Command(Protocol):
    """What a module of this package offers."""

    def add(self, commands: "argparse._SubParsersAction[argparse.ArgumentParser]", /) -> None:
        """Add the module's parsers; each sets the default `call`."""


COMMANDS: tuple[Command, ...] = (stages, data, claims, export, sweep, table, runs, agents, doctor, completion, simulate)
"""In the order of `verbalize --help`."""
