"""Lessons from episodes, for the library's evolution: by named rules, or written by the model itself.

Every lesson says in its sources which game it comes from (so that it is never shown there) and who extracted it (so
that rules and model are told apart in reports); of a task about a person it also remembers user and time. Rules are
pure functions of one episode:

| rule     | of        | lesson                                                                              |
|----------|-----------|-------------------------------------------------------------------------------------|
| progress | successes | an action that was rewarded, at the observation it answered (example)               |
| plan     | successes | the verbs in the order they were needed, at the first observation (principle)       |
| path     | successes | an action on the way to the goal, detours left out, at its observation (example)    |
| loop     | failures  | an action that led back to an observation already seen (example)                    |
| idle     | failures  | a verb that was repeated and never earned or showed anything new (pattern)          |

The library's split is relative to the batch: a "success" may only have come further than others. Lessons that speak of
the goal are drawn from episodes that reached it.

Deviation: the paper has a 7B model extract everything, its code uses regular expressions; here both exist and are
reported separately. The model that extracts is the base model, without the adapter that is being trained.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from peft import PeftModel

from recsys.models.branching import sample_branches
from verbalize.agents.agent_trainer_turns import fitted_ids
from verbalize.agents.environment import Trajectory, Turn
from verbalize.agents.language_policies import end_of_turn, read_action
from verbalize.agents.personal import lesson_of
from verbalize.agents.slea_memory import BY
from verbalize.experience.entries import Experience
from verbalize.experience.evolution import Episode, Extract

Rule = Callable[[Trajectory], list[Experience]]

_ADVICE = "You coach a player of text games. Answer with one short sentence of general advice."
_MAX_TOKENS, _PROMPT_BUDGET, _SHOWN_CHARACTERS = 32, 1024, 160


def progress(episode: Trajectory) -> list[Experience]:
    """The rewarded actions."""
    return [
        _lesson(episode, turn.observation, f'"{turn.action}" was rewarded here: do it when it is possible.', "progress")
        for turn in episode.turns
        if turn.reward > 0
    ]


def plan(episode: Trajectory) -> list[Experience]:
    """The order of verbs on the way to the goal, repetitions joined."""
    verbs: list[str] = []
    for turn in direct_path(episode.turns) if episode.success else ():
        verb = _verb(turn.action)
        if verb and verbs[-1:] != [verb]:
            verbs.append(verb)
    if not verbs:
        return []
    text = f"What reached the goal, in this order: {', '.join(verbs)}."
    return [_lesson(episode, episode.turns[0].observation, text, "plan", level="principle")]


def path(episode: Trajectory) -> list[Experience]:
    """The actions that led on, without detours."""
    return [
        _lesson(episode, turn.observation, f'From here "{turn.action}" led to the goal.', "path")
        for turn in direct_path(episode.turns)
        if episode.success and turn.reward <= 0
    ]


def loop(episode: Trajectory) -> list[Experience]:
    """Actions after which the player was where it had been before."""
    seen: set[str] = set()
    found = []
    after = [turn.observation for turn in episode.turns[1:]] + [episode.last_observation]
    for turn, following in zip(episode.turns, after, strict=True):
        seen.add(turn.observation)
        if following in seen and following != turn.observation:
            text = f'"{turn.action}" only led back to a place already seen: try another way.'
            found.append(_lesson(episode, turn.observation, text, "loop", zone="warning", level="example"))
    return found


def idle(episode: Trajectory) -> list[Experience]:
    """Verbs used at least twice that never earned anything nor showed anything new."""
    seen = {turn.observation for turn in episode.turns[:1]}
    uses: dict[str, list[bool]] = {}
    first: dict[str, str] = {}
    after = [turn.observation for turn in episode.turns[1:]] + [episode.last_observation]
    for turn, following in zip(episode.turns, after, strict=True):
        verb = _verb(turn.action)
        first.setdefault(verb, turn.observation)
        uses.setdefault(verb, []).append(turn.reward > 0 or following not in seen)
        seen.add(following)
    return [
        _lesson(
            episode,
            first[verb],
            f'"{verb}" brought nothing new: do not repeat it.',
            "idle",
            zone="warning",
            level="pattern",
        )
        for verb, useful in uses.items()
        if verb and len(useful) > 1 and not any(useful)
    ]


RULES: dict[str, tuple[Rule, ...]] = {"strategy": (progress, plan, path), "warning": (loop, idle)}
"""The most important first: a batch's lessons are limited in number."""


