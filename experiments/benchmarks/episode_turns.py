"""Learning from the turns of episodes: prompts that begin a later one share its tokens, against a row for every turn.

Run:  OMP_NUM_THREADS=2 python experiments/benchmarks/episode_turns.py [--repeats 5] [--attempts 4] [--out FOLDER]

A batch as GRPO and GiGPO have it in `experiments/agents/slea.yaml`: `--attempts` episodes of each of two TextWorld
games (coin and quest), played once by SmolLM2-135M, which samples among the admissible actions. Timed is what learning
takes from there: log-probabilities of the chosen actions and their gradients with respect to a LoRA adapter, in
portions of at most 1,536 tokens. Arms:

  shared        a chat only grows, so an episode is one row; the actions of a turn see as much of it as was said by then
  row_per_turn  each distinct prompt is a row with its actions, rows of similar length batched

Both must give the same gradient to within a thousandth of its norm, or the run fails. Arms alternate. With retrieved
lessons in the system message, which differ from turn to turn, nothing is shared and both arms are one.

Writes episode_turns.json and artefacts/episode_turns.csv (raw seconds, for the ledger).
"""

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from recording import enter, parser_of, ratio, record, say

from recsys.models.adapters import add_lora
from recsys.models.loading import load_language_model
from recsys.models.settings import LoraSettings
from verbalize.agents.agent_trainer_turns import ActingSettings, Choice, TurnPolicy, choice_logprobs, portions
from verbalize.agents.pool import LocalEnvironments
from verbalize.agents.rollouts import RolloutConfig, roll_out
from verbalize.agents.textworld_env import TextWorld
from verbalize.agents.textworld_games import game_task, prepare
from verbalize.report.artefacts import timings_table

SETTINGS = ActingSettings(per_token=True, prompt_budget=1024, token_budget=1536)
GAMES = (("coin", 2, 8), ("quest", 2, 6))  # family, difficulty, most actions
TOLERANCE = 1e-3
PLACES = ("recsys.models.packing.prefix_chains", "verbalize.agents.agent_trainer_turns.prefix_chains")


def play(model: Any, tokenizer: Any, attempts: int) -> list[Choice]:
    """The turns of a batch of episodes."""
    tasks = [game_task(family, difficulty, 0, max_steps=most) for family, difficulty, most in GAMES]
    acting = TurnPolicy(model, tokenizer, SETTINGS)
    with tempfile.TemporaryDirectory() as name:
        prepare(tasks, Path(name))
        environments = LocalEnvironments(TextWorld(Path(name)))
        roll_out(environments, acting, tasks, RolloutConfig(attempts))
        environments.close()
    return list(acting.taken.values())


def learn(model: Any, choices: Sequence[Choice]) -> torch.Tensor:
    """The gradient of the mean log-probability of what was chosen, flat."""
    model.zero_grad()
    for places in portions(choices, SETTINGS.token_budget):
        logprobs, _ = choice_logprobs(model, [choices[place] for place in places], SETTINGS)
        (logprobs.sum() / len(choices)).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None])


def row_per_turn(prefixes: Sequence[Sequence[int]]) -> list[list[int]]:
    """Nobody's prefix begins another's."""
    return [[place] for place in range(len(prefixes))]


def measure(model: Any, choices: Sequence[Choice], repeats: int) -> tuple[dict[str, list[float]], float]:
    """Seconds by arm and the largest relative difference of their gradients; repeat -1 warms up."""
    seconds: dict[str, list[float]] = {"shared": [], "row_per_turn": []}
    apart = 0.0
    for repeat in range(-1, repeats):
        gradients = {}
        for arm in sorted(seconds, reverse=bool(repeat % 2)):
            with ExitStack() as stack:
                for place in PLACES if arm == "row_per_turn" else ():
                    stack.enter_context(patch(place, row_per_turn))
                start = time.perf_counter()
                gradients[arm] = learn(model, choices)
                if repeat >= 0:
                    seconds[arm].append(time.perf_counter() - start)
        one, other = gradients["shared"], gradients["row_per_turn"]
        apart = max(apart, float((one - other).norm() / other.norm()))
        say(f"{repeat}: " + ", ".join(f"{arm} {times[-1]:.1f} s" for arm, times in seconds.items() if times))
    return seconds, apart


def main() -> None:
    parser = parser_of(__doc__, repeats=5)
    parser.add_argument("--attempts", type=int, default=4)
    options = parser.parse_args()
    lm = load_language_model("smollm2-135m")
    choices = play(lm.model, lm.tokenizer, options.attempts)
    model = add_lora(lm.model, LoraSettings(rank=16, alpha=32), seed=0).train()
    with torch.no_grad():  # a fresh adapter has B = 0, and no gradient for A
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=1e-3, generator=torch.Generator().manual_seed(0))
    seconds, apart = measure(model, choices, options.repeats)
    if apart > TOLERANCE:
        raise SystemExit(f"the arms disagree: their gradients differ by {apart:.1e} of the norm")
    times = float(np.median(seconds["row_per_turn"]) / np.median(seconds["shared"]))
    distinct = {choice.prompt for choice in choices}
    artefact = record(
        "episode_turns",
        options.out,
        timings_table(seconds),
        settings={"attempts": options.attempts, "repeats": options.repeats, "threads": torch.get_num_threads()},
        packages=("textworld", "torch", "transformers", "peft"),
        figures={
            "turns": len(choices),
            "distinct_prompts": len(distinct),
            "tokens_of_distinct_prompts": sum(map(len, distinct)),
            "gradients_apart": apart,
            "seconds": seconds,
            "ratio_of_medians": times,
        },
    )
    say(f"row_per_turn / shared: {times:.2f}")
    enter(
        options.out,
        "bench.episode_turns",
        f"Learning from {2 * options.attempts} TextWorld episodes, SmolLM2-135M with LoRA on a CPU: time with a row "
        "per turn over time with a row per episode, same gradients",
        **ratio("row_per_turn", "shared"),
        artefact=artefact,
        command=f"python experiments/benchmarks/episode_turns.py --attempts {options.attempts}",
        target=None,
    )


if __name__ == "__main__":
    main()
