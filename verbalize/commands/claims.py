"""`verbalize claims`: the ledger of claims."""

import argparse
from pathlib import Path

from recsys.errors import InputError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `claims verify | assemble | readme`."""
    claims = commands.add_parser("claims", help="the ledger of claims")
    claims.add_argument(
        "action",
        choices=["verify", "assemble", "readme"],
        help="verify: recompute each from its artefact; assemble: claims.json; readme: numbers in documents",
    )
    claims.set_defaults(call=_claims)


def _claims(options: argparse.Namespace) -> int:
    from verbalize.report import ledger

    if not ledger.RESULTS.is_dir():
        raise InputError(
            str(Path.cwd()),
            f"holds no {ledger.RESULTS}",
            "run this at the root of the repository whose claims are meant",
        )
    return ledger.main([options.action])
