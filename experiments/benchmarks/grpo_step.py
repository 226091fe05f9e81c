"""One GRPO step of a language-model policy: shared prefixes against stock TRL on the same machine, in one run.

    python experiments/benchmarks/grpo_step.py [--out FOLDER]    both shapes; about 45 minutes on 2 idle cores
    python experiments/benchmarks/grpo_step.py --device cuda     the same on a GPU, which has a claim of its own
    python experiments/benchmarks/grpo_step.py --grid            growth with P and G; enters no claim
    python experiments/benchmarks/grpo_step.py --choices         `shared` by dtype and threads; enters no claim
    python experiments/benchmarks/grpo_step.py --shape action --prompt 200 --completion 16 --rounds 1     a quick look

    action shape:  P 1,000  G 8  C 64      a symbol or a few per event, decoded
    rewrite shape: P 1,000  G 8  C 400     free text

A step is generation, loss, backward and optimizer: what it costs without its rewards, which are the same function on
both sides and timed apart. SmolLM2-135M, float32, LoRA r 16 on attention and MLP, beta 0, one prompt and one update per
step; weights, prompts and settings are equal. Every arm runs in processes of its own (`grpo_step_process.py`), in
turns, one warm-up step each; memory is the peak of a process, on a GPU of its tensors there. Stock takes micro-batches
of four rollouts on a CPU, the most that fits into 24 GB, and all at once on a GPU; `shared` checks itself against stock
in its warm-up step and fails the run if it would fall back. Without `--device cuda` a GPU is hidden from the processes.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grpo_step_process import ARMS, DEVICES, DTYPES
from recording import RESULTS, ROOT, enter, ratio

from recsys.errors import InputError
from recsys.storage import write_json

SHAPES = {"action": 64, "rewrite": 400}
CLAIMS = {
    ("cpu", "action"): ("bench.grpo_step_vs_trl_cpu", "P 1,000, G 8, C 64", 3.0),
    ("cpu", "rewrite"): ("bench.grpo_step_vs_trl_cpu_rewrite", "P 1,000, G 8, C 400", 1.5),
    ("cuda", "action"): ("bench.grpo_step_vs_trl_gpu", "P 1,000, G 8, C 64", 2.0),
}
"""Device, shape -> claim id, sizes, target. The rewrite shape on a GPU is measured and claimed nowhere."""
GRID_PROMPTS, GRID_GROUPS, GRID_COMPLETION = (250, 500, 1000), (4, 8, 16), 64
THREADS = (1, 2)
STANDARD = {
    "prompt": 1000,
    "group": 8,
    "completion": None,
    "dtype": "float32",
    "threads": None,
    "stock_rows": None,
    "model": "smollm2-135m",
}
"""What a run with a claim leaves as it is."""

Measure = Callable[..., dict[str, Any]]
"""`one_process` in a process of its own: arm, seed and sizes by name -> steps and peak_gib."""


def measured(**sizes: Any) -> dict[str, Any]:
    """One process of `grpo_step_process.py` with these options. Raises RuntimeError with its last words."""
    command = [sys.executable, str(Path(__file__).with_name("grpo_step_process.py"))]
    for name, value in sizes.items():
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    surroundings = dict(os.environ)
    if sizes["device"] == "cpu":
        surroundings["CUDA_VISIBLE_DEVICES"] = ""
    if sizes["threads"]:
        surroundings["OMP_NUM_THREADS"] = str(sizes["threads"])
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{sizes['arm']} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def sizes_of(options: argparse.Namespace, **changes: Any) -> dict[str, Any]:
    """What every process of a measurement is told."""
    names = ("device", "dtype", "threads", "prompt", "group", "completion", "steps", "model")
    sizes = {name: getattr(options, name) for name in names} | changes
    rows = options.stock_rows or (4 if options.device == "cpu" else sizes["group"])
    sizes["stock_rows"] = min(rows, sizes["group"])
    if sizes["group"] % sizes["stock_rows"]:
        raise InputError(
            f"--group {sizes['group']} with {sizes['stock_rows']} rollouts in a micro-batch of stock",
            "cannot be split evenly",
            "choose --stock-rows that divides --group",
        )
    return sizes


def mean_seconds(run: Mapping[str, Any]) -> float:
    """Of a process's timed steps, without rewards."""
    return sum(step["seconds"] for step in run["steps"]) / len(run["steps"])


def compare(shape: str, options: argparse.Namespace, measure: Measure = measured) -> dict[str, Any]:
    """All processes of one shape, arms in turns."""
    sizes = sizes_of(options, completion=options.completion or SHAPES[shape])
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for number in range(options.rounds):
        for arm in ARMS if number % 2 == 0 else reversed(ARMS):
            found[arm].append(measure(arm=arm, seed=number, **sizes))
            show(f"{shape:8} {arm:7} round {number}", found[arm][-1])
    return {
        arm: {
            "seconds": [round(step["seconds"], 4) for run in runs for step in run["steps"]],
            "parts": [{name: round(value, 4) for name, value in step.items()} for run in runs for step in run["steps"]],
            "peak_gib": [round(run["peak_gib"], 2) for run in runs],
        }
        for arm, runs in found.items()
    }


