"""Supervised fine-tuning of an agent on expert trajectories; the checkpoint kept is the one that wins most games.

A small loop instead of TRL's SFTTrainer, for three reasons: contents are encoded as data (`sft_data`), where the
trainer's own tokenisation would honour control tokens spelled in a game's text; the memory shown with a trajectory may
change from epoch to epoch (memory dropout); and checkpoints are judged by games played between epochs, because success
on unseen games keeps rising after validation loss has turned up (arXiv 2603.18272).

Only supervised positions are projected to the vocabulary: they are a tenth of a trajectory. Order and dropout derive
from seed, epoch and step, so a killed run called again ends in the same weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from recsys.errors import InputError
from recsys.models.lengths import fed_length, positions_of, projected, weight_of
from recsys.models.packed import body_and_head
from recsys.seeding import rng, stable_hash
from recsys.storage import replacing
from verbalize.agents.sft_data import SupervisedChat, forward_batches
from verbalize.agents.sft_settings import SftConfig

CHECKPOINT = "checkpoint.pt"
OnStep = Callable[[int, int, float], None]
"""Steps done, steps in all, loss."""


@dataclass
class _State:
    """What a checkpoint holds beside weights and optimizer."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    validations: dict[int, float] = field(default_factory=dict)
    """Epochs done -> share of games won then."""
    best: list[torch.Tensor] | None = None


def supervised_loss(model: Any, chats: Sequence[SupervisedChat]) -> torch.Tensor:
    """Sum of -log p over the supervised tokens of the chats, each given all before it; differentiable.

    Chats are padded to the right: causal attention lets no token see the padding, so no mask is needed.
    """
    body, head = body_and_head(model)
    weight = weight_of(body)
    device = weight.device
    n = fed_length(max(len(chat.ids) for chat in chats), weight, positions_of(body))
    ids = torch.tensor([[*chat.ids, *[chat.ids[-1]] * (n - len(chat.ids))] for chat in chats], device=device)
    places = [
        (row, place)
        for row, chat in enumerate(chats)
        for place, supervised in enumerate(chat.supervised)
        if supervised and place
    ]
    rows, columns = (torch.tensor(side, device=device) for side in zip(*places, strict=True))
    hidden = body(input_ids=ids, use_cache=False).last_hidden_state  # (B, n, D)
    logits = projected(head, hidden[rows, columns - 1]).float()  # (targets, V)
    return torch.nn.functional.cross_entropy(logits, ids[rows, columns], reduction="sum")


def train_sft(
    model: Any,
    chats: Callable[[int], Sequence[SupervisedChat]],
    config: SftConfig,
    seed: int,
    folder: Path,
    validate: Callable[[int], float],
    on_step: OnStep = lambda done, total, loss: None,
) -> dict[str, Any]:
    """Train the adapter of `model` in place on `chats(epoch)`, which holds the same trajectories in every epoch.

    `validate(epochs done)` plays games with the model and returns the share won; the weights of the best epoch are left
    in the model, the later one among equals. Returns {"losses": per step, "validations": {epochs: share}, "chosen"}.
    Resumes from `folder`. Raises InputError when a loss is not finite.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=0.0)
    path = folder / CHECKPOINT
    state = _restore(path, weights, optimizer)
    n = len(chats(0))
    per_epoch = -(-n // config.batch_size)
    total = per_epoch * config.epochs
    while True:
        epochs, within = divmod(state.step, per_epoch)
        due = within == 0 and epochs and (epochs % config.validate_every == 0 or epochs == config.epochs)
        if due and epochs not in state.validations:
            model.eval()
            state.validations[epochs] = validate(epochs)
            if state.validations[epochs] >= max(state.validations.values()):
                state.best = [weight.detach().clone() for weight in weights]
            _save(path, weights, optimizer, state)
        if state.step == total:
            break
        data = chats(epochs)
        order = rng(seed, "sft order", epochs).permutation(n)
        for number in range(within, per_epoch):
            batch = [data[row] for row in order[number * config.batch_size : (number + 1) * config.batch_size]]
            state.losses.append(_step(model, optimizer, weights, batch, config, seed, state.step))
            state.step += 1
            on_step(state.step, total, state.losses[-1])
            if state.step % config.save_every == 0:
                _save(path, weights, optimizer, state)
    model.eval()
    assert state.best is not None  # the last epoch is always judged
    _set(weights, state.best)
    top = max(state.validations.values())
    chosen = max(epoch for epoch, success in state.validations.items() if success == top)
    return {"losses": state.losses, "validations": dict(state.validations), "chosen": chosen}


def _step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    weights: Sequence[torch.Tensor],
    batch: Sequence[SupervisedChat],
    config: SftConfig,
    seed: int,
    step: int,
) -> float:
    """One optimizer step on the mean loss of the batch's supervised tokens; that mean."""
    model.train()
    targets = sum(chat.targets for chat in batch)
    total = 0.0
    with torch.random.fork_rng():
        torch.manual_seed(stable_hash(seed, "sft dropout", step) % 2**63)
        for places in forward_batches([len(chat.ids) for chat in batch], config.forward_tokens):
            loss = supervised_loss(model, [batch[place] for place in places]) / targets
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
    norm = torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
    if not torch.isfinite(norm) or total != total:
        raise InputError(
            f"loss {total:.3g}, gradient norm {norm.item():.3g} at step {step}",
            "fine-tuning cannot continue with numbers that are not finite",
            "lower sft.learning_rate; the same command goes on from the last checkpoint",
        )
    optimizer.step()
    optimizer.zero_grad()
    return total


def _save(path: Path, weights: Sequence[torch.Tensor], optimizer: torch.optim.Optimizer, state: _State) -> None:
    with replacing(path) as temporary:
        torch.save(
            {
                "weights": [weight.detach() for weight in weights],
                "optimizer": optimizer.state_dict(),
                "step": state.step,
                "losses": state.losses,
                "validations": state.validations,
                "best": state.best,
            },
            temporary,
        )


def _restore(path: Path, weights: Sequence[torch.Tensor], optimizer: torch.optim.Optimizer) -> _State:
    if not path.exists():
        return _State()
    saved = torch.load(path, weights_only=True)
    _set(weights, saved["weights"])
    optimizer.load_state_dict(saved["optimizer"])
    return _State(saved["step"], list(saved["losses"]), dict(saved["validations"]), saved["best"])


def _set(weights: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(value)
