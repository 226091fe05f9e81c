"""`verbalize table`: every cell of a table file, tier by tier, in one comparison."""

import argparse
import json
from pathlib import Path

from verbalize.commands.console import Console

ABOUT = "run a table of recipes tier by tier and compare their arms; the same command resumes"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `table`."""
    table = commands.add_parser("table", help=ABOUT, description=ABOUT)
    table.add_argument("table", help="a table file, e.g. experiments/paper_table.yaml")
    table.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="keys of the table file, e.g. data=PATH overrides.train.steps=2",
    )
    table.add_argument("--tier", type=int, metavar="N", help="stop after this tier (default: all)")
    table.add_argument("--runs", default="runs", help="folder of runs and shared stage artefacts (default: runs)")
    table.add_argument(
        "--record", action="store_true", help="after each tier, enter its claims into experiments/results here"
    )
    table.add_argument(
        "--formats", default="none", help="of figures for each data set, joined by commas: svg, pdf, png (none)"
    )
    table.add_argument("--check", action="store_true", help="build every cell's recipe and stop")
    table.add_argument("--json", action="store_true", help="print the result as JSON and no progress")
    table.set_defaults(call=_table)


def _table(options: argparse.Namespace) -> int:
    from recsys.errors import InputError
    from verbalize.tables.planning import plan_table
    from verbalize.tables.settings import load_table

    if options.tier is not None and options.tier < 1:
        raise InputError(f"--tier {options.tier}", "tiers count from 1", "give 1 or more")
    formats = () if options.formats == "none" else tuple(options.formats.split(","))
    if formats:
        from verbalize.report.paper_figures import check_formats

        check_formats(formats)
    table = load_table(options.table, options.overrides)
    planned = plan_table(table)
    if options.check:
        recipes = sum(len(one.recipes) for one in planned)
        print(f"{options.table}: {len(planned)} cells, {recipes} recipes, all of them build")
        return 0
    from verbalize.tables.report import summary
    from verbalize.tables.run import folder_of_table, run_table

    words = ["verbalize", "table", options.table, *options.overrides]
    words += ["--tier", str(options.tier)] if options.tier else []
    command = " ".join([*words, *(["--record"] if options.record else [])])
    record = Path.cwd() if options.record else None
    progress = None if options.json else Console()
    state = run_table(table, options.runs, command, progress, options.tier, record, formats)
    folder = folder_of_table(options.runs, table.config.name)
    if options.json:
        print(json.dumps(summary(state), indent=2))
    else:
        print(f"\n{(folder / 'report.txt').read_text(encoding='utf-8')}\n{folder}")
    return 1 if state.refused else 0
