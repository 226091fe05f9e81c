"""Rollouts in parallel TextWorld environments against one environment after another, the same episodes.

Run:  python experiments/benchmarks/rollouts_parallel.py [--games 40] [--environments 8] [--repeats 5]
                                                         [--policy random] [--device cpu] [--out experiments/results]
      python experiments/benchmarks/rollouts_parallel.py --policy generate --games 16 --actions 8 --repeats 3

Games of all five families, generated beforehand, `--actions` at most. Arms:

  sequential   one environment, in this process
  parallel     `--environments` of them, each in a worker process, every move of all of them one batch for the policy

`--policy random` draws among the admissible actions: what is measured are environments, chats and the pool. With
`--policy score` SmolLM2-135M scores the admissible actions (on `--device`), one episode at a time against the batch of
all; with `--policy generate` it writes them, 16 tokens at most, keys and values of each chat kept: decoding is bound by
reading the weights, which a batch does once. The untrained model rarely stops before its 16 tokens. Both arms must play
the same episodes, action by action, or the run fails; a model's scores may differ in their last bits between batches,
so with it the share of equal episodes is reported. Arms alternate; before the first timed repeat each arm plays all
games once, so start of workers and imports are not timed, loading of games is.

Writes rollouts_parallel.json and artefacts/rollouts_parallel.csv (raw seconds, for the ledger); of a model's policy the
names end with it. Environments are bound by the processor: their ratio cannot exceed the cores by much.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from recording import enter, parser_of, ratio, record, say

from verbalize.agents.environment import Task, Trajectory
from verbalize.agents.policies import RandomPolicy
from verbalize.agents.pool import EnvironmentPool, LocalEnvironments, PoolConfig
from verbalize.agents.rollouts import Policy, roll_out
from verbalize.agents.textworld_env import TextWorld
from verbalize.agents.textworld_games import game_task, prepare
from verbalize.report.artefacts import timings_table

TARGET = 3.0
POLICIES = {
    "random": "random policy",
    "score": "SmolLM2-135M scores the actions",
    "generate": "SmolLM2-135M writes the actions",
}
KINDS = (("route", 3), ("coin", 4), ("treasure", 12), ("quest", 4), ("cooking", 3))


def policy_of(name: str, device: str) -> Policy:
    """The policy of both arms."""
    if name == "random":
        return RandomPolicy()
    from recsys.models.loading import load_language_model
    from verbalize.agents.cached_generation import CachedGeneratingPolicy
    from verbalize.agents.language_policies import ActingConfig, ScoringPolicy

    loaded = load_language_model("smollm2-135m", device=device)
    if name == "generate":
        return CachedGeneratingPolicy(loaded.model, loaded.tokenizer, ActingConfig(max_new_tokens=16))
    return ScoringPolicy(loaded.model, loaded.tokenizer)


def measure(
    tasks: list[Task], folder: Path, policy: Policy, environments: int, repeats: int
) -> tuple[dict[str, list[float]], float, int]:
    """Seconds by arm, the smallest share of equal episodes, actions per repeat; repeat -1 warms up."""
    seconds: dict[str, list[float]] = {"sequential": [], "parallel": []}
    equal, actions = 1.0, 0
    alone = LocalEnvironments(TextWorld(folder))
    with EnvironmentPool(TextWorld(folder), PoolConfig(size=environments, preload=("textworld",))) as pool:
        arms: dict[str, Any] = {"sequential": alone, "parallel": pool}
        for repeat in range(-1, repeats):
            played: dict[str, list[Trajectory]] = {}
            for arm in sorted(arms, reverse=bool(repeat % 2)):
                start = time.perf_counter()
                played[arm] = roll_out(arms[arm], policy, tasks)
                if repeat >= 0:
                    seconds[arm].append(time.perf_counter() - start)
            pairs = list(zip(played["sequential"], played["parallel"], strict=True))
            equal = min(equal, sum(one == other for one, other in pairs) / len(pairs))
            actions = sum(len(episode.turns) for episode in played["parallel"])
        if pool.restarted:
            raise SystemExit(f"{pool.restarted} workers failed: the times are not those of rollouts alone")
    alone.close()
    return seconds, equal, actions


def main() -> None:
    parser = parser_of(__doc__, repeats=5)
    parser.add_argument("--games", type=int, default=40)
    parser.add_argument("--environments", type=int, default=8)
    parser.add_argument("--policy", choices=tuple(POLICIES), default="random")
    parser.add_argument("--actions", type=int, default=20, help="most of a game")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    tasks = [game_task(*KINDS[game % len(KINDS)], game // len(KINDS), options.actions) for game in range(options.games)]
    with tempfile.TemporaryDirectory() as name:
        prepare(tasks, Path(name), processes=os.cpu_count() or 1)
        policy = policy_of(options.policy, options.device)
        seconds, equal, actions = measure(tasks, Path(name), policy, options.environments, options.repeats)
    if options.policy == "random" and equal < 1:
        raise SystemExit(f"the arms disagree: only {equal:.1%} of the episodes are equal")
    times = float(np.median(seconds["sequential"]) / np.median(seconds["parallel"]))
    name = "rollouts_parallel" if options.policy == "random" else f"rollouts_parallel_{options.policy}"
    artefact = record(
        name,
        options.out,
        timings_table(seconds),
        settings={
            "games": options.games,
            "actions": options.actions,
            "environments": options.environments,
            "repeats": options.repeats,
            "policy": options.policy,
            "device": options.device,
        },
        packages=("textworld", "jericho", "numpy", "torch"),
        figures={
            "actions_per_repeat": actions,
            "equal_episodes": equal,
            "seconds": seconds,
            "ratio_of_medians": times,
        },
    )
    say(f"sequential / parallel: {times:.2f}, equal episodes {equal:.1%}")
    enter(
        options.out,
        f"bench.{name}",
        f"Rollouts of {options.games} TextWorld games, {POLICIES[options.policy]}: time of one environment over "
        f"{options.environments} parallel ones",
        **ratio("sequential", "parallel"),
        artefact=artefact,
        command=f"python experiments/benchmarks/rollouts_parallel.py --games {options.games} "
        f"--actions {options.actions} --environments {options.environments} "
        f"--repeats {options.repeats} --policy {options.policy} --device {options.device}",
        target=TARGET,
        criterion="value",
    )


if __name__ == "__main__":
    main()
