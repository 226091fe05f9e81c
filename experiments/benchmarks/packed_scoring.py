"""Scoring one slate from one text: a packed forward against four ways an expert might write it instead.

Run:  OMP_NUM_THREADS=2 python experiments/benchmarks/packed_scoring.py [--repeats 20] [--out FILE]

Every arm computes log p(candidate | text) for the same 10 candidates after the same 50-event text with the same float32
weights; every token's log-probability must agree within 1e-4 on every text, or the run fails. Arms, all in inference
mode; padding aside, none projects to the vocabulary a position that it does not read, or feeds a token whose output it
does not read:

  packed            prefix once, all candidates after it under a block mask (recsys.models.packed)
  one_by_one        one forward of prefix + candidate per candidate
  padded_batch      one forward of a batch of 10 full sequences
  prefill_crop      prefix once into a key-value cache, one short forward per candidate, cache cropped after each
  prefill_expand    prefix once, cache repeated 10-fold, one short batched forward

Repeats are interleaved: each times all arms in a fresh random order on its own text, so that load and drift fall on
all. The artefact holds raw seconds and no titles.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers
from recording import RESULTS, enter, ratio

from recsys.models.assets import cache_dir
from recsys.models.loading import LanguageModel, load_language_model
from recsys.models.packed import packed_logprobs
from recsys.models.packing import PackedRequest
from recsys.models.tokenisation import encode_text, encode_texts
from recsys.seeding import rng
from recsys.storage import write_json
from verbalize.report.artefacts import timings_table, write_artefact

SLATE, EVENTS, TOLERANCE = 10, 50, 1e-4
OUT = RESULTS / "packed_scoring.json"
CUE = "Next, this viewer will enjoy watching:"


def packed(model: torch.nn.Module, prefix: list[int], branches: list[list[int]]) -> list[torch.Tensor]:
    return packed_logprobs(model, [PackedRequest(prefix, branches)], 4096)[0]


def one_by_one(model: torch.nn.Module, prefix: list[int], branches: list[list[int]]) -> list[torch.Tensor]:
    scores = []
    for branch in branches:
        ids = torch.tensor([prefix + branch[:-1]])
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(branch)).logits
        scores.append(_picked(logits[0], branch))
    return scores


def padded_batch(model: torch.nn.Module, prefix: list[int], branches: list[list[int]]) -> list[torch.Tensor]:
    longest = max(map(len, branches))
    ids = torch.tensor([prefix + branch[:-1] + [0] * (longest - len(branch)) for branch in branches])
    # Padding lies to the right of everything read, so the causal mask already hides it.
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=longest).logits
    return [_picked(row, branch) for row, branch in zip(logits, branches, strict=True)]


def prefill_crop(model: torch.nn.Module, prefix: list[int], branches: list[list[int]]) -> list[torch.Tensor]:
    first = model(input_ids=torch.tensor([prefix]), use_cache=True, logits_to_keep=1)
    cache, scores = first.past_key_values, []
    for branch in branches:
        logits = first.logits[0]
        if len(branch) > 1:
            rest = model(input_ids=torch.tensor([branch[:-1]]), past_key_values=cache, use_cache=True).logits[0]
            cache.crop(len(prefix) - cache.get_seq_length())
            logits = torch.cat([logits, rest])
        scores.append(_picked(logits, branch))
    return scores


def prefill_expand(model: torch.nn.Module, prefix: list[int], branches: list[list[int]]) -> list[torch.Tensor]:
    first = model(input_ids=torch.tensor([prefix]), use_cache=True, logits_to_keep=1)
    cache, longest = first.past_key_values, max(map(len, branches))
    cache.batch_repeat_interleave(len(branches))
    ids = torch.tensor([branch[:-1] + [0] * (longest - len(branch)) for branch in branches])
    rest = model(input_ids=ids, past_key_values=cache, use_cache=True).logits
    return [_picked(torch.cat([first.logits[0], row]), branch) for row, branch in zip(rest, branches, strict=True)]


ARMS: dict[str, Callable[[torch.nn.Module, list[int], list[list[int]]], list[torch.Tensor]]] = {
    arm.__name__: arm for arm in (packed, one_by_one, padded_batch, prefill_crop, prefill_expand)
}


def _picked(logits: torch.Tensor, branch: Sequence[int]) -> torch.Tensor:
    """Log-probabilities of the branch; row i of `logits` (>= L, V) predicts token i."""
    return torch.log_softmax(logits[: len(branch)].float(), -1).gather(1, torch.tensor(branch)[:, None])[:, 0]


def catalogue() -> tuple[list[tuple[str, str]], str]:
    """(title, genres) pairs and where they come from: MovieLens 100k when it has been fetched, else made-up titles."""
    path = cache_dir() / "movielens-100k" / "ml-100k.item"
    if path.is_file():
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
        return [(row[1], row[3].replace(" ", ", ")) for row in rows], "movielens-100k"
    words = (
        "Night",
        "River",
        "Stone",
        "Winter",
        "Silent",
        "Golden",
        "City",
        "Garden",
        "Letter",
        "Storm",
        "Island",
        "Crown",
    )
    pairs = [(f"The {a} {b}", "Drama, Comedy") for a in words for b in words if a != b]
    return pairs, "made-up titles"


def workload(lm: LanguageModel, repeat: int) -> tuple[list[int], list[list[int]]]:
    """Prefix ids of a 50-event concatenation and the ids of 10 title-only candidates, drawn by the repeat's number."""
    pairs, _ = catalogue()
    generator = rng("packed-scoring", repeat)
    drawn = [pairs[index] for index in generator.choice(len(pairs), EVENTS + SLATE, replace=False)]
    ratings = generator.integers(1, 6, EVENTS)
    lines = [
        f"watched {title} ({genres}), rated {rating}/5"
        for (title, genres), rating in zip(drawn[:EVENTS], ratings, strict=True)
    ]
    text = "; ".join(lines) + "\n" + CUE
    return encode_text(lm.tokenizer, text), encode_texts(lm.tokenizer, [f" {title}" for title, _ in drawn[EVENTS:]])


