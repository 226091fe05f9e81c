"""Training the recommender: cross-entropy over the slate, the strong simple baseline of the paper's second stage, or
the paper's GRPO (`recommender_grpo`).

The score is the one used at test time, log p(c | frame(text)) - log p(c | frame("")), both terms with gradient (the
second is not a constant: its adapter is the same). The softmax runs over scale x score. One example is two packed
forwards: as one batch, the short frame would be padded to the length of the long one. An untrained small recommender
barely reads a history; a verbalizer trained against it learns its noise. This stage is what gives the reward something
to measure.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from recsys.errors import InputError
from recsys.models.packed import packed_logprobs
from recsys.models.packing import PackedRequest
from recsys.storage import replacing
from verbalize.optimize.recommender_grpo import answer_loss, expected_loss, sample_answers
from verbalize.optimize.recommender_settings import RecommenderTrainingConfig

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class TokenSlate:
    """One training decision in token ids: frame(text), frame(""), the S candidates, and which of them was chosen."""

    prefix: Sequence[int]
    unconditional: Sequence[int]
    candidates: Sequence[Sequence[int]]
    target_index: int


class Slate(Protocol):
    """One training decision, a dataclass: a text, candidates, and which of them was chosen."""

    @property
    def target_index(self) -> int: ...


SlateT = TypeVar("SlateT", bound=Slate)


def slate_scores(model: Any, slate: TokenSlate) -> torch.Tensor:
    """Likelihood-ratio scores of one slate, (S,), differentiable."""
    frames = (slate.prefix, slate.unconditional)
    (given,), (alone,) = (packed_logprobs(model, [PackedRequest(frame, slate.candidates)]) for frame in frames)
    return torch.stack([a.sum() - b.sum() for a, b in zip(given, alone, strict=True)])


def slate_loss(scores: torch.Tensor, target_index: int, scale: float) -> torch.Tensor:
    """-log softmax(scale * scores)[target]: ln S for scores that say nothing."""
    return -torch.log_softmax(scale * scores, dim=0)[target_index]


def objective(scores: torch.Tensor, target_index: int, config: RecommenderTrainingConfig, index: int) -> torch.Tensor:
    """The configured loss of the `index`-th slate; sampled answers depend on the seed and on `index` alone."""
    if config.method == "cross_entropy":
        return slate_loss(scores, target_index, config.score_scale)
    if config.answers is None:
        return expected_loss(scores, target_index, config.score_scale, config.scale_advantages)
    answers = sample_answers(scores, config.score_scale, config.answers, (config.seed, "recommender answers", index))
    return answer_loss(scores, target_index, answers, config.score_scale, config.scale_advantages)


def train_recommender(
    model: Any,
    slates: Callable[[int], SlateT],
    config: RecommenderTrainingConfig,
    folder: Path,
    on_step: Callable[[dict[str, float]], None] = lambda row: None,
    scores_of: Callable[[Any, SlateT], torch.Tensor] = slate_scores,  # type: ignore[assignment]
) -> list[dict[str, float]]:
    """Train the adapter of `model` in place on `slates(0), slates(1), ...`; returns one row per optimizer step.

    `scores_of(model, slate)` are the differentiable scores (S,) of a slate's candidates. `slates(i)` must depend on `i`
    alone. Resumes from `folder` when a checkpoint is there: equal to the uninterrupted run, as nothing else is random.
    Raises InputError, with the slate saved, when the loss is not finite.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=0.0)
    curve, done = _restore(folder / CHECKPOINT, weights, optimizer)
    losses: list[float] = []
    hits: list[float] = []
    for index in range(done, config.examples):
        slate = slates(index)
        scores = scores_of(model, slate)
        loss = objective(scores, slate.target_index, config, index)
        if not torch.isfinite(loss):
            path = folder / f"aborted-example-{index}.pt"
            with replacing(path) as temporary:
                torch.save(asdict(slate), temporary)  # type: ignore[call-overload]
            raise InputError(
                f"recommender training: loss {loss.item()} at example {index}",
                f"training cannot continue with numbers that are not finite; the slate is in {path}",
                "lower recommender_training.learning_rate or score_scale",
            )
        (loss / config.accumulation).backward()
        losses.append(loss.item())
        others = torch.cat([scores[: slate.target_index], scores[slate.target_index + 1 :]])
        hits.append(float(scores[slate.target_index] > others.max()))
        if (index + 1) % config.accumulation:
            continue
        norm = torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        curve.append(
            {
                "examples": index + 1,
                "loss": sum(losses) / len(losses),
                "hit": sum(hits) / len(hits),
                "grad_norm": float(norm),
            }
        )
        losses, hits = [], []
        on_step(curve[-1])
        if (index + 1) % config.save_every == 0:
            _save(folder / CHECKPOINT, weights, optimizer, curve)
    _save(folder / CHECKPOINT, weights, optimizer, curve)
    return curve


def _save(
    path: Path, weights: Sequence[torch.Tensor], optimizer: torch.optim.Optimizer, curve: list[dict[str, float]]
) -> None:
    with replacing(path) as temporary:
        torch.save(
            {"weights": [weight.detach() for weight in weights], "optimizer": optimizer.state_dict(), "curve": curve},
            temporary,
        )


def _restore(
    path: Path, weights: Sequence[torch.Tensor], optimizer: torch.optim.Optimizer
) -> tuple[list[dict[str, float]], int]:
    """Curve so far and examples done; weights and optimizer are set from the checkpoint when there is one."""
    if not path.exists():
        return [], 0
    saved = torch.load(path, weights_only=True)
    with torch.no_grad():
        for weight, value in zip(weights, saved["weights"], strict=True):
            weight.copy_(value)
    optimizer.load_state_dict(saved["optimizer"])
    return saved["curve"], int(saved["curve"][-1]["examples"])
