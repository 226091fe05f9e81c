"""Which dtype of frozen weights a CPU computes fastest: bfloat16 against float32, for what a verbalizer does all day.

Run:  python experiments/benchmarks/cpu_dtype.py [--repeats 5] [--out DIR]      about three minutes

One thread, SmolLM2-135M, four rows of 250 tokens, an action prompt's length: `forward` (a prompt is read), `train`
(forward and backward through a LoRA adapter in float32) and `decode` (one token for each row behind its prompt). Dtypes
alternate within every repeat; a ratio is that of the medians of processor time, which neighbours disturb least.
`log_probability_shift` is the mean absolute difference of all log-probabilities of a sentence's next tokens: what the
rounding does.

CPUs differ: those with AMX or AVX512-BF16 multiply bfloat16 natively, others emulate it. Writes cpu_dtype.json; it
enters no claim, and `policy.dtype` of a recipe is what to set by it (`experiments/guides/train.md`).
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

from recording import parser_of, say

ROWS, PROMPT, TOKENS = 4, 250, 8
DTYPES = ("float32", "bfloat16")
TEXT = "A viewer of crime dramas from the 1990s, who rates what is slow and sad higher than what is loud."


def jobs(dtype: str) -> tuple[dict[str, Callable[[], int]], Any]:
    """What is timed, each returning how many tokens it worked on; and the log-probabilities of TEXT (T, V)."""
    import torch

    from recsys.models.adapters import add_lora
    from recsys.models.loading import load_language_model
    from recsys.models.settings import LoraSettings

    lm = load_language_model("smollm2-135m", dtype)
    sentence = lm.tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        known = torch.log_softmax(lm.model(sentence).logits[0].float(), -1)
    ids = sentence.repeat(ROWS, -(-PROMPT // sentence.shape[1]))[:, :PROMPT]
    adapted = add_lora(load_language_model("smollm2-135m", dtype).model, LoraSettings(), 0)

    def forward() -> int:
        with torch.no_grad():
            lm.model(ids, use_cache=False)
        return ids.numel()

    def train() -> int:
        adapted(ids, use_cache=False).logits.float().logsumexp(-1).mean().backward()
        return ids.numel()

    def decode() -> int:
        with torch.no_grad():
            cache = kept[0]
            for _ in range(TOKENS):
                lm.model(ids[:, :1], past_key_values=cache)
            cache.crop(-TOKENS)
        return ROWS * TOKENS

    with torch.no_grad():
        kept = [lm.model(ids, use_cache=True).past_key_values]
    return {"forward": forward, "train": train, "decode": decode}, known


def main() -> None:
    options = parser_of(__doc__, repeats=5).parse_args()
    import torch

    from recsys.storage import write_json
    from verbalize.report.provenance import hardware, versions

    torch.set_num_threads(1)
    made = {dtype: jobs(dtype) for dtype in DTYPES}
    rates: dict[str, dict[str, list[float]]] = {
        job: {dtype: [] for dtype in DTYPES} for job in ("forward", "train", "decode")
    }
    for repeat in range(options.repeats + 1):  # the first warms up
        for job, seen in rates.items():
            for dtype in DTYPES if repeat % 2 == 0 else reversed(DTYPES):
                begun = time.process_time()
                tokens = made[dtype][0][job]()
                if repeat:
                    seen[dtype].append(round(tokens / (time.process_time() - begun), 1))
    rows = []
    for job, seen in rates.items():
        medians = {dtype: statistics.median(values) for dtype, values in seen.items()}
        ratio = round(medians["bfloat16"] / medians["float32"], 2)
        rows.append({"job": job, "tokens_per_second": seen, "ratio": ratio})
        say(f"{job}: {medians} tokens a second, bfloat16 {ratio} times as fast")
    shift = (made["bfloat16"][1] - made["float32"][1]).abs().mean().item()
    facts = {"rows": ROWS, "prompt": PROMPT, "hardware": hardware(), "versions": versions(("torch", "transformers"))}
    options.out.mkdir(parents=True, exist_ok=True)
    written = {"benchmark": "cpu_dtype", **facts, "runs": rows, "log_probability_shift": round(shift, 4)}
    write_json(written, options.out / "cpu_dtype.json")


if __name__ == "__main__":
    main()
