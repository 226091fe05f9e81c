"""One process of `grpo_step.py`: warms one arm up, times its steps part by part, and prints them as JSON.

Every completion must have exactly C tokens (the end token is one that is never sampled), the trainer must be on the
device asked for, and `shared` must not have fallen back to stock: or the run fails. On a GPU the clock is read only
when its queue is empty.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ARMS = ("stock", "shared")
DEVICES = ("cpu", "cuda")
DTYPES = ("float32", "bfloat16")


def one_process(options: argparse.Namespace) -> dict[str, Any]:
    """Warm up, then time `steps` steps of one arm; seconds of the parts of each, and the peak memory in GiB."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback

    from recsys.models.loading import load_language_model
    from recsys.models.settings import LoraSettings
    from recsys.seeding import rng
    from verbalize.optimize.rewrite_trainer import RewriteGRPOTrainer
    from verbalize.optimize.settings import TrainConfig
    from verbalize.optimize.training import trainable_policy
    from verbalize.optimize.trl_settings import grpo_config

    if options.threads:
        torch.set_num_threads(options.threads)
    lm = load_language_model(options.model, options.dtype, device=options.device)
    model = trainable_policy(lm, LoraSettings(rank=16, alpha=32, mlp=True), 0)
    vocabulary = len(lm.tokenizer)
    steps = options.steps + 1
    shape = (steps, options.prompt)
    prompts = rng("grpo step", options.seed).integers(vocabulary // 4, vocabulary // 2, shape).tolist()

    def now() -> float:
        if options.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

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
        begun = now()
        try:
            return work()
        finally:
            parts[-1][name] = parts[-1].get(name, 0.0) + now() - begun

    class Split(TrainerCallback):
        """A new record per optimizer step; `whole` is all of it."""

        def on_step_begin(self, *args: Any, **fields: Any) -> None:
            if options.device == "cuda" and len(parts) == 1:  # the warm-up also checks itself against stock
                torch.cuda.reset_peak_memory_stats()
            parts.append({"begun": now()})

        def on_step_end(self, *args: Any, **fields: Any) -> None:
            parts[-1]["whole"] = now() - parts[-1].pop("begun")

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        if any(len(ids) != options.completion for ids in completion_ids):
            raise RuntimeError("completions of unequal length: the end token was sampled")
        return [float(sum(ids) % 97) for ids in completion_ids]

    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            steps=steps, prompts_per_step=1, group_size=options.group, learning_rate=1e-5, save_every=999
        )
        args = grpo_config(config, Path(folder), options.completion, options.device)
        if options.arm == "stock":
            args.per_device_train_batch_size = options.stock_rows
            args.gradient_accumulation_steps = args.steps_per_generation = options.group // options.stock_rows
        trainer = Trainer(
            model=model,
            reward_funcs=reward,
            args=args,
            train_dataset=Dataset.from_list([{"prompt": str(number)} for number in range(steps)]),
            processing_class=lm.tokenizer,
            callbacks=[Split()],
            shared_prefix=options.arm == "shared",
        )
        if trainer.accelerator.device.type != options.device:
            raise RuntimeError(f"asked for {options.device}, and the trainer is on {trainer.accelerator.device}")
        trainer.eos_token_ids = [vocabulary - 1]
        trainer.generation_config.eos_token_id = vocabulary - 1
        torch.manual_seed(options.seed)
        trainer.train()
        if trainer.shares_prefix != (options.arm == "shared"):
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
    peak = (
        torch.cuda.max_memory_allocated() / 2**30
        if options.device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )
    return {"steps": timed, "peak_gib": peak}


def main() -> None:
    """What `grpo_step.py` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", choices=ARMS, required=True)
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    for name in ("prompt", "group", "completion", "steps", "stock-rows"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2-135m")
    print(json.dumps(one_process(parser.parse_args())))


if __name__ == "__main__":
    main()
