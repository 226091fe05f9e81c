"""DPO on the slot policy: pairs of scripted action sequences from the scored pool, off-line.

No rollout is drawn and no text is ranked while training: the pool has both. One forward over a prompt yields the exact
log-probability of every action sequence, so all pairs of a prompt, winners and losers, share it; stock DPO runs a
forward per sequence. Slots on which winner and loser agree cancel: credit falls where they differ. The reference is the
policy the run starts with, computed once.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import polars as pl
import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from recsys.errors import InputError
from recsys.seeding import stable_hash
from recsys.storage import replacing
from verbalize.optimize.limits import broken_limit
from verbalize.optimize.policy import SlotTokens, action_logprobs, entropy, kl_divergence, slot_logprobs
from verbalize.optimize.preferences import dpo_loss, log_ratio_gap, no_pairs, pairs
from verbalize.optimize.settings import PreferenceConfig
from verbalize.optimize.train_actions import action_judge, action_policy
from verbalize.optimize.training import Job, Judge, Run, TrainResult, prompt_order
from verbalize.optimize.warm_start import Pool
from verbalize.verbalizers.action_pool import candidate_actions
from verbalize.verbalizers.actions import ActionConfig


@dataclass(frozen=True)
class PromptPairs:
    """One prompt and its N pairs: token ids, and actions (N, H) of winners and losers."""

    prompt: Sequence[int]
    winners: Sequence[Sequence[int]]
    losers: Sequence[Sequence[int]]


def pool_pairs(
    pool: pl.DataFrame, actions: Pool, prompts: Sequence[Sequence[int]], config: PreferenceConfig
) -> list[PromptPairs]:
    """Pairs of every prompt that has any. `pool`: example_id, candidate, reward, examples in the order of `prompts`.

    Raises InputError when pool and prompts are of different examples, or no prompt has a pair.
    """
    groups = [group for _, group in pool.group_by("example_id", maintain_order=True)]
    if len(groups) != len(prompts):
        raise InputError(
            f"a pool of {len(groups)} examples", f"there are {len(prompts)} prompts", "score the same examples"
        )
    found = []
    for row, (group, prompt) in enumerate(zip(groups, prompts, strict=True)):
        names = group["candidate"].to_list()
        chosen = pairs(group["reward"].to_list(), config.min_gap, config.pairs_per_prompt)
        if chosen:
            winners = [actions[names[winner]][row] for winner, _, _ in chosen]
            losers = [actions[names[loser]][row] for _, loser, _ in chosen]
            found.append(PromptPairs(prompt, winners, losers))
    if not found:
        raise no_pairs(config.min_gap, len(prompts))
    return found


def pair_gaps(logprobs: Tensor, reference: Tensor, example: PromptPairs) -> Tensor:
    """Slot log-probabilities of policy and reference, both (H, 4) -> log-ratio gaps of the prompt's pairs, (N,)."""
    winners, losers = torch.tensor(example.winners), torch.tensor(example.losers)
    if winners.shape[1] != len(logprobs):
        raise InputError(
            f"actions of {winners.shape[1]} events",
            f"their prompt has {len(logprobs)} slots",
            "build prompts and actions from the same histories",
        )
    sums = [action_logprobs(rows, actions).sum(1) for rows in (logprobs, reference) for actions in (winners, losers)]
    return log_ratio_gap(*sums)


def train_action_preferences(
    job: Job, pool: pl.DataFrame, pool_seed: int, dpo: PreferenceConfig, actions: ActionConfig | None = None
) -> TrainResult:
    """DPO on the slot policy.

    `pool`: example_id, candidate, reward of the job's inputs, in their order; `pool_seed` is the seed its random
    candidates were drawn with. A step takes `config.prompts_per_step` prompts with all their pairs. Of the job's limits
    only `max_kl` applies: nothing is sampled. Otherwise as `train_actions`, resumption included.
    """
    dpo.check(job.config)
    job = replace(job, limits=job.limits.without_rollouts())
    actions = actions or ActionConfig()
    policy = action_policy(job, actions)
    fitted, prompts = policy.fit(job.inputs)
    if fitted["example_id"].to_list() != pool["example_id"].unique(maintain_order=True).to_list():
        raise InputError("the pool", "holds other examples than the inputs, or another order", "score these inputs")
    examples = pool_pairs(pool, candidate_actions(fitted, actions, pool_seed), prompts, dpo)
    run = PreferenceRun(job, policy.lm.model, {"dpo": asdict(dpo), "pairs": stable_hash(examples)})
    if (result := run.finished()) is not None:
        return result
    judge = action_judge(policy, job.validation.inputs) if job.validation else None
    return run.descend(examples, policy.tokens, dpo.beta, judge)


