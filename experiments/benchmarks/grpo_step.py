"""One GRPO step of a language-model policy: shared prefixes against stock TRL on the same machine, in one run.

    python experiments/benchmarks/grpo_step.py [--out FILE]      both shapes; about 45 minutes on 2 idle cores
    python experiments/benchmarks/grpo_step.py --shape action --prompt 200 --completion 16 --rounds 1     a quick look

    action shape:  P 1,000  G 8  C 64      a symbol or a few per event, decoded
    rewrite shape: P 1,000  G 8  C 400     free text

A step is generation, loss, backward and optimizer: what it costs without its rewards, which are the same function on
both sides and timed apart. SmolLM2-135M, float32, LoRA r 16 on attention and MLP, beta 0, one prompt and one update per
step; weights, prompts and settings are equal. Every completion must have exactly C tokens (the end token is one that is
never sampled), or the run fails. Every arm runs in processes of its own, in turns, one warm-up step each; memory is the
peak of a process. Stock takes two micro-batches of four rollouts, the most that fits into 24 GB; `shared` checks itself
against stock in its warm-up step and fails the run if it would fall back.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recording import RESULTS, ROOT, enter, ratio

from recsys.storage import write_json

OUT = RESULTS / "grpo_step.json"
ARMS = ("stock", "shared")
SHAPES = {"action": 64, "rewrite": 400}
CLAIMS = {
    "action": ("bench.grpo_step_vs_trl_cpu", "P 1,000, G 8, C 64", 3.0),
    "rewrite": ("bench.grpo_step_vs_trl_cpu_rewrite", "P 1,000, G 8, C 400", 1.5),
}


def one_process(arm: str, options: argparse.Namespace) -> dict[str, Any]:
    """Warm up, then time `--steps` steps of one arm; seconds of the parts of each, and the peak memory in GiB."""
    import torch
    from datasets import Dataset

    from recsys.models.loading import load_language_model
    from recsys.models.settings import LoraSettings
    from recsys.seeding import rng
    from verbalize.optimize.rewrite_trainer import RewriteGRPOTrainer
    from verbalize.optimize.settings import TrainConfig
    from verbalize.optimize.training import trainable_policy
    from verbalize.optimize.trl_settings import grpo_config

    lm = load_language_model(options.model)
    model = trainable_policy(lm, LoraSettings(rank=16, alpha=32, mlp=True), 0)
    vocabulary = len(lm.tokenizer)
    steps = options.steps + 1
    prompts = rng("grpo step", options.seed).integers(100, vocabulary - 1000, (steps, options.prompt)).tolist()

    class Trainer(RewriteGRPOTrainer):
        """Prompts given as token ids; the parts of a step on the clock."""

        def _tokenize_prompts(self, chats: Any) -> Any:
            return [prompts[int(chat)] for chat in chats], None, {}

        def _generate_single_turn(self, *args: Any, **fields: Any) -> Any:
            return clocked("generation", lambda: super(Trainer, self)._generate_single_turn(*args, **fields))

        def _calculate_rewards(self, *args: Any) -> Any:
            return clocked("rewards", lambda: super(Trainer, self)._calculate_rewards(*args))

        def training_step(self, *args: Any, **fields: Any) -> Any:
            return clocked("step", lambda: super(Trainer, self).training_step(*args, **fields))

    parts: list[dict[str, float]] = []

    def clocked(name: str, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        try:
            return work()
        finally:
            parts[-1][name] = parts[-1].get(name, 0.0) + time.perf_counter() - begun

    from transformers import TrainerCallback

    class Split(TrainerCallback):
        """A new record per optimizer step; `whole` is all of it."""

        def on_step_begin(self, *args: Any, **fields: Any) -> None:
            parts.append({"begun": time.perf_counter()})

        def on_step_end(self, *args: Any, **fields: Any) -> None:
            parts[-1]["whole"] = time.perf_counter() - parts[-1].pop("begun")

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        if any(len(ids) != options.completion for ids in completion_ids):
            raise RuntimeError("completions of unequal length: the end token was sampled")
        return [float(sum(ids) % 97) for ids in completion_ids]

    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            steps=steps, prompts_per_step=1, group_size=options.group, learning_rate=1e-5, save_every=999
        )
        args = grpo_config(config, Path(folder), options.completion)
        if arm == "stock":
            args.per_device_train_batch_size = options.group // 2
            args.gradient_accumulation_steps = args.steps_per_generation = 2
        trainer = Trainer(
            model=model,
            reward_funcs=reward,
            args=args,
            train_dataset=Dataset.from_list([{"prompt": str(number)} for number in range(steps)]),
            processing_class=lm.tokenizer,
            callbacks=[Split()],
            shared_prefix=arm == "shared",
        )
        trainer.eos_token_ids = [vocabulary - 1]
        trainer.generation_config.eos_token_id = vocabulary - 1
        torch.manual_seed(options.seed)
        trainer.train()
        if trainer.shares_prefix != (arm == "shared"):
            raise RuntimeError("shared prefixes fell back to stock")
    timed = [
        {
            "generation": step["generation"],
            "rewards": step["rewards"],
            "loss": step["step"] - step["generation"] - step["rewards"],
            "optimizer": step["whole"] - step["step"],
            "seconds": step["whole"] - step["rewards"],
        }
        for step in parts[1:]
    ]
    return {"steps": timed, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def compare(shape: str, options: argparse.Namespace) -> dict[str, Any]:
    """All processes of one shape, arms in turns."""
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for number in range(options.rounds):
        for arm in ARMS if number % 2 == 0 else reversed(ARMS):
            command = [sys.executable, __file__, "--arm", arm, "--seed", str(number)]
            for name in ("prompt", "group", "steps", "model"):
                command += [f"--{name}", str(getattr(options, name))]
            command += ["--completion", str(options.completion or SHAPES[shape])]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{arm} failed:\n{done.stderr[-3000:]}")
            found[arm].append(json.loads(done.stdout.splitlines()[-1]))
            mean = sum(step["seconds"] for step in found[arm][-1]["steps"]) / options.steps
            print(
                f"{shape:8} {arm:7} round {number}  {mean:7.1f} s a step  {found[arm][-1]['peak_gib']:.1f} GiB",
                flush=True,
            )
    return {
        arm: {
            "seconds": [round(step["seconds"], 3) for run in runs for step in run["steps"]],
            "parts": [{name: round(value, 3) for name, value in step.items()} for run in runs for step in run["steps"]],
            "peak_gib": [round(run["peak_gib"], 2) for run in runs],
        }
        for arm, runs in found.items()
    }


def record(shape: str, measured: dict[str, Any], options: argparse.Namespace) -> None:
    """The seconds as a committed artefact, and the claim computed from it."""
    from verbalize.report.artefacts import timings_table, write_artefact

    claim_id, sizes, target = CLAIMS[shape]
    artefact = RESULTS / "artefacts" / f"grpo_step_{shape}.csv"
    write_artefact(timings_table({arm: measured[arm]["seconds"] for arm in ARMS}), artefact)
    enter(
        RESULTS,
        claim_id,
        f"A GRPO step on CPU without its rewards ({sizes}, SmolLM2-135M, LoRA): time of stock TRL over shared prefixes",
        **ratio("stock", "shared"),
        artefact=artefact,
        command="python experiments/benchmarks/grpo_step.py",
        target=target,
    )


def main() -> None:
    """Both shapes, or what the options say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[*SHAPES], help="only this one")
    parser.add_argument("--prompt", type=int, default=1000, help="P, tokens")
    parser.add_argument("--group", type=int, default=8, help="G")
    parser.add_argument("--completion", type=int, help="C, tokens (default: the shape's)")
    parser.add_argument("--rounds", type=int, default=3, help="processes per arm")
    parser.add_argument("--steps", type=int, default=2, help="timed steps per process")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, help="write the raw figures here and enter no claim")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(one_process(options.arm, options)))
        return
    shapes = [options.shape] if options.shape else list(SHAPES)
    measured = {shape: compare(shape, options) for shape in shapes}
    standard = (options.prompt, options.group, options.completion) == (1000, 8, None)
    path = options.out or (OUT if standard else None)
    if path:
        write_json({"prompt": options.prompt, "group": options.group, "steps": options.steps, **measured}, path)
    if standard and not options.out:
        for shape in shapes:
            record(shape, measured[shape], options)


if __name__ == "__main__":
    main()
