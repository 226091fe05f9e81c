"""Slates ranked by what the model says: decode greedily, read a label or a title, as in arXiv 2602.20558.

The chosen candidate scores 1 and the others 0; an answer that names none (or several) scores 0 for all, so its rank
is a draw between ties. `counts` says how often that happened: an accuracy from this mode means little without it.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from recsys.models.loading import LanguageModel
from recsys.recommenders.base import Query
from recsys.recommenders.language import LanguageRecommenderConfig
from recsys.recommenders.listwise import LABELS, encode_prompt, shown_order, slate_prompt


class GenerateRecommender:
    """`counts` has `answers`, `label`, `title` and `unparseable`. `candidate_texts` as in `render_candidates`."""

    def __init__(
        self, lm: LanguageModel, candidate_texts: Mapping[str, str], config: LanguageRecommenderConfig
    ) -> None:
        self.lm, self.config, self.candidate_texts = lm, config, candidate_texts
        self.name = f"{lm.name}-generate"
        self.counts: Counter[str] = Counter()

    def rank(self, queries: Sequence[Query], slates: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """See `Recommender.rank`; reads texts, and example ids for the order shown."""
        orders = [shown_order(query.example_id, slate) for query, slate in zip(queries, slates, strict=True)]
        prompts = [
            encode_prompt(
                self.lm,
                slate_prompt(query.text, order, self.candidate_texts, self.config.kind),
                self.config,
                query.example_id,
            )
            for query, order in zip(queries, orders, strict=True)
        ]
        scores = []
        for answer, order, slate in zip(self._decode(prompts), orders, slates, strict=True):
            choice, how = parse_answer(answer, [self.candidate_texts[item] for item in order])
            self.counts.update(["answers", how])
            scores.append(np.array([float(choice is not None and item == order[choice]) for item in slate]))
        return scores

    def _decode(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """Greedy continuations, in batches of similar length within the token budget (padded on the left)."""
        answers = [""] * len(prompts)
        waiting = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
        while waiting:
            width = len(prompts[waiting[0]])
            size = max(1, self.config.token_budget // (width + self.config.max_new_tokens))
            batch, waiting = waiting[:size], waiting[size:]
            padding = [width - len(prompts[number]) for number in batch]
            ids = torch.tensor(
                [
                    [self.lm.tokenizer.pad_token_id or 0] * pad + list(prompts[number])
                    for pad, number in zip(padding, batch, strict=True)
                ]
            )
            mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding])
            device = self.lm.model.device
            with torch.inference_mode():
                out = self.lm.model.generate(
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    do_sample=False,
                    max_new_tokens=self.config.max_new_tokens,
                    pad_token_id=self.lm.tokenizer.pad_token_id or 0,
                    eos_token_id=self.lm.tokenizer.eos_token_id,
                )
            for number, text in zip(
                batch, self.lm.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True), strict=True
            ):
                answers[number] = text
        return answers


def parse_answer(answer: str, shown: Sequence[str]) -> tuple[int | None, str]:
    """Index of the candidate an answer names and how: `label` ("C", "(C)", "C. Title", "Answer: C"), `title` (exactly
    one candidate's text, complete and delimited), or (None, "unparseable").

    >>> parse_answer("B. Heat", ["Fargo", "Heat"]), parse_answer("I would watch Fargo!", ["Fargo", "Heat"])
    ((1, 'label'), (0, 'title'))
    """
    line = answer.strip().splitlines()[0].strip() if answer.strip() else ""
    label = re.match(r"(?:the answer is|answer:?)?\s*\(?([A-Za-z])\s*(?:[.):,]|$)", line, flags=re.IGNORECASE)
    if label:
        letter = label.group(1).upper() if len(shown) <= 26 else label.group(1)
        if letter in LABELS[: len(shown)]:
            return LABELS.index(letter), "label"
    named = [number for number, title in enumerate(shown) if re.search(rf"(?<!\w){re.escape(title)}(?!\w)", line)]
    # "Alien" inside "Alien Resurrection" is not a second answer: the longest match that contains all others wins.
    longest = max(named, key=lambda number: len(shown[number]), default=None)
    if longest is not None and all(shown[number] in shown[longest] for number in named):
        return longest, "title"
    return None, "unparseable"
