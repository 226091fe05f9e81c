"""What a run may still spend, asked before every call.

One process never exceeds its calls. Tokens are known only afterwards: a call is let through on an estimate, so that
those under way together (at most `concurrency`) may overshoot tokens and money by what the estimate was short.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from recsys.errors import InputError
from recsys.recommenders.remote.answers import Answer
from recsys.recommenders.remote.cache import AnswerCache, Spent
from recsys.recommenders.remote.settings import BudgetSettings

BYTES_PER_TOKEN = 3  # English prose has about 4: the estimate rather errs upwards


def money(spent: Spent, settings: BudgetSettings) -> float:
    """Tokens at the prices of the settings."""
    return (spent.prompt_tokens * settings.prompt_price + spent.completion_tokens * settings.completion_price) / 1e6


def estimate(body: bytes, max_new_tokens: int) -> Spent:
    """What one call is taken to cost until its answer says."""
    return Spent(1, -(-len(body) // BYTES_PER_TOKEN), max_new_tokens)


@dataclass
class Charge:
    """What one call is charged in the end; starts as its estimate."""

    spent: Spent

    def free(self) -> None:
        """The server refused: a call was made, no tokens were."""
        self.spent = Spent(1)

    def settle(self, answer: Answer) -> None:
        """As the answer says, the estimate where it says nothing."""
        prompt, completion = answer.prompt_tokens, answer.completion_tokens
        self.spent = Spent(
            1,
            self.spent.prompt_tokens if prompt is None else prompt,
            self.spent.completion_tokens if completion is None else completion,
        )


class Budget:
    """Limits on one account of a file of answers. `own` is what this object has spent, of what all have."""

    def __init__(self, settings: BudgetSettings, cache: AnswerCache, account: str) -> None:
        self.settings, self.cache, self.account = settings, cache, account
        self.own = Spent()
        self._under_way: list[Charge] = []

    @contextmanager
    def call(self, expected: Spent) -> Iterator[Charge]:
        """Around one call: refuses it (InputError) when it may exceed a limit, else books its charge however it ends.

        A call that is broken off is booked at its estimate: the server may have done the work.
        """
        self._refuse(expected)
        charge = Charge(expected)
        self._under_way.append(charge)
        try:
            yield charge
        finally:
            self._under_way.remove(charge)
            self.cache.spend(self.account, charge.spent)
            self.own = _sum(self.own, charge.spent)

    def _refuse(self, expected: Spent) -> None:
        booked = self.cache.spent(self.account)
        total = _sum(booked, expected, *(charge.spent for charge in self._under_way))
        needed = {
            "calls": total.calls,
            "tokens": total.prompt_tokens + total.completion_tokens,
            "money": money(total, self.settings),
        }
        for name, amount in needed.items():
            limit = getattr(self.settings, name)
            if limit is not None and amount > limit:
                raise InputError(
                    f"budget.{name} = {limit:g}",
                    f"would be exceeded; so far {self.account} was asked {booked.calls} times, for "
                    f"{booked.prompt_tokens + booked.completion_tokens} tokens and {money(booked, self.settings):.4g} "
                    "of money",
                    f"raise recommender.remote.budget.{name}; the same command goes on, with all answers so far kept",
                )


def _sum(*parts: Spent) -> Spent:
    return Spent(
        sum(part.calls for part in parts),
        sum(part.prompt_tokens for part in parts),
        sum(part.completion_tokens for part in parts),
    )
