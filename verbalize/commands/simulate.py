"""`verbalize simulate`: a made-up streaming log of any size, its catalogue and, apart from them, its truth."""

import argparse
import time
from pathlib import Path


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `simulate`; every rate of `recsys.simulator.config.SimulatorConfig` may be given as key=value."""
    about = "write a simulated log with planted truth as partitioned Parquet, in bounded memory"
    command = commands.add_parser("simulate", help=about, description=about)
    command.add_argument("overrides", nargs="*", metavar="key=value", help="any rate, e.g. preview_rate=0.2 days=90")
    command.add_argument("--users", type=int, required=True, help="number of accounts")
    command.add_argument("--seed", type=int, default=0, help="users keep their events when others are added")
    command.add_argument("--out", type=Path, required=True, help="a new folder")
    command.set_defaults(call=_simulate)


def _simulate(options: argparse.Namespace) -> int:
    from recsys.simulator.config import SimulatorConfig
    from recsys.simulator.write import EVENTS, ITEMS, TRUTH, write_simulation
    from verbalize.commands.console import Console
    from verbalize.config import build, override

    settings = override({"users": options.users, "seed": options.seed}, options.overrides)
    config = build(SimulatorConfig, settings, "simulator")
    console, begun = Console(), time.monotonic()
    done = write_simulation(config, options.out, progress=lambda now, all: console.step("simulate", now, all, "users"))
    seconds = time.monotonic() - begun
    print(f"events  {done.events:>13,}  {options.out / EVENTS} ({done.parts} files)")
    print(f"items   {done.items:>13,}  {options.out / ITEMS}")
    print(f"truth   {done.noise:>13,}  noise events, {options.out / TRUTH}: for oracles only")
    print(f"users   {done.users:>13,}  {seconds:.1f} s, {done.events / max(seconds, 1e-9):,.0f} events a second")
    return 0
