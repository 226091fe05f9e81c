"""`verbalize data describe`: what a log holds, and what reading it dropped."""

import argparse
from typing import Any

_SOURCE_OPTIONS = ("kind", "mapping", "roll_up")


def add(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `describe` to the actions of `verbalize data`."""
    about = "profile a log: counts, spans, ties, sparsity, sessions, discoveries, what was dropped and why"
    command = actions.add_parser("describe", help=about, description=about)
    command.add_argument("what", help="a recipe (YAML with `source`), or the folder or file of a log")
    command.add_argument("--kind", help="of a log: movielens, table, netflix, mind or store (default: movielens)")
    command.add_argument("--mapping", help="of a log of kind table: the YAML file that describes it")
    command.add_argument("--roll-up", action="store_true", help="of a log: series in place of their episodes")
    command.add_argument("--gap", type=float, default=30, help="minutes without an event that end a session (30)")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(call=_describe)


def _describe(options: argparse.Namespace) -> int:
    import json

    from recsys.logs.describe import describe
    from recsys.logs.sources import read_log

    profile = describe(read_log(_source(options)), options.gap)
    print(json.dumps(profile, indent=2, ensure_ascii=False) if options.json else "\n".join(table(profile)), flush=True)
    return 0


def _source(options: argparse.Namespace) -> Any:
    """The SourceConfig of a recipe, or of a path and options."""
    from pathlib import Path

    from recsys.errors import InputError
    from recsys.logs.sources import SourceConfig

    given = {name: getattr(options, name) for name in _SOURCE_OPTIONS if getattr(options, name)}
    if not (options.what.endswith((".yaml", ".yml")) and Path(options.what).is_file()):
        return SourceConfig(path=options.what, **({"kind": "table"} if options.mapping else {}) | given)
    if given:
        raise InputError(
            f"{options.what} with {', '.join('--' + name.replace('_', '-') for name in given)}",
            "a recipe describes its source itself",
            "leave the options out, or give the path of the log in place of the recipe",
        )
    from verbalize.recipe import load_recipe
    from verbalize.stages.data import resolved_source

    return resolved_source(load_recipe(options.what, []))


def table(profile: dict[str, Any]) -> list[str]:
    """The profile as lines: a heading per section, one aligned line per value; empty sections are left out."""
    lines: list[str] = []
    for section, values in profile.items():
        if values:
            lines += ["", section.replace("_", " ")] if lines else [section.replace("_", " ")]
            lines += [f"  {name.replace('_', ' '):<48} {_shown(value)}" for name, value in values.items()]
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name} {_shown(item)}" for name, item in value.items())
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4f}".rstrip("0").rstrip(".")
    return str(value)
