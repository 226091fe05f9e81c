"""What GEPA asks for: an adapter that writes texts under an instruction and has the recommender reward them, and a
reflection model. All they computed is kept on disk by content, so that a replay computes nothing twice."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from recsys.models.loading import LanguageModel
from recsys.storage import read_json, write_json, write_text
from verbalize.optimize.scoring import ScoreFunction
from verbalize.verbalizers.rewrite import RewriteConfig, RewriteVerbalizer, rewrite_messages

INSTRUCTION = "instruction"
UNUSABLE = -1e6
"""Score of an instruction that cannot be used: below any reward, and finite, as GEPA needs."""

Reflect = Callable[[str], str]
"""A reflection prompt -> the model's answer."""


class InstructionAdapter:
    """GEPA's view of the rewriter: a batch of example ids and an instruction -> texts and rewards.

    Each evaluation is a file of one line per text, as a generation of GRPO leaves it.
    """

    propose_new_texts: Any = None  # GEPA's own proposal prompt serves

    def __init__(self, lm: LanguageModel, rewrite: RewriteConfig, instruction_tokens: int, folder: Path) -> None:
        self.lm, self.rewrite, self.limit, self.folder = lm, rewrite, instruction_tokens, folder
        self._examples: dict[str, tuple[pl.DataFrame, ScoreFunction]] = {}

    def register(self, inputs: pl.DataFrame, score: ScoreFunction) -> None:
        """Make examples known, with what rewards their texts."""
        for row, example_id in enumerate(inputs["example_id"]):
            self._examples[example_id] = (inputs[row], score)

    def usable(self, instruction: str) -> bool:
        """Not blank, and short enough."""
        return bool(instruction.strip()) and len(self.lm.tokenizer.encode(instruction)) <= self.limit

    def rows(self, instruction: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """example_id, text, reward and the reward's components of every example, kept on disk by content."""
        path = self.folder / f"{_key(instruction, list(ids))}.jsonl"
        if not path.exists():
            rows = self._evaluate(instruction, ids)
            write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), path)
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def _evaluate(self, instruction: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        inputs = pl.concat([self._examples[key][0] for key in ids])
        texts = RewriteVerbalizer(self.lm, replace(self.rewrite, instruction=instruction)).verbalize(inputs)
        score = self._examples[ids[0]][1]  # a batch is of one kind: training or selection
        return [
            {"example_id": key, "text": text, "reward": scored.reward, **scored.components}
            for key, text, scored in zip(ids, texts, score(ids, texts), strict=True)
        ]

    def evaluate(self, batch: list[str], candidate: Mapping[str, str], capture_traces: bool = False) -> Any:
        """As `gepa.GEPAAdapter.evaluate`; a data instance is an example id."""
        from gepa import EvaluationBatch

        instruction = candidate[INSTRUCTION]
        if not self.usable(instruction):
            rows: list[dict[str, Any]] = [{"example_id": key, "text": "", "reward": UNUSABLE} for key in batch]
        else:
            rows = self.rows(instruction, batch)
        return EvaluationBatch(
            outputs=rows, scores=[row["reward"] for row in rows], trajectories=rows if capture_traces else None
        )

    def make_reflective_dataset(
        self, candidate: Mapping[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> dict[str, list[dict[str, Any]]]:
        """As `gepa.GEPAAdapter.make_reflective_dataset`: log, profile, and how it served."""
        bare = replace(self.rewrite, instruction="")
        records = []
        for row in eval_batch.trajectories:
            log = rewrite_messages(self._examples[row["example_id"]][0], bare)[0][-1]["content"].strip()
            records.append({"Inputs": {"log": log}, "Generated Outputs": row["text"], "Feedback": feedback(row)})
        return dict.fromkeys(components_to_update, records)


def feedback(row: Mapping[str, Any]) -> str:
    """How a text served the recommender, in words; never what the target was."""
    if "reciprocal_rank" not in row:
        return "The instruction was empty or too long; nothing was written."
    return (
        f"Reward {row['reward']:.3f} (higher is better). From this profile the recommender placed the film that the "
        f"viewer went on to enjoy first among the candidates in {row['hit']:.0%} of the slates, mean reciprocal rank "
        f"{row['reciprocal_rank']:.2f}. The profile has {row['compression']:.0%} of the log's length; "
        f"{row['faithful']:.0%} of its claims hold in the log."
    )


class Remembered:
    """A reflection model whose answers are kept on disk by the prompt's hash: a replay asks nothing twice.

    `trouble` is what kept it from answering: GEPA would log that and go on spending without a single proposal.
    """

    def __init__(self, reflect: Reflect, folder: Path) -> None:
        self.reflect, self.folder, self.calls = reflect, folder, 0
        self.trouble: Exception | None = None

    def __call__(self, prompt: str | list[dict[str, Any]]) -> str:
        """GEPA's language-model protocol; prompts without images are plain text."""
        self.calls += 1
        text = prompt if isinstance(prompt, str) else json.dumps(prompt)
        path = self.folder / f"{_key(text, [])}.json"
        if not path.exists():
            try:
                answer = self.reflect(text)
            except Exception as error:
                self.trouble = error
                raise
            write_json({"answer": answer}, path)
        return str(read_json(path)["answer"])


def _key(text: str, ids: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps([text, list(ids)]).encode()).hexdigest()[:24]
