"""TRL's settings from ours: what GRPO and DPO share, and what each of them adds."""

from pathlib import Path
from typing import Any

import torch
from trl import DPOConfig, GRPOConfig

from verbalize.optimize.settings import TrainConfig


def common_settings(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """Steps, optimizer and checkpoints as the run asks for; nothing but the run's own curves is written or reported."""
    return {
        "output_dir": str(folder),
        "max_steps": config.steps,
        "seed": config.seed,
        "data_seed": config.seed,
        "gradient_accumulation_steps": config.prompts_per_step // config.prompts_per_forward,
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
        "use_cpu": not torch.cuda.is_available(),
    }


def grpo_config(config: TrainConfig, folder: Path, completion_length: int) -> GRPOConfig:
    """A generation per optimizer step (or per `iterations` of them), whole groups per micro-batch."""
    return GRPOConfig(
        **common_settings(config, folder),
        per_device_train_batch_size=config.group_size * config.prompts_per_forward,
        steps_per_generation=config.prompts_per_step // config.prompts_per_forward,
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


def dpo_config(config: TrainConfig, beta: float, folder: Path) -> DPOConfig:
    """Pairs in their given order, `prompts_per_step` of them per optimizer step."""
    return DPOConfig(
        **common_settings(config, folder),
        per_device_train_batch_size=config.prompts_per_forward,
        train_sampling_strategy="sequential",
        beta=beta,
        max_length=None,
    )