class PreferenceRun(Run):
    """A `Run` whose steps descend the DPO loss on fixed pairs; nothing in it is random but the seeded order."""

    def descend(
        self, examples: Sequence[PromptPairs], tokens: SlotTokens, beta: float, judge: Judge | None
    ) -> TrainResult:
        """Train to the last step or until `max_kl` is broken; the model must be as the run found it first."""
        config = self.config
        self.model.eval()  # no dropout: policy and reference are compared as they are used
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=0.0)
        with torch.no_grad():  # before a checkpoint replaces the starting policy
            references = self._logprobs(examples, tokens)
        evaluate = self._evaluator(judge)
        step = self._restore(optimizer)
        self.curves.rewind(step)
        if step < 0:
            step = 0
            if evaluate:
                evaluate(0)
        order = prompt_order(len(examples), config.steps * config.prompts_per_step, config.seed)
        while (reason := broken_limit(self.curves.records, self.job.limits)) is None and step < config.steps:
            batch = order[step * config.prompts_per_step : (step + 1) * config.prompts_per_step]
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(1.0, (step + 1) / (config.warmup_steps + 1))
            record = self._step(
                [examples[row] for row in batch], [references[row] for row in batch], tokens, beta, weights, optimizer
            )
            step += 1
            self.curves.add({"kind": "train", "step": step, "of": config.steps, **record})
            if evaluate and (step % config.eval_every == 0 or step == config.steps):
                evaluate(step)
            if step % config.save_every == 0 or step == config.steps:
                self._save(optimizer, step)
        return self._finish(step, reason)

    def _step(
        self,
        examples: Sequence[PromptPairs],
        references: Sequence[Tensor],
        tokens: SlotTokens,
        beta: float,
        weights: Sequence[torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> dict[str, Any]:
        """One update on a few prompts, the mean over pairs within a prompt and then over prompts; what to log of it."""
        begun = time.perf_counter()
        optimizer.zero_grad()
        losses, gaps, entropies, divergences = [], [], [], []
        width = self.config.prompts_per_forward
        for start in range(0, len(examples), width):
            some = slice(start, start + width)
            rows = self._logprobs(examples[some], tokens)
            paired = [pair_gaps(*three) for three in zip(rows, references[some], examples[some], strict=True)]
            loss = torch.stack([dpo_loss(gap, beta).mean() for gap in paired]).sum() / len(examples)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.item())
            gaps += [gap.detach() for gap in paired]
            entropies += [entropy(row.detach()) for row in rows]
            divergences += [kl_divergence(a.detach(), b) for a, b in zip(rows, references[some], strict=True)]
        norm = torch.nn.utils.clip_grad_norm_(weights, self.config.max_grad_norm)
        if not torch.isfinite(norm):
            raise InputError(
                f"DPO: gradient norm {norm.item()} with loss {sum(losses):.4g}",
                "training cannot continue with numbers that are not finite",
                "lower train.learning_rate or dpo.beta and resume from the last checkpoint",
            )
        optimizer.step()
        every = torch.cat(gaps)
        return {
            "loss": sum(losses),
            "pairs.accuracy": (every > 0).float().mean().item(),
            "pairs.gap": every.mean().item(),
            "entropy": torch.cat(entropies).mean().item(),
            "kl": torch.cat(divergences).mean().item(),
            "grad_norm": norm.item(),
            "learning_rate": optimizer.param_groups[0]["lr"],
            "seconds": round(time.perf_counter() - begun, 3),
        }

    def _logprobs(self, examples: Sequence[PromptPairs], tokens: SlotTokens) -> list[Tensor]:
        prompts = [example.prompt for example in examples]
        return slot_logprobs(self.model, prompts, tokens, prompts_per_forward=self.config.prompts_per_forward)

    def _save(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        adapter = get_peft_model_state_dict(self.model, adapter_name="default")
        with replacing(self.folder / "checkpoint.pt") as temporary:
            torch.save({"adapter": adapter, "optimizer": optimizer.state_dict(), "step": step}, temporary)

    def _restore(self, optimizer: torch.optim.Optimizer) -> int:
        """Steps done, with weights and optimizer as they were then; -1 without a checkpoint."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return -1
        state = torch.load(path, weights_only=True)
        set_peft_model_state_dict(self.model, state["adapter"], adapter_name="default")
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])