def growth(options: argparse.Namespace, measure: Measure = measured) -> list[dict[str, Any]]:
    """Both arms over the grid of P and G, one process each: seconds a step, peaks, and stock's time over shared's."""
    points = []
    for prompt, group in itertools.product(GRID_PROMPTS, GRID_GROUPS):
        sizes = sizes_of(options, prompt=prompt, group=group, completion=options.completion or GRID_COMPLETION)
        point: dict[str, Any] = {"prompt": prompt, "group": group}
        for arm in ARMS:
            run = measure(arm=arm, seed=0, **sizes)
            show(f"P {prompt:4} G {group:2} {arm:7}", run)
            point[arm] = {"seconds": round(mean_seconds(run), 4), "peak_gib": round(run["peak_gib"], 2)}
        points.append({**point, "ratio": round(point["stock"]["seconds"] / point["shared"]["seconds"], 3)})
    return points


def choices(options: argparse.Namespace, measure: Measure = measured) -> list[dict[str, Any]]:
    """The shared arm at every dtype and number of threads: what a step costs, the cheapest first."""
    rows = []
    for dtype, threads in itertools.product(DTYPES, THREADS):
        sizes = sizes_of(
            options, dtype=dtype, threads=threads, completion=options.completion or SHAPES[options.shape or "action"]
        )
        run = measure(arm="shared", seed=0, **sizes)
        show(f"{dtype:8} {threads} threads", run)
        rows.append(
            {"dtype": dtype, "threads": threads, "seconds": round(mean_seconds(run), 4)}
            | {"peak_gib": round(run["peak_gib"], 2)}
        )
    return sorted(rows, key=lambda row: row["seconds"])


def show(what: str, run: Mapping[str, Any]) -> None:
    """A line for a process that ended."""
    print(f"{what}  {mean_seconds(run):7.2f} s a step  {run['peak_gib']:.1f} GiB", flush=True)


def record(shape: str, figures: dict[str, Any], device: str, asked: Sequence[str] = ()) -> None:
    """The seconds as a committed artefact, and the claim computed from it; nothing for what has no claim. `asked`: the
    words of the command line."""
    from verbalize.report.artefacts import timings_table, write_artefact

    if (device, shape) not in CLAIMS:
        return
    claim_id, sizes, target = CLAIMS[device, shape]
    artefact = RESULTS / "artefacts" / f"grpo_step_{shape}{'_gpu' if device == 'cuda' else ''}.csv"
    write_artefact(timings_table({arm: figures[arm]["seconds"] for arm in ARMS}), artefact)
    enter(
        RESULTS,
        claim_id,
        f"A GRPO step on {'a GPU' if device == 'cuda' else 'CPU'} without its rewards ({sizes}, SmolLM2-135M, LoRA): "
        "time of stock TRL over shared prefixes",
        **ratio("stock", "shared"),
        artefact=artefact,
        command=" ".join(["python experiments/benchmarks/grpo_step.py", *asked]),
        target=target,
    )


def surroundings_of(device: str) -> dict[str, Any]:
    """What the figures were measured on. Raises InputError for a device that this machine does not have."""
    import torch

    from verbalize.report.provenance import hardware, versions

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "--device cuda", "there is no CUDA device that torch can use", "leave --device out, or see verbalize doctor"
        )
    gpu = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    packages = versions(("torch", "transformers", "trl", "peft"))
    return {"device": device, **gpu, "hardware": hardware(), "versions": packages, "load_average": os.getloadavg()[0]}


def arguments() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="what both arms run on")
    parser.add_argument("--shape", choices=[*SHAPES], help="only this one")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--grid", action="store_true", help="one round of both arms over P and G, at C 64")
    what.add_argument("--choices", action="store_true", help="one round of `shared` over dtype and threads")
    parser.add_argument("--prompt", type=int, default=STANDARD["prompt"], help="P, tokens")
    parser.add_argument("--group", type=int, default=STANDARD["group"], help="G")
    parser.add_argument("--completion", type=int, help="C, tokens (default: the shape's)")
    parser.add_argument("--dtype", choices=DTYPES, default=STANDARD["dtype"], help="of the frozen weights")
    parser.add_argument("--threads", type=int, help="of torch in each process (default: torch's own)")
    parser.add_argument("--stock-rows", type=int, help="rollouts in a micro-batch of stock (default: 4, on a GPU all)")
    parser.add_argument("--rounds", type=int, default=3, help="processes per arm")
    parser.add_argument("--steps", type=int, default=2, help="timed steps per process")
    parser.add_argument("--model", default=STANDARD["model"])
    parser.add_argument("--out", type=Path, help="write the raw figures into this folder and enter no claim")
    return parser


def main() -> None:
    """Both shapes, the grid or the choices, or what the options say."""
    parser = arguments()
    options = parser.parse_args()
    try:
        surroundings = surroundings_of(options.device)
        sizes_of(options)
    except InputError as error:
        parser.error(str(error))
    settings = {name: getattr(options, name) for name in ("prompt", "group", "rounds", "steps", "dtype", "threads")}
    if options.grid or options.choices:
        name = "grid" if options.grid else "choices"
        for left_out in ("prompt", "group") if options.grid else ("dtype", "threads"):
            del settings[left_out]
        keep(options, name, {**settings, **surroundings, name: growth(options) if options.grid else choices(options)})
        return
    standard = all(getattr(options, name) == value for name, value in STANDARD.items())
    for shape in [options.shape] if options.shape else SHAPES:
        figures = compare(shape, options)
        if standard and not options.out:
            record(shape, figures, options.device, sys.argv[1:])
        if standard or options.out:
            keep(options, shape, {**settings, **surroundings, shape: figures})


def keep(options: argparse.Namespace, name: str, figures: dict[str, Any]) -> None:
    """The raw figures in a file of their own, so that measuring one shape leaves the other's as they are."""
    suffix = "_gpu" if options.device == "cuda" else ""
    write_json(figures, (options.out or RESULTS) / f"grpo_step_{name}{suffix}.json")


if __name__ == "__main__":
    main()
