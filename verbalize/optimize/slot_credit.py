"""Credit for single slots: what an action is worth is seen by changing it and nothing else.

GRPO pays all actions of a rollout alike, so each of them learns from the luck of the others. Where another text costs
little, as before a sentence encoder, every slot of a rollout y is changed to each action and the text rewarded again:

    A_h(a) = R(y with a in slot h) - sum over b of pi_h(b) R(y with b in slot h)

(the counterfactual baseline of COMA, Foerster et al., arXiv 1705.08926). All four actions of a slot then count, each
weighed by its probability, not only the one that was drawn (an expected policy gradient, Ciosek and Whiteson, arXiv
1706.05374): an action that is hardly ever drawn is still judged at every step. Slots are independent given the prompt,
so the gradient has the expectation of GRPO's and less spread. Drops with and without metadata are one text: a rollout
of H events costs about 2 H + 1 texts instead of one.

To the trainer the four actions of each slot are four tokens of a completion, with advantages pi_h(a) A_h(a): ratio
times advantage is then (pi_new / pi) pi A = pi_new A, and clipping, averages and entropy stay TRL's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.errors import InputError
from verbalize.optimize.scoring import ScoreFunction
from verbalize.verbalizers.actions import ALPHABET

AVERAGED = ("grpo", "bnpo")
"""Losses that average over the tokens they are given, of which a slot has four here; the others count slots."""

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


def slot_advantages(rewards: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Rewards (H, 4) by slot and action, the policy's probabilities (H, 4) -> (H, 4) advantages.

    >>> rewards = np.array([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])  # keeping the first event is worth 1
    >>> slot_advantages(rewards, np.full((2, 4), 0.25)).tolist()
    [[-0.5, -0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]
    """
    return rewards - (probabilities * rewards).sum(axis=1, keepdims=True)


class SlotCredit:
    """Mixin before a GRPO trainer of slot actions: with `changed`, every action of every slot is paid for itself.

    The trainer leaves the distributions it sampled from in `sampled`, a tensor (H, 4) of log-probabilities for each
    rollout. `scale_rewards` batch divides by the root mean square over the step's slots of what a drawn action is paid.
    """

    accelerator: Any
    args: Any
    tokens: Any

    def __init__(self, *args: Any, changed: Changed | None = None, **kwargs: Any) -> None:
        self.changed = changed
        self.sampled: list[Tensor] = []
        self._tables: list[np.ndarray] = []
        super().__init__(*args, **kwargs)

    def _calculate_rewards(self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, ids: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, ids)  # type: ignore[misc]
        if self.changed is not None:
            actions = [[self.tokens.symbol_of(token) for token in row] for row in ids]
            self._tables = self.changed([row["example_id"] for row in inputs], actions)
            matters = float(np.mean([np.ptp(slot) > 1e-6 for table in self._tables for slot in table]))
            self._log_metric("slots.that_matter", matters)  # type: ignore[attr-defined]
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        outputs: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        return outputs if self.changed is None else self._every_action(outputs)

    def _every_action(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Completions (B, C) of the actions drawn -> (B, 4 C) of all actions of every slot, and what each is paid."""
        own, mask = outputs["advantages"], outputs["completion_mask"].repeat_interleave(len(ALPHABET), dim=1)
        logprobs = torch.zeros(*outputs["completion_ids"].shape, len(ALPHABET), dtype=torch.float64)
        advantages = torch.zeros_like(logprobs)
        for row, (table, chances) in enumerate(zip(self._tables, self.sampled, strict=True)):
            logprobs[row, : len(table)] = chances.double().cpu()
            probabilities = logprobs[row, : len(table)].exp().numpy()
            advantages[row, : len(table)] = torch.as_tensor(slot_advantages(table, probabilities))
        paid = logprobs.exp() * advantages
        if self.args.scale_rewards == "batch":
            drawn = float((paid * advantages).sum())  # sum over slots of E[A ^ 2]
            sums = torch.tensor([[drawn, float(sum(map(len, self._tables)))]], device=own.device)
            squares, slots = self.accelerator.gather(sums).sum(dim=0).tolist()
            paid = paid / ((squares / slots) ** 0.5 + 1e-4)
        if self.args.loss_type in AVERAGED:
            paid = paid * len(ALPHABET)
        width = mask.shape[1]
        symbols = torch.tensor(self.tokens.alphabet, device=mask.device).repeat(width // len(ALPHABET))
        outputs["completion_ids"] = symbols.expand(len(mask), -1) * mask
        outputs["completion_mask"] = mask
        outputs["advantages"] = paid.flatten(1).to(own)
        if "old_per_token_logps" in outputs:
            outputs["old_per_token_logps"] = logprobs.flatten(1).to(own)
        return outputs
