"""Warm start: imitate, per training example, the pool's candidates that served the recommender best; or, with
`effect_temperature`, earn what single events do to the reward.

Scores are margins averaged over several slates, and with `pooled` over users too: the best of a dozen candidates on
one slate is mostly luck, and imitating luck teaches nothing. Label smoothing and an entropy bonus leave every action
some probability, since reinforcement learning afterwards can only reinforce what is sampled.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from recsys.errors import InputError
from recsys.seeding import rng
from recsys.storage import replacing
from verbalize.optimize.policy import SlotTokens, entropy, slot_logprobs
from verbalize.optimize.pooling import best_shares, reward_table
from verbalize.optimize.settings import WarmStartConfig

Pool = Mapping[str, Sequence[Sequence[int]]]
"""Candidate name -> one action list per example, as `candidate_actions` returns."""


def choose_best(pool: pl.DataFrame) -> pl.DataFrame:
    """The candidate of greatest reward per example, the first listed among equals: example_id, candidate, reward."""
    best = pl.col("reward") == pl.col("reward").max().over("example_id")
    return (
        pool.filter(best)
        .unique("example_id", keep="first", maintain_order=True)
        .select("example_id", "candidate", "reward")
    )


def hard_targets(pool: pl.DataFrame, actions: Pool) -> list[np.ndarray]:
    """Per example in the pool's order: (H, 4), all weight on the best candidate's actions."""
    rows = enumerate(choose_best(pool)["candidate"])
    return [_one_hot(actions[candidate][row]) for row, candidate in rows]


def soft_targets(pool: pl.DataFrame, actions: Pool, temperature: float) -> list[np.ndarray]:
    """Per example: (H, 4), the slot-wise mixture of all candidates weighted by softmax(reward / temperature).

    Temperature -> 0 is `hard_targets`; a large one imitates the pool's average. Events on which good and bad candidates
    agree get that action, events on which only good ones agree are decided by them: credit by weighing, not by luck.
    """
    names, rewards = reward_table(pool)
    scaled = (rewards - rewards.max(axis=1, keepdims=True)) / temperature
    weights = np.exp(scaled)
    return _mixtures(names, weights / weights.sum(axis=1, keepdims=True), actions)


def pooled_targets(pool: pl.DataFrame, users: Sequence[str], actions: Pool, seed: int = 0) -> list[np.ndarray]:
    """Per example: (H, 4), candidates weighted by how likely each is the best, judged over all users (`pooling`).

    `users`: the user of every example, in the pool's order.
    """
    names, rewards = reward_table(pool)
    return _mixtures(names, best_shares(rewards, np.array(users), seed=seed), actions)


def _mixtures(names: Sequence[str], weights: np.ndarray, actions: Pool) -> list[np.ndarray]:
    """(N, C) weights -> per example (H, 4)."""
    stacked = ([_one_hot(actions[name][row]) for name in names] for row in range(len(weights)))
    return [np.einsum("c,cha->ha", mine, np.stack(some)) for mine, some in zip(weights, stacked, strict=True)]


def slot_loss(logprobs: Tensor, target: Tensor, smoothing: float, bonus: float) -> Tensor:
    """Cross-entropy to the smoothed target minus `bonus` x entropy, mean over the H slots: (H, 4), (H, 4) -> ()."""
    smoothed = (1 - smoothing) * target + smoothing / target.shape[-1]
    return -(smoothed * logprobs).sum(-1).mean() - bonus * entropy(logprobs).mean()


def effect_targets(effects: pl.DataFrame, example_ids: Sequence[str], lengths: Sequence[int]) -> list[np.ndarray]:
    """Per example: (H, 4), what each action of each event does to the reward; of the newest H = lengths[i] events, as
    a prompt may have no room for all. `effects`: example_id, place, action, effect."""
    tables = {
        str(key): np.array(one.sort("place", "action")["effect"]).reshape(-1, 4)
        for (key,), one in effects.group_by("example_id")
    }
    known = [tables.get(key, np.zeros((0, 4))) for key in example_ids]
    return [table[len(table) - length :] for table, length in zip(known, lengths, strict=True)]


def effect_loss(logprobs: Tensor, effects: Tensor, temperature: float) -> Tensor:
    """Minus the expected effect and `temperature` x entropy, mean over the H slots: (H, 4), (H, 4) -> ().

    Linear in the effects, so that their luck averages out over events; softmax(mean effect / temperature) is best.
    """
    return -((logprobs.exp() * effects).sum(-1) + temperature * entropy(logprobs)).mean()


def warm_start(
    model: PeftModel,
    prompts: Sequence[Sequence[int]],
    targets: Sequence[np.ndarray],
    tokens: SlotTokens,
    config: WarmStartConfig,
    folder: Path,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> list[float]:
    """Train the adapter of `model` (see `trainable_policy`) in place; returns the mean loss of every step.

    Data order is seeded and nothing else is random, so a killed run called again ends in the same weights. Raises
    InputError when a loss is not finite or prompts and targets differ in slots.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
    order = [
        row for epoch in range(config.epochs) for row in rng(config.seed, "warm-start", epoch).permutation(len(prompts))
    ]
    batches = [order[start : start + config.batch_size] for start in range(0, len(order), config.batch_size)]
    state_file = folder / "state.pt"
    losses = _resume(model, optimizer, state_file)
    model.eval()  # no dropout: the policy that is supervised is the one that is sampled later
    for step in range(len(losses), len(batches)):
        optimizer.zero_grad()
        total = 0.0
        for row in batches[step]:
            logprobs = slot_logprobs(model, [prompts[row]], tokens)[0]
            target = torch.as_tensor(targets[row], dtype=torch.float32, device=logprobs.device)
            if target.shape != logprobs.shape:
                raise InputError(
                    f"a target of shape {tuple(target.shape)}",
                    f"its prompt has {len(logprobs)} slots",
                    "build prompts and actions from the same histories",
                )
            if config.effect_temperature is None:
                loss = slot_loss(logprobs, target, config.label_smoothing, config.entropy_bonus)
            else:
                loss = effect_loss(logprobs, target, config.effect_temperature)
            loss = loss / len(batches[step])
            loss.backward()
            total += loss.item()
        if not np.isfinite(total):
            raise InputError(
                f"warm start loss {total} at step {step}", "must be finite", "lower warm_start.learning_rate"
            )
        torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        losses.append(total)
        if on_step:
            on_step({"kind": "warm_start", "step": step + 1, "of": len(batches), "loss": total})
        if (step + 1) % config.save_every == 0 or step + 1 == len(batches):
            _save(model, optimizer, losses, state_file)
    return losses


def _save(model: PeftModel, optimizer: torch.optim.Optimizer, losses: list[float], path: Path) -> None:
    state = {"adapter": get_peft_model_state_dict(model), "optimizer": optimizer.state_dict(), "losses": losses}
    with replacing(path) as temporary:
        torch.save(state, temporary)


def _resume(model: PeftModel, optimizer: torch.optim.Optimizer, path: Path) -> list[float]:
    if not path.exists():
        return []
    state = torch.load(path, weights_only=True)
    set_peft_model_state_dict(model, state["adapter"])
    optimizer.load_state_dict(state["optimizer"])
    return list(state["losses"])


def _one_hot(actions: Sequence[int]) -> np.ndarray:
    return np.eye(4)[list(actions)]
