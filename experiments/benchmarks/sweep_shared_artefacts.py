"""What the shared store of stages saves a sweep: time of N trials that each make everything, over the same N sharing.

    python experiments/benchmarks/sweep_shared_artefacts.py                     5 repeats of 20 trials, about 10 minutes
    ... --sweep experiments/sweeps/templates.yaml --trials 6 --repeats 3        with a language model
    ... --repeats 1 --trials 3 --out DIR                                        a small trial of it

Both arms carry out the same configurations, drawn once per repeat, and must measure the same values. `shared` starts
from an empty store and fills it; `apart` starts every trial from an empty store. The default sweep has no language
model, so what is shared is the log, its examples and slates, and the ratio is modest; a sweep over templates or
training shares minutes of scoring a trial.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys.seeding import rng
from recsys.storage import write_json
from verbalize.pipeline import STORE
from verbalize.report.artefacts import timings_table, write_artefact
from verbalize.report.claims import Estimator, format_claim
from verbalize.report.ledger import assemble, write_claim
from verbalize.report.provenance import hardware, versions
from verbalize.sweeps.measure import measure, prepare
from verbalize.sweeps.settings import Sweep, load_sweep
from verbalize.sweeps.space import check_space, draw, random_value

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
SWEEP = ROOT / "experiments" / "sweeps" / "collaborative.yaml"


def carry_out(sweep: Sweep, configurations: Sequence[Mapping[str, Any]], together: bool) -> tuple[float, list[float]]:
    """Seconds of all trials, and their values."""
    with tempfile.TemporaryDirectory() as name:
        began, values = time.perf_counter(), []
        for number, params in enumerate(configurations):
            store = Path(name) / ("all" if together else str(number)) / STORE
            recipe, arm = sweep.recipe(params), sweep.arm(params)
            folders = prepare(recipe, arm, store, "benchmark")
            values.append(measure(recipe, arm, sweep.config.objective.metric, folders).value)
        return time.perf_counter() - began, values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=SWEEP)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    sweep = load_sweep(arguments.sweep)
    check_space(sweep)
    seconds: dict[str, list[float]] = {"apart": [], "shared": []}
    carry_out(sweep, [draw(sweep.config.space, lambda _, p: random_value(p, rng("warm up")))], True)  # imports, caches
    for repeat in range(arguments.repeats):
        generators = [rng("shared artefacts", repeat, number) for number in range(arguments.trials)]
        drawn = [draw(sweep.config.space, lambda _, p, g=g: random_value(p, g)) for g in generators]  # type: ignore[misc]
        found = {}
        for arm in sorted(seconds, reverse=bool(repeat % 2)):
            took, found[arm] = carry_out(sweep, drawn, arm == "shared")
            seconds[arm].append(took)
            sys.stdout.write(f"{repeat} {arm}: {took:.1f} s\n")
            sys.stdout.flush()
        if found["apart"] != found["shared"]:
            raise SystemExit(f"the arms disagree: {found}")
    write_json(
        {
            "benchmark": "sweep_shared_artefacts",
            "settings": {"sweep": arguments.sweep.name, "repeats": arguments.repeats, "trials": arguments.trials},
            "versions": versions(("numpy", "polars", "scipy", "torch")),
            "hardware": hardware(),
            "seconds": seconds,
        },
        arguments.out / "sweep_shared_artefacts.json",
    )
    artefact = arguments.out / "artefacts" / "sweep_shared_artefacts.csv"
    write_artefact(timings_table(seconds), artefact)
    if arguments.out == RESULTS:
        claim = write_claim(
            ROOT,
            "bench.sweep_shared_artefacts",
            f"{arguments.trials} trials of the sweep `{sweep.config.name}`: time without shared stages over with",
            unit="ratio",
            estimator=Estimator("ratio_of_times", {"slow": "apart", "fast": "shared"}),
            artefact=artefact,
            command=f"python experiments/benchmarks/sweep_shared_artefacts.py --sweep experiments/sweeps/"
            f"{arguments.sweep.name} --trials {arguments.trials} --repeats {arguments.repeats}",
            target=1.0,
        )
        assemble(ROOT)
        sys.stdout.write(f"{claim.id} {format_claim(claim)}\n")


if __name__ == "__main__":
    main()
