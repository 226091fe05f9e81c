"""`verbalize agents`: a study of agents in text environments, from its YAML file to intervals and claims."""

import argparse
import json
from pathlib import Path

from verbalize.commands.console import Console

ABOUT = "run a study of agents in text environments; the same command resumes after any interruption"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `agents`."""
    agents = commands.add_parser("agents", help=ABOUT, description=ABOUT)
    agents.add_argument("study", help="a study file, e.g. experiments/agents/exprag.yaml")
    agents.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys, e.g. sft.epochs=2")
    agents.add_argument("--runs", default="runs", help="folder of runs; the study lies in RUNS/agents (default: runs)")
    agents.add_argument("--record", action="store_true", help="enter the study's claims into experiments/results here")
    agents.add_argument("--json", action="store_true", help="print the result as JSON and no progress")
    agents.set_defaults(call=_agents)


def _agents(options: argparse.Namespace) -> int:
    from verbalize.agents.study import load_study, run_study

    study = load_study(options.study, options.overrides)
    words = ["verbalize", "agents", options.study, *options.overrides, *(["--record"] if options.record else [])]
    result, folder = run_study(
        study,
        options.runs,
        " ".join(words),
        None if options.json else Console(),
        Path.cwd() if options.record else None,
    )
    print(json.dumps(dict(result.facts), indent=2) if options.json else f"\n{result.text}\n\n{folder}")
    return 0
