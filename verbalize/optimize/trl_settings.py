"""TRL's settings from ours: what GRPO and DPO share, and what each of them adds."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from trl import DPOConfig, GRPOConfig

from recsys.errors import InputError
from verbalize.optimize.settings import TrainConfig
from verbalize.processes import part_of


def common_settings(config: TrainConfig, folder: Path, device: torch.device | str) -> dict[str, Any]:
    """Steps, optimizer and checkpoints as the run asks for; nothing but the run's own curves is written or reported.

    Without `use_cpu` TRL would move a model from the CPU to whatever GPU there is.
    """
    return {
        "output_dir": str(folder),
        "max_steps": config.steps,
        "seed": config.seed,
        "data_seed": config.seed,
        "gradient_accumulation_steps": micro_batches(config),
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": config.warmup_steps,
        "max_grad_norm": config.max_grad_norm,
        "save_strategy": "steps",
        "save_steps": config.save_every,
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": torch.device(device).type == "cpu",
    }


def micro_batches(config: TrainConfig) -> int:
    """Forward passes of one process in an optimizer step; all processes together see `prompts_per_step` prompts.

    Raises InputError when the processes of a run cannot share its prompts evenly.
    """
    forwards = config.prompts_per_step // config.prompts_per_forward
    return part_of(forwards, "train.prompts_per_step / train.prompts_per_forward")


def vllm_fields(config: TrainConfig) -> dict[str, Any]:
    """TRL's fields of `train.vllm`. Raises InputError where vLLM is asked for and not installed."""
    if config.vllm is None:
        return {}
    if importlib.util.find_spec("vllm") is None:  # the client of a server needs the package too
        raise InputError(
            f"train.vllm = {config.vllm}",
            "samples by vLLM, which is not installed here",
            "pip install -e '.[gpu]' on a machine with a GPU, or set train.vllm=null and train.vllm_server=null",
        )
    server = {} if config.vllm_server is None else {"vllm_server_base_url": config.vllm_server}
    return {"use_vllm": True, "vllm_mode": config.vllm, **server}


def grpo_config(
    config: TrainConfig, folder: Path, completion_length: int, device: torch.device | str = "cpu"
) -> GRPOConfig:
    """A generation per optimizer step (or per `iterations` of them), whole groups per micro-batch."""
    return GRPOConfig(
        **common_settings(config, folder, device),
        **vllm_fields(config),
        per_device_train_batch_size=config.group_size * config.prompts_per_forward,
        steps_per_generation=micro_batches(config),
        num_generations=config.group_size,
        num_iterations=config.iterations,
        shuffle_dataset=False,
        max_completion_length=completion_length,
        temperature=config.temperature,
        beta=config.beta,
        epsilon=config.epsilon,
        loss_type=config.loss_type,
        scale_rewards=config.scale_rewards,
        entropy_coef=config.entropy_bonus,
    )


def dpo_config(config: TrainConfig, beta: float, folder: Path, device: torch.device | str = "cpu") -> DPOConfig:
    """Pairs in their given order, `prompts_per_step` of them per optimizer step."""
    return DPOConfig(
        **common_settings(config, folder, device),
        per_device_train_batch_size=config.prompts_per_forward,
        train_sampling_strategy="sequential",
        beta=beta,
        max_length=None,
    )
