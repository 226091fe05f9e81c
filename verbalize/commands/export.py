"""`verbalize export`: the reports of finished runs, or of a sweep, as files: for a paper, or to compare them."""

import argparse
from pathlib import Path

ABOUT = "write reports as HTML, their tables as CSV and LaTeX, their figures as SVG, PDF or PNG"
SWEEP = "sweep.json"  # what tells a sweep's folder from a run's


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `export FOLDER... --out DIR`."""
    command = commands.add_parser("export", help=ABOUT, description=f"{ABOUT}; several runs also get one page together")
    command.add_argument("folders", nargs="+", metavar="FOLDER", help="runs, e.g. runs/demo; or one sweep's folder")
    command.add_argument("--out", required=True, metavar="DIR", help="folder to write to")
    command.add_argument(
        "--formats", default="svg,pdf", help="of the figures, joined by commas: svg, pdf, png; or none (svg,pdf)"
    )
    command.add_argument("--storage", metavar="URL", help="of a sweep whose trials are in PostgreSQL")
    command.set_defaults(call=_export)


def _export(options: argparse.Namespace) -> int:
    from recsys.errors import InputError
    from verbalize.report.export import export_runs, export_sweep, final_of_sweep, table_of_sweep

    folders, out = [Path(folder) for folder in options.folders], Path(options.out)
    formats = [] if options.formats == "none" else options.formats.split(",")
    if not any((folder / SWEEP).exists() for folder in folders):
        written = export_runs(folders, out, formats)
    elif len(folders) == 1:
        table, final = table_of_sweep(folders[0], options.storage), final_of_sweep(folders[0])
        written = export_sweep(table, out, final, formats)
    else:
        raise InputError(f"{len(folders)} folders, a sweep among them", "a sweep is exported alone", "name it alone")
    print(f"{len(written)} files\n\n{written[0]}")
    return 0