def measure(lm: LanguageModel, repeats: int) -> tuple[list[dict[str, object]], dict[str, object]]:
    """Raw runs ({"arm", "repeat", "seconds"}) and the prefix length of each repeat; equality is checked on every
    text.
    """
    runs: list[dict[str, object]] = []
    lengths = []
    token = total = 0.0
    for repeat in range(-1, repeats):  # repeat -1 warms up and is not recorded
        prefix, branches = workload(lm, repeat)
        scores = {}
        for arm in rng("packed-scoring-order", repeat).permutation(list(ARMS)):
            start = time.perf_counter()
            scores[arm] = ARMS[arm](lm.model, prefix, branches)
            seconds = time.perf_counter() - start
            if repeat >= 0:
                runs.append({"arm": str(arm), "repeat": repeat, "seconds": round(seconds, 5)})
        pairs = [(ours, theirs) for arm in ARMS for ours, theirs in zip(scores[arm], scores["one_by_one"], strict=True)]
        token = max(token, *(float((ours - theirs).abs().max()) for ours, theirs in pairs))
        total = max(total, *(float((ours.sum() - theirs.sum()).abs()) for ours, theirs in pairs))
        if token > TOLERANCE:
            raise RuntimeError(f"arms disagree by {token:.1e} on text {repeat}")
        if repeat >= 0:
            lengths.append(len(prefix))
    return runs, {
        "prefix_tokens": lengths,
        "largest_difference_per_token": token,
        "largest_difference_per_candidate": total,
    }


CLAIMS = {
    "bench.packed_scoring": (
        "one_by_one",
        "Scoring a slate of 10 after 50 events on CPU: time of one forward per candidate over one packed forward",
        5.0,
    ),
    "bench.packed_vs_crop": (
        "prefill_crop",
        "The same slate: time of prefilling once and cropping the cache per candidate over one packed forward",
        1.0,
    ),
}


def record(runs: Sequence[dict[str, object]]) -> None:
    """Write the timings as a committed artefact and the two claims computed from it."""
    seconds = {arm: [float(str(run["seconds"])) for run in runs if run["arm"] == arm] for arm in ARMS}
    artefact = RESULTS / "artefacts" / "packed_scoring.csv"
    write_artefact(timings_table(seconds), artefact)
    for claim_id, (slow, statement, target) in CLAIMS.items():
        enter(
            RESULTS,
            claim_id,
            statement,
            **ratio(slow, "packed"),
            artefact=artefact,
            command="python experiments/benchmarks/packed_scoring.py",
            target=target,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lm = load_language_model("smollm2-135m")
    with torch.inference_mode():
        runs, facts = measure(lm, options.repeats)
    write_json(
        {
            "benchmark": "packed_scoring",
            "settings": {
                "model": "smollm2-135m",
                "dtype": "float32",
                "attention": "sdpa",
                "slate": SLATE,
                "events": EVENTS,
                "titles": catalogue()[1],
                **facts,
                "threads": options.threads,
                "repeats": options.repeats,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            "hardware": {
                "machine": platform.machine(),
                "processors": os.cpu_count(),
                "load_average_at_end": [round(load, 2) for load in os.getloadavg()],
            },
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "runs": runs,
        },
        options.out,
    )
    for arm in ARMS:
        typical = statistics.median(float(str(run["seconds"])) for run in runs if run["arm"] == arm)
        print(f"{arm:24} {typical:7.3f} s")
    if options.out == OUT:
        record(runs)


if __name__ == "__main__":
    main()
