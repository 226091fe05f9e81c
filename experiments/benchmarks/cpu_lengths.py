"""What it costs a CPU process in bfloat16 to read texts of ever new lengths, and what rounding lengths up saves.

Run:  python experiments/benchmarks/cpu_lengths.py [--repeats 2] [--texts 150] [--out DIR]      about eight minutes

SmolLM2-135M with a LoRA adapter, one thread; every text, with five short continuations, is scored and, every third one,
learned from. All lengths are different, 200 to 700 tokens. Each arm is a fresh process: `as_they_are`, or `rounded` as
`recsys.models.lengths` does. `growth_mb` is resident memory at the end minus after the first ten texts, a rate is
tokens, padding not counted, by processor time. Writes cpu_lengths.json; it enters no claim.
"""

import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from recording import parser_of, say

ARMS = ("as_they_are", "rounded")
WARM = 10


def measure(arm: str, texts: int) -> dict[str, float]:
    """One process's answer."""
    import torch

    from recsys.models import lengths
    from recsys.models.adapters import add_lora
    from recsys.models.loading import load_language_model
    from recsys.models.packed import packed_logprobs
    from recsys.models.packing import PackedRequest
    from recsys.models.settings import LoraSettings

    torch.set_num_threads(1)
    if arm == "as_they_are":
        lengths.ROUNDED_DTYPES = ()
    model = add_lora(load_language_model("smollm2-135m", "bfloat16").model, LoraSettings(), 0)
    draws = random.Random(0)
    tokens, begun, first = 0, 0.0, 0.0
    for number, length in enumerate(draws.sample(range(200, 700), texts + WARM)):
        if number == WARM:
            tokens, begun, first = 0, time.process_time(), _resident_mb()
        branches = [draws.choices(range(20_000), k=draws.randint(2, 9)) for _ in range(5)]
        request = PackedRequest(draws.choices(range(20_000), k=length), branches)
        with torch.set_grad_enabled(number % 3 == 0):
            scored = torch.cat(packed_logprobs(model, [request])[0]).sum()
        if number % 3 == 0:
            scored.backward()
        tokens += length + sum(map(len, branches))
    return {
        "growth_mb": round(_resident_mb() - first),
        "tokens_per_second": round(tokens / (time.process_time() - begun), 1),
    }


def _resident_mb() -> float:
    """Resident memory of this process."""
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def main() -> None:
    parser = parser_of(__doc__, repeats=2)
    parser.add_argument("--texts", type=int, default=150, help="texts of different lengths")
    parser.add_argument("--arm", choices=ARMS, help="measure one arm in this process and print it")
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(measure(options.arm, options.texts)))
        return

    from recsys.storage import write_json
    from verbalize.report.provenance import hardware, versions

    runs: list[dict[str, Any]] = []
    for repeat in range(options.repeats):
        for arm in ARMS if repeat % 2 == 0 else reversed(ARMS):
            command = [sys.executable, str(Path(__file__)), "--arm", arm, "--texts", str(options.texts)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            runs.append({"arm": arm, "repeat": repeat, **json.loads(printed.splitlines()[-1])})
            say(str(runs[-1]))
    rates = {arm: statistics.median(run["tokens_per_second"] for run in runs if run["arm"] == arm) for arm in ARMS}
    facts = {"texts": options.texts, "hardware": hardware(), "versions": versions(("torch", "transformers"))}
    written = {"benchmark": "cpu_lengths", **facts, "runs": runs}
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(
        written | {"rounded_over_as_they_are": round(rates["rounded"] / rates["as_they_are"], 2)},
        options.out / "cpu_lengths.json",
    )


if __name__ == "__main__":
    main()
