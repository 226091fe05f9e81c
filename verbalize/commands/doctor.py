"""`verbalize doctor`: what will work on this machine, what will not, and the fix."""

import argparse
import dataclasses
import json
from pathlib import Path


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `doctor`."""
    about = "what will and will not work on this machine, and the fix; exit code 1 when something required is broken"
    doctor = commands.add_parser("doctor", help=about, description=about)
    doctor.add_argument("--runs", default="runs", help="folder that runs would be written to (default: runs)")
    doctor.add_argument("--json", action="store_true", help="print the checks as JSON")
    doctor.set_defaults(call=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from verbalize.doctor import diagnose

    checks = diagnose(Path(options.runs))
    if options.json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], indent=2))
    else:
        for check in checks:
            print(f"{check.status:<5} {check.name:<22} {check.found}")
            if check.fix:
                print(f"{'':<28} fix: {check.fix}")
    return 1 if any(check.status == "fail" for check in checks) else 0
