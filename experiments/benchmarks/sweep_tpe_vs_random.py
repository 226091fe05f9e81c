"""Does modelling the trials pay? TPE against random search at equal budget, on a cheap and real objective.

    python experiments/benchmarks/sweep_tpe_vs_random.py      10 repeats of 40 trials, about 15 minutes on 2 cores
    ... --repeats 2 --trials 12 --out DIR                     a small trial of it

The objective is that of `experiments/sweeps/collaborative.yaml`: MRR of EASE^R or item-kNN on MovieLens validation
slates (`matched`), over which of the two, their settings and how much of a history is shown: what a user of those
recommenders tunes first, about half a second a trial, no language model. Both samplers of a repeat share a seed, so
their first `startup` trials are the same points and the comparison is paired. The claim is the mean difference of the
best value after the last trial; the curves of the best so far are recorded beside it. Test stays closed.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import polars as pl

from recsys.storage import write_json
from verbalize.report.artefacts import values_table, write_artefact
from verbalize.report.claims import Estimator, format_claim
from verbalize.report.ledger import assemble, write_claim
from verbalize.report.provenance import hardware, versions
from verbalize.sweeps.ownership import place
from verbalize.sweeps.sampling import make_sampler
from verbalize.sweeps.settings import load_sweep
from verbalize.sweeps.space import check_space
from verbalize.sweeps.worker import work

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="whose store of stages is used")
    parser.add_argument("--out", type=Path, default=RESULTS)
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
            sys.stdout.write(f"{repeat} {sampler:<6} best {curve[-1]:.4f}  {time.monotonic() - began:.0f} s\n")
            sys.stdout.flush()
    write_json(
        {
            "benchmark": "sweep_tpe_vs_random",
            "settings": {"sweep": SWEEP.name, "repeats": arguments.repeats, "trials": arguments.trials},
            "versions": versions(("optuna", "numpy", "polars", "scipy")),
            "hardware": hardware(),
            "best_so_far": curves,
        },
        arguments.out / "sweep_tpe_vs_random.json",
    )
    artefact = arguments.out / "artefacts" / "sweep_tpe_vs_random.csv"
    write_artefact(values_table(pl.DataFrame(rows), "repeats are nobody's data"), artefact)
    if arguments.out == RESULTS:
        claim = write_claim(
            ROOT,
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
        assemble(ROOT)
        sys.stdout.write(f"{claim.id} {format_claim(claim)}\n")


if __name__ == "__main__":
    main()
