"""ExpRAG: retrieved whole trajectories in the system message of an agent (arXiv 2603.18272).

*Static*: the goal finds K trajectories once, and the episode keeps them. *Dynamic*: at every step the goal with the
present observation finds K trajectories by what was said in them; the paper queries with the whole partial trajectory,
of which the sentence encoder would read the first 256 tokens only, hence the goal and the latest observation here.
Successes and failures stand under headers of their own (`verbalize.experience.memory`).

Games of one family may share their goal to the letter, so many trajectories are equally near. Which of them are shown
is then drawn by the game that asks: games see different ones, and no result hangs on two trajectories.

A query never sees trajectories of its own game, whoever played them: in training that is the leave-one-out of
ExpRAG-LoRA, whose contexts hold the same block an agent is shown in play.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from recsys.errors import InputError
from recsys.seeding import stable_hash, unit_hash
from verbalize.agents.expert import game_of
from verbalize.agents.rollouts import Situation
from verbalize.experience.entries import Exclude, Experience, Hit
from verbalize.experience.library import ExperienceLibrary
from verbalize.experience.memory import CountTokens, trajectory_block

_NEAREST = 256  # trajectories among which equally near ones are drawn


@dataclass(frozen=True)
class RetrievalConfig:
    """What an agent is shown of an index."""

    k: int = 2
    """Trajectories. Cost grows about linearly with it."""
    query: Literal["static", "dynamic"] = "static"
    budget: int = 250
    """Tokens of the block per trajectory asked for, so that K can be compared; a block has k times as many. What does
    not fit is cut, the nearest trajectory being placed first."""
    observation_words: int | None = None
    """Observations in the block are cut after so many words: None shows them whole, as the paper does, 0 only the
    actions."""

    def __post_init__(self) -> None:
        if self.k < 1 or self.budget < 1 or (self.observation_words or 0) < 0:
            raise InputError(
                f"retrieval with k = {self.k}, budget = {self.budget}, observation_words = {self.observation_words}",
                "k and budget are at least 1, observation_words at least 0",
                "choose index: empty to show nothing",
            )


class Retriever:
    """Memory blocks from one library, which is only read."""

    def __init__(self, library: ExperienceLibrary, config: RetrievalConfig, count_tokens: CountTokens) -> None:
        self.library, self.config, self._count = library, config, count_tokens
        self._sources: dict[str, list[str]] = {}  # of each game
        for entry in library.entries("trajectory"):
            for source in entry.sources:
                self._sources.setdefault(game_of(source), []).append(source)

    def blocks(self, queries: Sequence[str], games: Sequence[str]) -> list[str]:
        """One block per query, without trajectories of the game (a task's id) that it is asked for."""
        hits = self.library.retrieve(
            queries,
            max(_NEAREST, self.config.k),
            before=None,  # games are no log: nothing in them is earlier or later
            exclude=[Exclude(sources=self._sources.get(game, ())) for game in games],
            view="key" if self.config.query == "static" else "text",
            kind="trajectory",
        )
        words, budget = self.config.observation_words, self.config.k * self.config.budget
        shown = [_drawn(found, game)[: self.config.k] for found, game in zip(hits, games, strict=True)]
        return [trajectory_block([_shortened(hit, words) for hit in own], budget, self._count) for own in shown]


@dataclass(eq=False)
class ExpRAG:
    """The `Memory` of a rollout."""

    retriever: Retriever
    _kept: dict[tuple[str, int], str] = field(default_factory=dict)  # blocks of static retrieval, by episode

    def __call__(self, situations: Sequence[Situation]) -> list[str]:
        if self.retriever.config.query == "dynamic":
            queries = [f"{situation.goal}\n{situation.observation}" for situation in situations]
            return self.retriever.blocks(queries, [situation.task.id for situation in situations])
        new = [situation for situation in situations if _episode(situation) not in self._kept]
        blocks = self.retriever.blocks([s.goal for s in new], [s.task.id for s in new])
        self._kept |= {_episode(situation): block for situation, block in zip(new, blocks, strict=True)}
        return [self._kept[_episode(situation)] for situation in situations]


def training_blocks(retriever: Retriever, entries: Sequence[Experience]) -> list[str]:
    """Per trajectory the block that static retrieval shows for its goal, its own game left out."""
    return retriever.blocks([entry.key for entry in entries], [game_of(entry.sources[0]) for entry in entries])


def drop_blocks(blocks: Sequence[str], names: Sequence[str], share: float, seed: int, epoch: int) -> list[str]:
    """Memory dropout: every block is left out with probability `share`, decided by seed, epoch and name."""
    return [
        "" if unit_hash("memory dropout", seed, epoch, name) < share else block
        for block, name in zip(blocks, names, strict=True)
    ]


def _episode(situation: Situation) -> tuple[str, int]:
    return situation.task.id, situation.attempt


def _drawn(hits: Sequence[Hit], game: str) -> list[Hit]:
    """The hits, nearest first, equally near ones in an order that depends on the game."""
    return sorted(hits, key=lambda hit: (-hit.similarity, stable_hash("equally near", game, hit.entry.id)))


def _shortened(hit: Hit, words: int | None) -> Hit:
    """The hit with observations of at most `words` words; with 0 they are left out."""
    if words is None:
        return hit
    messages = [
        message if message["role"] != "user" else message | {"content": _cut(message["content"], words)}
        for message in hit.entry.messages
    ]
    kept = [message for message in messages if message["content"]]
    return replace(hit, entry=replace(hit.entry, text=json.dumps(kept, ensure_ascii=False)))


def _cut(text: str, words: int) -> str:
    """
    >>> _cut("You open the  door.", 3), _cut("You go.", 3), _cut("You go.", 0)
    ('You open the …', 'You go.', '')
    """
    parts = text.split()
    return " ".join(parts[:words]) + (" …" if 0 < words < len(parts) else "")
