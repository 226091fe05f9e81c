"""What the shared store of stages saves a sweep: time of N trials that each make everything, over the same N sharing.

    python experiments/benchmarks/sweep_shared_artefacts.py         3 repeats of 6 trials over templates, 10 minutes
    ... --sweep experiments/sweeps/collaborative.yaml --out DIR          no language model: there is little to share
    ... --repeats 1 --trials 2 --out DIR                                 a small trial of it

Both arms carry out the same configurations, drawn once per repeat, and must measure the same values. `shared` starts
from an empty store and fills it; `apart` starts every trial from an empty store. Scoring is cut to `--selection`
examples per text (the sweep's own file takes more): the ratio depends on how many trials ask for the same scores,
hardly on how many examples are scored.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recording import ROOT, enter, parser_of, ratio, record, say

from recsys.seeding import rng
from verbalize.pipeline import STORE
from verbalize.report.artefacts import timings_table
from verbalize.sweeps.measure import measure, prepare
from verbalize.sweeps.settings import Sweep, load_sweep
from verbalize.sweeps.space import check_space, draw, random_value

SWEEP = ROOT / "experiments" / "sweeps" / "templates.yaml"


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
    parser = parser_of(__doc__, repeats=3)
    parser.add_argument("--sweep", type=Path, default=SWEEP)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--selection", type=int, default=6, help="examples that each text is scored on")
    arguments = parser.parse_args()
    sweep = load_sweep(
        arguments.sweep, [f"overrides.sample.{part}={arguments.selection}" for part in ("selection", "report")]
    )
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
            say(f"{repeat} {arm}: {took:.1f} s")
        if found["apart"] != found["shared"]:
            raise SystemExit(f"the arms disagree: {found}")
    artefact = record(
        "sweep_shared_artefacts",
        arguments.out,
        timings_table(seconds),
        settings={"sweep": arguments.sweep.name}
        | {name: getattr(arguments, name) for name in ("repeats", "trials", "selection")},
        packages=("numpy", "polars", "scipy", "torch"),
        figures={"seconds": seconds},
    )
    enter(
        arguments.out,
        "bench.sweep_shared_artefacts",
        f"{arguments.trials} trials of the sweep `{sweep.config.name}`: time without shared stages over with",
        **ratio("apart", "shared"),
        artefact=artefact,
        command=f"python experiments/benchmarks/sweep_shared_artefacts.py --sweep experiments/sweeps/"
        f"{arguments.sweep.name} --trials {arguments.trials} --repeats {arguments.repeats} "
        f"--selection {arguments.selection}",
        target=1.0,
    )


if __name__ == "__main__":
    main()
