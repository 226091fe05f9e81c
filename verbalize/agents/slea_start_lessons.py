"""Lessons in the start of SLEA-RL: a policy that never met a system message with lessons is confused by its first one.

The library of training begins empty, so here one grows on the games of the start as it would in training: batches of
solutions and of random play form clusters and give lessons by the named rules. Then every turn of every solution is
asked for what other games teach it, and the policy learns that turn's action with it. A game's own lessons are never
shown, as later in play: what is learned is to read lessons, not what they say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from recsys.seeding import rng
from verbalize.agents.agent_trainer_turns import Key
from verbalize.agents.chats import ChatFormat, prompt
from verbalize.agents.environment import Trajectory
from verbalize.agents.rollouts import Situation
from verbalize.agents.sft_data import SupervisedChat, supervise
from verbalize.agents.slea_briefing import Briefing
from verbalize.agents.slea_memory import StepMemory, keys_of
from verbalize.experience.evolution import Episode
from verbalize.experience.library import ExperienceLibrary
from verbalize.experience.memory import CountTokens

BATCH = 8
"""Episodes that the library evolves by at once."""


def lessons_at_turns(
    solutions: Sequence[Trajectory],
    failures: Sequence[Trajectory],
    library: ExperienceLibrary,
    budget: int,
    count_tokens: CountTokens,
) -> dict[Key, str]:
    """What the empty `library`, evolved by all episodes, shows at the turns of the solutions; turns that are shown
    nothing are left out."""
    briefing = Briefing()
    episodes = [episode for pair in zip_longest(solutions, failures) for episode in pair if episode]
    for first in range(0, len(episodes), BATCH):
        batch = episodes[first : first + BATCH]
        StepMemory(library, budget, count_tokens, show=False)(_situations(batch))  # forms clusters
        scores = briefing.scores(batch)
        finished = [
            Episode(one.source, score, one.task.id, payload=one) for one, score in zip(batch, scores, strict=True)
        ]
        library.evolve(finished, briefing.rules)
    blocks = StepMemory(library, budget, count_tokens)(_situations(solutions))
    keys = [key for episode in solutions for key in keys_of(episode)]
    return {key: block for key, block in zip(keys, blocks, strict=True) if block}


def chats_with_lessons(
    tokenizer: Any,
    solutions: Sequence[Trajectory],
    shown: Mapping[Key, str],
    form: ChatFormat,
    max_tokens: int,
    seed: int,
    epoch: int,
) -> list[SupervisedChat]:
    """One turn of every solution that is shown lessons anywhere, another one in every epoch: the chat up to its action,
    which alone carries loss, as lessons change from turn to turn."""
    chats = []
    for episode in solutions:
        turns = [key[2] for key in keys_of(episode) if key in shown]
        if turns:
            turn = turns[int(rng(seed, "lessons of the start", episode.source, epoch).integers(len(turns)))]
            now = episode.turns[turn]
            block = shown[episode.task.id, episode.attempt, turn]
            chat = prompt(episode.turns[:turn], now.observation, now.admissible, form, block)
            asked = supervise(tokenizer, [*chat, {"role": "assistant", "content": now.action}], max_tokens)
            chats.append(last_action_only(asked))
    return chats


def last_action_only(chat: SupervisedChat) -> SupervisedChat:
    """The same ids, with loss on the last message of the assistant.

    >>> last_action_only(SupervisedChat((1, 2, 3, 4, 5), (False, True, False, True, True))).supervised
    (False, False, False, True, True)
    """
    first = next(place for place in range(len(chat.ids) - 1, -2, -1) if place < 0 or not chat.supervised[place])
    return replace(chat, supervised=tuple(place > first for place in range(len(chat.ids))))


def _situations(episodes: Sequence[Trajectory]) -> list[Situation]:
    """The turns of episodes as a memory is asked about them."""
    return [
        Situation(episode.task, episode.attempt, number, episode.goal, turn.observation, [], turn.admissible)
        for episode in episodes
        for number, turn in enumerate(episode.turns)
    ]
