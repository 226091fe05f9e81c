"""Does modelling the trials pay? TPE against random search at equal budget, on a cheap and real objective.

    python experiments/benchmarks/sweep_tpe_vs_random.py      10 repeats of 40 trials, about 15 minutes on 2 cores
    ... --repeats 2 --trials 12 --out DIR                     a small trial of it

The objective is that of `experiments/sweeps/collaborative.yaml`: MRR of EASE^R or item-kNN on MovieLens validation
slates (`matched`), over which of the two, their settings and how much of a history is shown: what a user of those
recommenders tunes first, about half a second a trial, no language model. Both samplers of a repeat share a seed, so
their first `startup` trials are the same points and the comparison is paired. The claim is the mean difference of the
best value after the last trial; the curves of the best so far are recorded beside it. Test stays closed.
"""

import itertools
import time
from pathlib import Path
from typing import Any

import optuna
import polars as pl
from recording import ROOT, enter, parser_of, record, say

from verbalize.report.artefacts import values_table
from verbalize.report.claims import Estimator
from verbalize.sweeps.ownership import place
from verbalize.sweeps.sampling import make_sampler
from verbalize.sweeps.settings import load_sweep
from verbalize.sweeps.space import check_space
from verbalize.sweeps.worker import work

SWEEP = ROOT / "experiments" / "sweeps" / "collaborative.yaml"
SAMPLERS = ("tpe", "random")


def best_so_far(sampler: str, seed: int, trials: int, runs: Path) -> list[float]:
    """The best validation value after 1, 2, ... trials of one sweep, kept in memory."""
    overrides = [f"sampler.kind={sampler}", f"sampler.seed={seed}", f"budget.trials={trials}"]
    sweep = load_sweep(SWEEP, overrides)
    check_space(sweep)
    study: optuna.Study
    sampling = make_sampler(sweep, lambda trial: place(study.get_trials(deepcopy=False), trial))
    study = optuna.create_study(direction="maximize", sampler=sampling)
    work(sweep, study, runs, "benchmark")
    return list(itertools.accumulate((trial.values[0] for trial in study.trials), max))


def main() -> None:
    parser = parser_of(__doc__, repeats=10)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="whose store of stages is used")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    curves: dict[str, list[list[float]]] = {sampler: [] for sampler in SAMPLERS}
    rows: list[dict[str, Any]] = []
    for repeat in range(arguments.repeats):
        for sampler in SAMPLERS:
            began = time.monotonic()
            curve = best_so_far(sampler, repeat, arguments.trials, arguments.runs)
            curves[sampler].append(curve)
            name = f"repeat {repeat}"
            rows.append({"example_id": name, "user_id": name, "arm": sampler, "seed": repeat, "value": curve[-1]})
            say(f"{repeat} {sampler:<6} best {curve[-1]:.4f}  {time.monotonic() - began:.0f} s")
    artefact = record(
        "sweep_tpe_vs_random",
        arguments.out,
        values_table(pl.DataFrame(rows), "repeats are nobody's data"),
        settings={"sweep": SWEEP.name, "repeats": arguments.repeats, "trials": arguments.trials},
        packages=("optuna", "numpy", "polars", "scipy"),
        figures={"best_so_far": curves},
    )
    enter(
        arguments.out,
        "sweep.tpe_vs_random",
        f"Sweep of EASE^R and item-kNN on MovieLens validation slates: best MRR after {arguments.trials} trials, "
        "TPE minus random search, mean over repeats",
        unit="score difference",
        estimator=Estimator("mean_difference", {"a": "tpe", "b": "random"}),
        artefact=artefact,
        command=f"python experiments/benchmarks/sweep_tpe_vs_random.py --repeats {arguments.repeats} "
        f"--trials {arguments.trials}",
        target=0.0,
    )


if __name__ == "__main__":
    main()
