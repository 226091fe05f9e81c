"""Rewards of a verbalization: pure functions of its text and of the rankings the recommender made from it.

`paper_like` is the paper's reward, alpha * accuracy + (1 - alpha) * length plateau (arXiv 2602.20558, stage 1). It is
flat: whenever all G rewrites of a history hit or miss alike, only length is left to learn from, and group normalisation
inflates that to full strength. The dense kinds, `margin`, `log_softmax` and `reciprocal_rank`, see how nearly a text
got it right, and every kind is averaged over M slates of the same history, because one slate mostly measures the luck
of its negatives. `catalogue_log_softmax` goes further: the target against all that could have been recommended, which a
sentence encoder ranks in one product (`catalogue_reward`), so no luck of a draw is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from recsys.errors import InputError
from recsys.later import later

CATALOGUE = "catalogue_log_softmax"
KINDS = ("paper_like", "margin", "log_softmax", "reciprocal_rank", CATALOGUE)


@dataclass(frozen=True)
class RewardConfig:
    """What is paid for. `slates` = M redraws of the negatives each text is scored on."""

    kind: str = "margin"
    alpha: float = 0.9
    """`paper_like` only: weight of accuracy against the length plateau."""
    slates: int = 3
    negatives_temperature: float = 1.0
    """`margin`: small compares with the hardest negative, large with the mean of all. `log_softmax` and
    `catalogue_log_softmax`: divides scores."""
    squash: float | None = None
    """`margin` only: c * tanh(margin / c) bounds what one easy example can pay."""
    length_weight: float = 0.0
    faithfulness_weight: float = 0.0
    targets: int = later(1)
    """In training and in choosing a policy, a text is also paid for finding up to so many less one of the same user's
    next targets: what one target asks for is mostly luck. The pool, which measures that luck, judges by one."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"reward.kind = {self.kind!r}", f"is not one of {', '.join(KINDS)}", "choose one of these")
        if not 0 <= self.alpha <= 1:
            raise InputError(f"reward.alpha = {self.alpha}", "must lie in [0, 1]", "the paper uses 0.9")
        if self.targets < 1 or (self.targets > 1 and self.kind == CATALOGUE):
            raise InputError(
                f"reward.targets = {self.targets} with reward.kind {self.kind}",
                f"must be at least 1, and is 1 for {CATALOGUE}, which measures a text's own target alone",
                "change one of them",
            )
        if self.slates < 1 or self.negatives_temperature <= 0 or (self.squash is not None and self.squash <= 0):
            raise InputError(
                f"reward {self}", "slates must be at least 1, temperature and squash above 0", "raise them"
            )


@dataclass(frozen=True)
class Ranking:
    """One slate as ranked from one text: scores (S,), the target's index in it, and its rank (from 1, seeded ties)."""

    scores: np.ndarray
    target: int
    rank: int


@dataclass(frozen=True)
class Scored:
    """A text's reward and everything it was made of, by name, for the log."""

    reward: float
    components: dict[str, float]


class Reward(Protocol):
    """Pure: the same texts, traits and rankings give the same rewards."""

    def __call__(self, traits: Sequence["TextTraits"], rankings: Sequence[Sequence[Ranking]]) -> list[Scored]: ...


@dataclass(frozen=True)
class TextTraits:
    """What the reward may know of a text besides its rankings: compression, its plateau value, faithfulness, and, where
    it is what is paid for, the log softmax of the target's score over the catalogue.
    """

    compression: float
    plateau: float
    faithful: float
    catalogue: float | None = None


def hit(ranking: Ranking) -> float:
    """The paper's r_acc: 1 if the target is first."""
    return float(ranking.rank == 1)


def reciprocal_rank(ranking: Ranking) -> float:
    """1 / rank of the target."""
    return 1.0 / ranking.rank


