"""How many threads, and how they wait: tokens a second of one forward pass, alone and beside other work on the machine.

Run:  python experiments/benchmarks/cpu_threads.py [--repeats 3] [--out DIR]      about four minutes

Threads of one forward pass meet after every matrix product. `active` ones (libgomp's default) spin while they wait for
each other; where another program holds a core, the thread it delays is waited for by spinning that takes the other
core away from it. `passive` ones sleep. Every run is a fresh process, since the policy is read when torch is loaded;
settings alternate. `beside` is 0 or as many busy processes as the machine has cores less one: what is left is a core.

SmolLM2-135M, float32, prompts of 300 tokens, no gradients: as a slate is ranked. Writes cpu_threads.json;
it enters no claim; `experiments/guides/train.md` says what follows.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from recording import ROOT, parser_of, say

PROMPT, SECONDS = 300, 5.0
POLICIES = ("active", "passive")
BUSY = "while True: pass"


def one_process(threads: int) -> float:
    """Tokens a second with so many threads, after a pass that warms up."""
    import torch

    from recsys.models.loading import load_language_model
    from recsys.models.packed import body_and_head

    torch.set_num_threads(threads)
    body, _ = body_and_head(load_language_model("smollm2-135m").model)
    ids = torch.arange(1000, 1000 + PROMPT)[None]
    with torch.no_grad():
        body(input_ids=ids, use_cache=False)
        begun, passes = time.perf_counter(), 0
        while time.perf_counter() - begun < SECONDS:
            body(input_ids=ids, use_cache=False)
            passes += 1
    return passes * PROMPT / (time.perf_counter() - begun)


def measured(threads: int, policy: str, beside: int) -> float:
    """The same in a process of its own, with its neighbours."""
    neighbours = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(beside)]
    try:
        command = [sys.executable, __file__, "--threads", str(threads)]
        surroundings = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": policy}
        done = subprocess.run(command, cwd=ROOT, env=surroundings, check=True, capture_output=True, text=True)
    finally:
        for neighbour in neighbours:
            neighbour.kill()
    return float(done.stdout)


def main() -> None:
    parser = parser_of(__doc__, repeats=3)
    parser.add_argument("--threads", type=int, help="one process: print its tokens a second")
    options = parser.parse_args()
    if options.threads:
        print(one_process(options.threads))
        return
    from recsys.storage import write_json
    from verbalize.report.provenance import hardware, versions

    cores = os.cpu_count() or 1
    settings = list(itertools.product(sorted({1, cores}), POLICIES, sorted({0, cores - 1})))
    runs: list[list[float]] = [[] for _ in settings]
    for repeat in range(options.repeats):
        for number in range(len(settings)) if repeat % 2 == 0 else reversed(range(len(settings))):
            runs[number].append(round(measured(*settings[number]), 1))
            say(f"{repeat} threads, policy, beside {settings[number]}: {runs[number][-1]} tokens a second")
    rows: list[dict[str, Any]] = [
        {"threads": threads, "policy": policy, "beside": beside, "tokens_per_second": seen}
        | {"median": statistics.median(seen)}
        for (threads, policy, beside), seen in zip(settings, runs, strict=True)
    ]
    facts = {"prompt": PROMPT, "hardware": hardware(), "versions": versions(("torch", "transformers")), "runs": rows}
    options.out.mkdir(parents=True, exist_ok=True)
    write_json({"benchmark": "cpu_threads", **facts}, options.out / "cpu_threads.json")
    for row in rows:
        say(json.dumps(row))


if __name__ == "__main__":
    main()
