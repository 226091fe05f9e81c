"""GRPO for the recommender, the paper's second stage (arXiv 2602.20558): +1 for naming the target, -1 for any other.

The policy is the slate's softmax of scale x score, the distribution that cross-entropy trains; an answer is one of its
S candidates. So few answers can be summed over instead of sampled: `expected_loss` is GRPO with an infinite group. With
p the target's probability, rewards have mean 2p - 1 and spread 2 sqrt(p (1 - p)), the advantage of the target is
sqrt((1 - p) / p), and the expected gradient is that of 2 arcsin sqrt(p). How hard each loss pushes the log odds of the
target:

    cross-entropy   1 - p            hopeless slates teach most
    GRPO            sqrt(p (1 - p))  a slate teaches most at p = 1/2, little once it is hopeless or certain
    REINFORCE       2 p (1 - p)      the same, more sharply

Each answer serves exactly one update, so importance ratios are 1 and clipping never binds: there is none. No KL term.

Deviation: the paper samples a reasoned answer in text and parses it; here the answer is a candidate's likelihood ratio,
which is also how the recommender ranks at test time.
"""

import torch
from torch import Tensor

from recsys.seeding import rng

EPSILON = 1e-4
"""Added to the spread of sampled rewards before dividing, as TRL does."""


def log_odds(scores: Tensor, target_index: int, scale: float) -> Tensor:
    """log p / (1 - p) of the target under softmax(scale * scores): (S,) -> (). Exact where p rounds to 0 or 1."""
    scaled = scale * scores
    others = torch.cat([scaled[:target_index], scaled[target_index + 1 :]])
    return scaled[target_index] - torch.logsumexp(others, dim=0)


def expected_loss(scores: Tensor, target_index: int, scale: float, scale_advantages: bool = True) -> Tensor:
    """GRPO over all answers, each weighed by its probability: (S,) -> (), least when the target is certain.

    With `scale_advantages` pi/2 - 2 arcsin sqrt(p), written as the Gudermannian of half the log odds, which neither
    overflows nor divides by a spread of 0; without, 1 - 2p, minus the expected reward.
    """
    half = log_odds(scores, target_index, scale) / 2
    return -2 * torch.atan(torch.tanh(half / 2)) if scale_advantages else -torch.tanh(half)


def answer_loss(
    scores: Tensor, target_index: int, answers: Tensor, scale: float, scale_advantages: bool = True
) -> Tensor:
    """GRPO on G sampled answers, (S,) and indices (G,) -> (): -mean advantage x log-probability of the answer.

    Answers that are all right or all wrong have advantages 0 and no gradient. The group's own mean is the baseline,
    which holds each answer itself: without scaling, the expected gradient is (1 - 1/G) that of `expected_loss`.
    """
    rewards = torch.where(answers == target_index, 1.0, -1.0).to(scores)
    advantages = rewards - rewards.mean()
    if scale_advantages:
        advantages = advantages / (rewards.std() + EPSILON)
    return -(advantages * torch.log_softmax(scale * scores, dim=0)[answers]).mean()


def sample_answers(scores: Tensor, scale: float, count: int, key: tuple[object, ...]) -> Tensor:
    """`count` answers drawn from softmax(scale * scores), (G,) indices on the scores' device; `key` names the draw."""
    probabilities = torch.softmax(scale * scores.detach().double().cpu(), dim=0).numpy()
    drawn = rng(*key).choice(len(probabilities), size=count, p=probabilities / probabilities.sum())
    return torch.as_tensor(drawn, device=scores.device)