def margin(ranking: Ranking, temperature: float = 1.0) -> float:
    """Target's score minus t * log mean exp(score / t) over its negatives: in the score's unit (nats for likelihoods).

    t -> 0 compares with the best negative, t -> infinity with their mean. 0 when all scores are equal.
    """
    negatives = np.delete(np.asarray(ranking.scores, dtype=np.float64), ranking.target) / temperature
    top = negatives.max()
    return float(ranking.scores[ranking.target] - temperature * (top + np.log(np.mean(np.exp(negatives - top)))))


def log_softmax(ranking: Ranking, temperature: float = 1.0) -> float:
    """log exp(target / t) / sum exp(score / t) over the slate: at most 0, and nearly 0 once the target is far ahead, so
    that an easy example cannot pay ever more.
    """
    scores = np.asarray(ranking.scores, dtype=np.float64) / temperature
    return float(scores[ranking.target] - np.logaddexp.reduce(scores))


def squashed(value: float, bound: float | None) -> float:
    """bound * tanh(value / bound): nearly the value while small, never beyond the bound. None leaves it as it is."""
    return value if bound is None else bound * float(np.tanh(value / bound))


def score_text(traits: TextTraits, rankings: Sequence[Ranking], config: RewardConfig) -> Scored:
    """The reward of one text from its M rankings. Raises InputError when a score is not finite, or a reward on the
    catalogue was not measured.
    """
    margins = [margin(ranking, config.negatives_temperature) for ranking in rankings]
    components = {
        "hit": float(np.mean([hit(ranking) for ranking in rankings])),
        "reciprocal_rank": float(np.mean([reciprocal_rank(ranking) for ranking in rankings])),
        "margin": float(np.mean(margins)),
        "plateau": traits.plateau,
        "compression": traits.compression,
        "faithful": traits.faithful,
    }
    if traits.catalogue is not None:
        components[CATALOGUE] = traits.catalogue
    if config.kind == "paper_like":
        reward = config.alpha * components["hit"] + (1 - config.alpha) * traits.plateau
    elif config.kind == "margin":
        reward = float(np.mean([squashed(value, config.squash) for value in margins]))
    elif config.kind == "log_softmax":
        reward = float(np.mean([log_softmax(ranking, config.negatives_temperature) for ranking in rankings]))
    elif config.kind == CATALOGUE:
        if traits.catalogue is None:
            raise InputError(
                f"reward.kind = {CATALOGUE}",
                "needs the target's place in the catalogue, which these traits do not hold",
                "measure it with verbalize.optimize.catalogue_reward.with_catalogue",
            )
        reward = traits.catalogue
    else:
        reward = components["reciprocal_rank"]
    reward += config.length_weight * traits.plateau + config.faithfulness_weight * traits.faithful
    if not np.isfinite(reward):
        raise InputError(f"reward {reward} from {components}", "must be finite", "check the recommender's scores")
    return Scored(reward, components)


@dataclass(frozen=True)
class ConfiguredReward:
    """`score_text` for a batch, as a `Reward`."""

    config: RewardConfig

    def __call__(self, traits: Sequence[TextTraits], rankings: Sequence[Sequence[Ranking]]) -> list[Scored]:
        """One result per text."""
        return [score_text(trait, rows, self.config) for trait, rows in zip(traits, rankings, strict=True)]


def group_shares(
    rewards: Sequence[float], hits: Sequence[float], texts: Sequence[str], group_size: int
) -> dict[str, float]:
    """Health of consecutive groups: shares of dead groups, of groups with mixed accuracy, of distinct texts.

    A dead group pays every rollout alike and teaches nothing. Mixed accuracy is what the paper's reward needs to learn
    anything but length.
    """
    grouped = np.asarray(rewards, dtype=np.float64).reshape(-1, group_size)
    mixed = np.ptp(np.asarray(hits, dtype=np.float64).reshape(-1, group_size), axis=1) > 0
    distinct = [len(set(texts[start : start + group_size])) / group_size for start in range(0, len(texts), group_size)]
    return {
        "dead_groups": float(np.mean(np.ptp(grouped, axis=1) < 1e-6)),
        "mixed_groups": float(np.mean(mixed)),
        "distinct_texts": float(np.mean(distinct)),
    }