def direct_path(turns: Sequence[Turn]) -> list[Turn]:
    """The turns without those between two visits of one observation.

    >>> turn = lambda seen, action: Turn(seen, None, action, 0.0)
    >>> walk = [turn("hall", "east"), turn("attic", "west"), turn("hall", "north"), turn("cellar", "take coin")]
    >>> [step.action for step in direct_path(walk)]
    ['north', 'take coin']
    """
    last = {turn.observation: place for place, turn in enumerate(turns)}
    kept, place = [], 0
    while place < len(turns):
        place = last[turns[place].observation]
        kept.append(turns[place])
        place += 1
    return kept


def by_rules(successes: Sequence[Episode], failures: Sequence[Episode]) -> list[Experience]:
    """The rules on every episode, in turn: each rule's first lesson of each episode before anybody's second."""
    found = []
    for zone, episodes in (("strategy", successes), ("warning", failures)):
        heaps = [rule(episode.payload) for rule in RULES[zone] for episode in episodes if episode.payload.turns]
        found += _in_turn(heaps)
    return found


def by_model(model: Any, tokenizer: Any) -> Extract:
    """The base model's advice, one sentence for each episode: greedy, at most 32 tokens; blank answers are dropped."""

    def extract(successes: Sequence[Episode], failures: Sequence[Episode]) -> list[Experience]:
        asked = [
            (zone, episode.payload)
            for zone, episodes in (("strategy", successes), ("warning", failures))
            for episode in episodes
            if episode.payload.turns
        ]
        if not asked:
            return []
        prompts = [fitted_ids(tokenizer, _question(zone, episode), _PROMPT_BUDGET) for zone, episode in asked]
        with model.disable_adapter() if isinstance(model, PeftModel) else contextlib.nullcontext():
            samples = sample_branches(
                model, prompts, [1] * len(prompts), _MAX_TOKENS, [end_of_turn(tokenizer)], greedy=True
            )
        found = []
        for (zone, episode), (sample,) in zip(asked, samples, strict=True):
            if text := read_action(tokenizer, sample.tokens):
                observation = _decisive(episode, zone).observation
                found.append(_lesson(episode, observation, text, "model", zone=zone, level="pattern"))
        return found

    return extract


def both(first: Extract, second: Extract) -> Extract:
    """Lessons of two extractors in turn."""
    return lambda successes, failures: _in_turn([list(first(successes, failures)), list(second(successes, failures))])


def _question(zone: str, episode: Trajectory) -> list[dict[str, str]]:
    outcome = "reached the goal" if episode.success else "did not reach the goal"
    steps = [f"> {turn.action}\n{_short(turn.observation)}" for turn in _around(episode, _decisive(episode, zone))]
    wanted = "What should be done in such a situation?" if zone == "strategy" else "What should be avoided?"
    text = f"Goal: {_short(episode.goal)}\nThe player {outcome}. The last steps:\n" + "\n".join(steps)
    return [{"role": "system", "content": _ADVICE}, {"role": "user", "content": f"{text}\n\n{wanted}"}]


def _decisive(episode: Trajectory, zone: str) -> Turn:
    """The turn that earned most; of a failure, the last."""
    return max(episode.turns, key=lambda turn: turn.reward) if zone == "strategy" else episode.turns[-1]


def _around(episode: Trajectory, turn: Turn) -> Sequence[Turn]:
    place = next(number for number, other in enumerate(episode.turns) if other is turn)
    return episode.turns[max(0, place - 2) : place + 1]


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN_CHARACTERS else f"{flat[:_SHOWN_CHARACTERS]}..."


def _verb(action: str) -> str:
    return action.split(" ", 1)[0]


def _lesson(
    episode: Trajectory, observation: str, text: str, name: str, zone: str = "strategy", level: str = "example"
) -> Experience:
    by = f"{BY}{name}" if name == "model" else f"{BY}rules.{name}"
    return lesson_of(episode, observation, text, level, zone, episode.outcome, by)


def _in_turn(heaps: Sequence[Sequence[Experience]]) -> list[Experience]:
    longest = max((len(heap) for heap in heaps), default=0)
    return [heap[place] for place in range(longest) for heap in heaps if place < len(heap)]
