"""Slates ranked by a language model behind an OpenAI-compatible endpoint.

Scores are the log-probabilities of the option labels, renormalised, as in the local listwise mode; where a server
offers none, the answer is parsed as in the local generate mode: the named candidate scores 1, the others 0, and an
answer that names none leaves a draw. `counts` says how answers were read: an accuracy means little without it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recsys.errors import InputError
from recsys.recommenders.base import Query
from recsys.recommenders.generate import parse_answer
from recsys.recommenders.language import LanguageRecommenderConfig
from recsys.recommenders.listwise import shown_order, slate_prompt
from recsys.recommenders.remote.answers import Answer, label_scores
from recsys.recommenders.remote.budget import Budget, money
from recsys.recommenders.remote.cache import AnswerCache
from recsys.recommenders.remote.client import ChatClient
from recsys.recommenders.remote.prompts import Preview, check_consent, preview, request_body
from recsys.recommenders.score_cache import content_key

JUDGED_FROM = 20  # answers; of fewer no share is worth ending a run for


class RemoteRecommender:
    """`candidate_texts` as in `render_candidates`; `config.remote` says where and how, `config.cache` names the file of
    answers.

    `counts` has `answers` and, of these, `logprobs`, `label`, `title` and `unparseable`.
    """

    def __init__(
        self, candidate_texts: Mapping[str, str], config: LanguageRecommenderConfig, cache: AnswerCache | None = None
    ) -> None:
        assert config.remote is not None  # the configuration sees to it
        self.candidate_texts, self.config, self.settings = candidate_texts, config, config.remote
        self.name = f"{self.settings.model.rstrip('/').rsplit('/', 1)[-1]}-remote-{self.settings.answer}"
        self.digest = content_key(self.settings.endpoint, self._body("").decode("ascii")).hex()
        self.cache = cache or AnswerCache(config.cache)
        self.budget = Budget(self.settings.budget, self.cache, f"{self.settings.model} at {self.settings.host}")
        self.counts: Counter[str] = Counter()
        self._client: ChatClient | None = None

    def rank(self, queries: Sequence[Query], slates: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """See `Recommender.rank`; reads texts, and example ids for the order shown.

        Raises InputError without consent (with a preview of what would be sent), when the server fails for good, when
        the budget is exceeded and when too many answers name no candidate.
        """
        orders = [shown_order(query.example_id, slate) for query, slate in zip(queries, slates, strict=True)]
        prompts = self._prompts(queries, orders)
        scores = []
        for answer, order, slate in zip(self._answers(prompts), orders, slates, strict=True):
            row, how = score_answer(answer, [self.candidate_texts[item] for item in order])
            self.counts.update(["answers", how])
            by_item = dict(zip(order, row.tolist(), strict=True))
            scores.append(np.array([by_item[item] for item in slate]))
        self._check_readable()
        return scores

    def preview(self, queries: Sequence[Query], slates: Sequence[Sequence[str]]) -> Preview:
        """What ranking these would send, were nothing cached. Sends nothing."""
        orders = [shown_order(query.example_id, slate) for query, slate in zip(queries, slates, strict=True)]
        return preview(self.settings, self._prompts(queries, orders))

    def report(self) -> dict[str, Any]:
        """What this object asked, how it was answered, what that cost and how long it took. Plain values."""
        own, latencies = self.budget.own, self._client.latencies if self._client else None
        seconds = latencies.seconds if latencies else []
        return {
            "host": self.settings.host,
            "model": self.settings.model,
            **{name: self.counts[name] for name in ("answers", "logprobs", "label", "title", "unparseable")},
            "from_cache": self.cache.hits,
            "calls": own.calls,
            "retries": latencies.retries if latencies else 0,
            "prompt_tokens": own.prompt_tokens,
            "completion_tokens": own.completion_tokens,
            "money": money(own, self.settings.budget),
            "latency_s": {f"p{q}": float(np.quantile(seconds, q / 100)) for q in (50, 95)} if seconds else None,
        }

    def _prompts(self, queries: Sequence[Query], orders: Sequence[Sequence[str]]) -> list[str]:
        return [
            slate_prompt(query.text, order, self.candidate_texts, self.config.kind)
            for query, order in zip(queries, orders, strict=True)
        ]

    def _answers(self, prompts: Sequence[str]) -> list[Answer]:
        """One per prompt: stored ones, and those asked for now; equal questions are asked once."""
        keys = [content_key("answer", self.settings.endpoint, self._body(prompt).decode("ascii")) for prompt in prompts]
        known = {key: self.cache.get(key) for key in dict.fromkeys(keys)}
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if known[key] is None}
        if new:
            check_consent(self.settings, list(new.values()))
            order = list(new)

            def keep(place: int, answer: Answer) -> None:
                self.cache.put(order[place], answer)
                known[order[place]] = answer

            self._client = self._client or ChatClient(self.settings, self.budget, self._answer_tokens)
            self._client.ask([self._body(prompt) for prompt in new.values()], keep)
        return [answer for key in keys if (answer := known[key]) is not None]

    def _body(self, prompt: str) -> bytes:
        return request_body(prompt, self.settings, self._answer_tokens)

    @property
    def _answer_tokens(self) -> int:
        return 1 if self.settings.answer == "logprobs" else self.config.max_new_tokens

    def _check_readable(self) -> None:
        unread, answers = self.counts["unparseable"], self.counts["answers"]
        if answers >= JUDGED_FROM and unread > self.settings.max_unparseable * answers:
            raise InputError(
                f"{unread} of {answers} answers of {self.settings.model}",
                f"name no candidate, more than max_unparseable {self.settings.max_unparseable:g}",
                "use an instruct model, switch its reasoning off (remote.body), give it room to answer "
                "(remote.answer=text, max_new_tokens), or raise remote.max_unparseable",
            )


def score_answer(answer: Answer, shown: Sequence[str]) -> tuple[np.ndarray, str]:
    """Scores (S,) in the order shown, and how they were read: logprobs, label, title or unparseable."""
    scores = label_scores(answer.top, len(shown)) if answer.top else None
    if scores is not None:
        return scores, "logprobs"
    choice, how = parse_answer(answer.text, shown)
    return np.array([float(place == choice) for place in range(len(shown))]), how
