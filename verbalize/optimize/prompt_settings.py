"""Settings of prompt evolution. Standard library only: the configuration of a run is read before the package is."""

from dataclasses import dataclass
from typing import Any

from recsys.errors import InputError
from recsys.recommenders.remote.settings import RemoteSettings
from verbalize.config import plain
from verbalize.optimize.settings import TrainConfig
from verbalize.verbalizers.rewrite import RewriteConfig


@dataclass(frozen=True)
class PromptEvolutionConfig:
    """GEPA (arXiv 2507.19457, package `gepa`) instead of GRPO: the rewriter's weights stay, its instruction evolves.

    A reflection model reads a few logs, what the rewriter made of them and how they were rewarded, and words a better
    instruction; one that improves on those examples is judged on the selection examples and joins the candidates. The
    best on the selection examples is the learned verbalizer. `policy.rewrite.instruction` is where it starts; of the
    recipe's `train` only what it would have cost is read.
    """

    calls: int | None = None
    """Texts ranked by the recommender, judgements on the selection examples included. None allows what GRPO with this
    recipe's `train` ranks, its own validations included. 0 keeps the instruction: the zero-shot rewriter."""
    minibatch: int = 3
    """Training examples that a reflection reads."""
    reflection_model: str | None = None
    """A local model that words instructions; None is the rewriter's own."""
    remote: RemoteSettings | None = None
    """An OpenAI-compatible endpoint that words them instead. It is sent logs and texts of training users, which needs
    `remote.send_texts_to`, as everywhere."""
    capable: bool = False
    """Declares that the reflection model can improve instructions (a rule of thumb: instruct models from 7B on). A
    claim against an arm whose model cannot is not made."""
    reflection_tokens: int = 512
    """Longest answer of the reflection model."""
    instruction_tokens: int = 256
    """A longer proposal counts as a failure: every token of it takes room from the log."""

    def __post_init__(self) -> None:
        for name, least in (("calls", 0), ("minibatch", 1), ("reflection_tokens", 1), ("instruction_tokens", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"gepa.{name} = {value}", f"must be at least {least}", "raise it")
        if self.remote is not None and self.reflection_model is not None:
            raise InputError("gepa.reflection_model and gepa.remote", "name two reflection models", "drop one of them")

    @property
    def reflector(self) -> str:
        """The reflection model's name."""
        return self.remote.model if self.remote else self.reflection_model or "the rewriter's own"

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that decide the instruction; patience, consent, money and what is declared change none."""
        described = dict(plain(self))
        del described["capable"]
        if described["remote"] is not None:
            described["remote"] = {name: described["remote"][name] for name in ("endpoint", "model", "body")}
        return described

    @property
    def is_rival(self) -> bool:
        """Whether beating this arm would show anything: a capable model reflected, or nothing was to evolve."""
        return self.capable or self.calls == 0

    def budget(self, train: TrainConfig, validated: int) -> int:
        """Texts that may be ranked; `validated` is the number of selection examples."""
        if self.calls is not None:
            return self.calls
        rollouts = train.steps // train.iterations * train.prompts_per_step * train.group_size
        return rollouts + (train.steps // train.eval_every + 1) * validated

    def check(self, rewrite: RewriteConfig) -> None:
        """Refuse instructions that would leave no room for a log. Raises InputError."""
        if self.instruction_tokens * 2 > rewrite.prompt_tokens:
            raise InputError(
                f"gepa.instruction_tokens = {self.instruction_tokens}",
                f"could take more than half of policy.rewrite.prompt_tokens = {rewrite.prompt_tokens}",
                "lower it, or give prompts more tokens",
            )
