"""Between TRL and the reward: rollouts become texts, texts become rewards, and what happened is logged by component."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from recsys.errors import InputError
from recsys.storage import write_text
from verbalize.optimize.rewards import Scored, group_shares
from verbalize.optimize.scoring import ScoreFunction
from verbalize.processes import gather, leads

ToTexts = Callable[[Sequence[str], Sequence[Any], Sequence[Sequence[int]]], list[str]]
"""Example ids, completions and completion token ids of N rollouts -> N texts."""


def rollout_reward(
    to_texts: ToTexts, score: ScoreFunction, group_size: int, folder: Path | None = None
) -> Callable[..., list[float | None]]:
    """A TRL reward function. Logs every component, group shares and text lengths; writes each generation's table to
    `folder/step-00012.jsonl`, one line per rollout, where 12 counts the optimizer steps done before it. Of several
    processes each scores its own rollouts; log and table are of all."""

    def reward(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        example_id: Sequence[str],
        trainer_state: Any,
        log_metric: Callable[[str, float], None],
        **unused: Any,
    ) -> list[float | None]:
        texts = to_texts(example_id, completions, completion_ids)
        scored = score(example_id, texts)
        for key, result in zip(example_id, scored, strict=True):
            if not math.isfinite(result.reward):  # TRL would quietly turn it into an advantage of 0
                raise InputError(
                    f"reward {result.reward} of example {key}", "must be finite", "check the recommender's scores"
                )
        rows = gather(list(zip(example_id, texts, scored, strict=True)))
        for name, value in summarise([row[2] for row in rows], [row[1] for row in rows], group_size).items():
            log_metric(name, value)
        if folder is not None and leads():
            lines = [
                json.dumps(
                    {"example_id": key, "text": text, "reward": result.reward, **result.components}, ensure_ascii=False
                )
                for key, text, result in rows
            ]
            write_text("\n".join(lines) + "\n", folder / f"step-{trainer_state.global_step:05d}.jsonl")
        return [result.reward for result in scored]

    return reward


def summarise(scored: Sequence[Scored], texts: Sequence[str], group_size: int) -> dict[str, float]:
    """Means over rollouts: `component.*`, `groups.*` (see `group_shares`) and `text.characters`, `text.empty`."""
    rewards = [result.reward for result in scored]
    hits = [result.components.get("hit", 0.0) for result in scored]
    names = scored[0].components
    return {
        **{f"component.{name}": fmean(result.components[name] for result in scored) for name in names},
        **{f"groups.{name}": value for name, value in group_shares(rewards, hits, texts, group_size).items()},
        "text.characters": fmean(map(len, texts)),
        "text.empty": fmean(text == "" for text in texts),
    }
