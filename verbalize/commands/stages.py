"""`verbalize run | train | evaluate | report`: a recipe, up to some stage."""

import argparse
from pathlib import Path

from verbalize.commands.console import Console

RECIPE_HELP = "a recipe, e.g. experiments/demo.yaml"
STAGE_COMMANDS = {
    "run": (None, "run every stage of a recipe; the same command resumes after any interruption"),
    "train": ("train", "run a recipe up to the trained verbalizer"),
    "evaluate": ("evaluate", "run a recipe up to the decisions on its evaluation split"),
    "report": ("report", "run a recipe up to its report (what is up to date is not run again)"),
}


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands that run a recipe; they take `key=value` overrides anywhere among their options."""
    for name, (_, about) in STAGE_COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument("recipe", help=RECIPE_HELP)
        command.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys, e.g. train.steps=10")
        command.add_argument("--runs", default="runs", help="folder of runs and shared stage artefacts (default: runs)")
        if name == "run":
            command.add_argument("--until", metavar="STAGE", help="stop after this stage, e.g. templates")
            command.add_argument(
                "--record", action="store_true", help="enter the recipe's claims into experiments/results here"
            )
        command.set_defaults(call=_run)


def _run(options: argparse.Namespace) -> int:
    from verbalize.processes import leads
    from verbalize.recipe import load_recipe
    from verbalize.runs import run_recipe

    until = getattr(options, "until", None) or STAGE_COMMANDS[options.command][0]
    record = getattr(options, "record", False)
    command = " ".join(
        ["verbalize", options.command, options.recipe, *options.overrides, *(["--record"] if record else [])]
    )
    recipe = load_recipe(options.recipe, options.overrides)
    for notice in (recipe.tracking.notice, recipe.train.notice):
        if notice and leads():
            print(notice, flush=True)
    result = run_recipe(recipe, options.runs, command, Console(), until, Path.cwd() if record else None)
    if result.console:
        print(f"\n{result.console}")
    if leads():
        print(f"\n{result.folder}")
    return 0
