"""The retrieval-augmented verbalizer: a policy whose prompt also shows what served similar histories, and what did not.

Following ExpRAG-LoRA (arXiv 2603.18272) the same memory block may stand in every training prompt; following SLEA-RL
(arXiv 2603.18079) an entry is a lesson for one decision, strategies apart from warnings. Deviations: a history is one
decision, so entries are found by the history's sketch and there are no observation clusters; the slot policy has no
system role, so its memory stands between the instruction and the history.

What a prompt may show is decided here for every example: no entry of its own user, none made from the example itself,
and none that was known only at or after its cutoff.
"""

from collections.abc import Collection, Mapping, Sequence

import polars as pl

from recsys.errors import InputError
from recsys.seeding import unit_hash
from verbalize.experience.entries import Exclude, Hit
from verbalize.experience.library import ExperienceLibrary
from verbalize.experience.memory import CountTokens, lesson_block
from verbalize.experience.settings import MemoryConfig
from verbalize.experience.verbalizer_lessons import sketches
from verbalize.verbalizers.base import MEMORY, Verbalizer, guard_inputs, safe_memory


class Memory:
    """Adds the column `memory` to a verbalizer's inputs. Each example's block is made once."""

    def __init__(
        self, library: ExperienceLibrary, config: MemoryConfig, users: Mapping[str, str], count_tokens: CountTokens
    ) -> None:
        """`users`: example id -> its user; `count_tokens` by the policy's tokenizer. The library is only read."""
        self.library, self.config, self.users = library, config, users
        self._count = count_tokens
        self._blocks: dict[str, str] = {}

    def recall(self, inputs: pl.DataFrame, forgetful: Collection[str] = ()) -> pl.DataFrame:
        """B rows of example_id, cutoff_time, history -> the same with `memory`, "" for the ids in `forgetful`.

        Inputs that have the column already are left as they are. Raises InputError for an example of unknown user.
        """
        if MEMORY in guard_inputs(inputs).columns:
            return inputs
        ids = inputs["example_id"].to_list()
        new = inputs.filter(~pl.col("example_id").is_in(list(self._blocks)))
        self._blocks.update(zip(new["example_id"], self._made(new), strict=True))
        blocks = ["" if key in forgetful else self._blocks[key] for key in ids]
        return inputs.with_columns(pl.Series(MEMORY, blocks, dtype=pl.String))

    def retrieve(self, inputs: pl.DataFrame) -> list[tuple[list[Hit], list[Hit]]]:
        """Per row the nearest permitted strategies and warnings, best first."""
        ids = inputs["example_id"].to_list()
        unknown = [key for key in ids if key not in self.users]
        if unknown:
            raise InputError(
                f"example {unknown[0]}", "is of an unknown user, whose own entries could not be kept away", "name it"
            )
        queries = sketches(inputs, self.config.sketch)
        cutoffs = inputs["cutoff_time"].to_list()
        own = [Exclude(users=[self.users[key]], sources=[key]) for key in ids]
        strategies, warnings = (
            self.library.retrieve(queries, k, before=cutoffs, exclude=own, kind="lesson", zone=zone)
            for zone, k in (("strategy", self.config.strategies), ("warning", self.config.warnings))
        )
        return list(zip(strategies, warnings, strict=True))

    def _made(self, inputs: pl.DataFrame) -> Sequence[str]:
        def count(text: str) -> int:
            return self._count(safe_memory(text))  # as it will be shown

        found = self.retrieve(inputs) if len(inputs) else []
        return [safe_memory(lesson_block(best, worst, self.config.tokens, count)) for best, worst in found]


class RetrievalVerbalizer:
    """A policy that is asked with memory. Follows `Verbalizer`; for a slot policy also `fit` and `actions`."""

    def __init__(self, policy: Verbalizer, memory: Memory) -> None:
        self.policy, self.memory, self.name = policy, memory, policy.name

    def verbalize(self, inputs: pl.DataFrame) -> list[str]:
        """B rows of example_id, cutoff_time, history -> B texts, in row order."""
        return self.policy.verbalize(self.memory.recall(inputs))

    def fit(self, inputs: pl.DataFrame) -> tuple[pl.DataFrame, list[list[int]]]:
        """As the slot policy's: histories cut to the budget, with memory, and the prompts' token ids."""
        return self.policy.fit(self.memory.recall(inputs))  # type: ignore[attr-defined, no-any-return]

    def actions(self, inputs: pl.DataFrame) -> list[list[int]]:
        """As the slot policy's: one greedy action per shown event."""
        return self.policy.actions(self.memory.recall(inputs))  # type: ignore[attr-defined, no-any-return]


def dropped_examples(example_ids: Sequence[str], share: float) -> set[str]:
    """Those that train without memory: a larger share only adds to a smaller one."""
    return {key for key in example_ids if unit_hash("memory dropout", key) < share}
