"""Credit for single slots: what an action did is seen by changing it and nothing else.

GRPO pays all actions of a rollout alike, so each of them learns from the luck of the others. Where another text costs
little, as before a sentence encoder, every slot of a rollout is changed to each other action and rewarded again. The
advantage of the action taken is its reward less what the policy would expect there, the other actions held:

    A_h = R(y) - sum over a of pi_h(a) R(y with a in slot h)

(the counterfactual baseline of COMA, Foerster et al., arXiv 1705.08926). Slots are independent given the prompt and the
baseline does not depend on y_h, so the gradient has the expectation of GRPO's without its spread. Drops with and
without metadata are one text, so a rollout of H events costs about 2 H + 1 texts instead of one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.errors import InputError
from verbalize.optimize.scoring import ScoreFunction
from verbalize.verbalizers.actions import ALPHABET

Changed = Callable[[Sequence[str], Sequence[Sequence[int]]], list[np.ndarray]]
"""N example ids and N action lists of H_n -> N tables (H_n, 4): the reward of each rollout with slot h set to a."""


def changed_rewards(
    execute: Callable[[Sequence[str], Sequence[Sequence[int]]], list[str]], score: ScoreFunction
) -> Changed:
    """`Changed` from what turns example ids and actions into texts, and what rewards these. Raises InputError where a
    reward is not finite."""

    def changed(example_ids: Sequence[str], actions: Sequence[Sequence[int]]) -> list[np.ndarray]:
        ids, variants = [], []
        for key, taken in zip(example_ids, actions, strict=True):
            for slot in range(len(taken)):
                ids += [key] * len(ALPHABET)
                variants += [[*taken[:slot], action, *taken[slot + 1 :]] for action in ALPHABET]
        rewards = np.array([scored.reward for scored in score(ids, execute(ids, variants))])
        if not np.isfinite(rewards).all():
            wrong = int(np.flatnonzero(~np.isfinite(rewards))[0])
            raise InputError(
                f"reward {rewards[wrong]} of example {ids[wrong]}", "must be finite", "check the recommender's scores"
            )
        ends = np.cumsum([len(taken) for taken in actions])[:-1]
        return np.split(rewards.reshape(-1, len(ALPHABET)), ends)

    return changed


def slot_advantages(rewards: np.ndarray, probabilities: np.ndarray, actions: Sequence[int]) -> np.ndarray:
    """Rewards (H, 4) by slot and action, the policy's probabilities (H, 4), H actions taken -> (H,) advantages.

    >>> rewards = np.array([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])  # keeping the first event is worth 1
    >>> slot_advantages(rewards, np.full((2, 4), 0.25), [2, 0]).tolist()
    [0.5, 0.0]
    """
    return rewards[np.arange(len(rewards)), list(actions)] - (probabilities * rewards).sum(axis=1)


class SlotCredit:
    """Mixin before a GRPO trainer of slot actions: with `changed`, every slot is paid for itself.

    The trainer leaves the distributions it sampled from in `sampled`, a tensor (H, 4) of log-probabilities for each
    rollout. `scale_rewards` batch divides by the root mean square over all slots of the step.
    """

    accelerator: Any
    args: Any
    tokens: Any

    def __init__(self, *args: Any, changed: Changed | None = None, **kwargs: Any) -> None:
        self.changed = changed
        self.sampled: list[Tensor] = []
        self._slot_advantages: list[np.ndarray] = []
        super().__init__(*args, **kwargs)

    def _calculate_rewards(self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, ids: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, ids)  # type: ignore[misc]
        if self.changed is not None:
            actions = [[self.tokens.symbol_of(token) for token in row] for row in ids]
            tables = self.changed([row["example_id"] for row in inputs], actions)
            self._slot_advantages = [
                slot_advantages(table, logprobs.exp().double().cpu().numpy(), taken)
                for table, logprobs, taken in zip(tables, self.sampled, actions, strict=True)
            ]
            matters = float(np.mean([np.ptp(slot) > 1e-6 for table in tables for slot in table]))
            self._log_metric("slots.that_matter", matters)  # type: ignore[attr-defined]
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        outputs: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        if self.changed is None:
            return outputs
        own: Tensor = outputs["advantages"]
        paid = torch.zeros(outputs["completion_ids"].shape, dtype=own.dtype)
        for row, values in enumerate(self._slot_advantages):
            paid[row, : len(values)] = torch.as_tensor(values, dtype=own.dtype)
        paid = paid.to(own.device)
        if self.args.scale_rewards == "batch":
            slots = sum(map(len, self._slot_advantages))
            sums = torch.tensor([[float(paid.square().sum()), float(slots)]], device=own.device)
            squares, count = self.accelerator.gather(sums).sum(dim=0).tolist()
            paid = paid / ((squares / count) ** 0.5 + 1e-4)
        outputs["advantages"] = paid
        return outputs
