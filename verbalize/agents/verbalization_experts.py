"""Expert sequences for the verbalization environment: a script's decisions as actions, and greedy improvement.

The greedy expert asks the scorer, which knows the slates: its trajectories are training data for training examples, as
the walkthrough of a game is, and no policy for others. The actions themselves say nothing but what to keep and how.
"""

from collections.abc import Sequence

from recsys.errors import InputError
from verbalize.agents.verbalization_drafts import STOP, Draft, History, first_draft, possible, revise, write
from verbalize.optimize.scoring import ScoreFunction
from verbalize.verbalizers.actions import ALPHABET, KEEP, KEEP_METADATA


def scripted_plan(history: History, symbols: Sequence[int]) -> list[str]:
    """Actions after which the draft writes what `actions.execute` writes for `symbols` (one per event: a candidate of
    the pool, a constant policy), then `stop`. Sessions that are decided alike cost one action, others are inspected.

    Raises InputError unless there is one known symbol per event.
    """
    if len(symbols) != len(history.events) or not set(symbols) <= set(ALPHABET):
        raise InputError(
            f"{len(symbols)} symbols for {len(history.events)} events",
            f"needs one of {ALPHABET} for each",
            "correct it",
        )
    plan = []
    for number in range(1, len(history.starts) + 1):
        places = history.session(number)
        wanted = [_verb(symbols[place]) for place in places]
        if len(set(wanted)) == 1:
            plan += [f"{wanted[0]} session {number}"] if wanted[0] else []
            continue
        plan.append(f"inspect session {number}")
        plan += [f"{verb} event {place + 1}" for verb, place in zip(wanted, places, strict=True) if verb]
    return [*plan, STOP]


def greedy_plan(history: History, score: ScoreFunction, max_steps: int = 20) -> list[str]:
    """From everything kept, the single action that improves the reward most, again and again until none does or one
    step is left for `stop`. Actions on whole sessions and groupings only: on an inspected event luck would decide.

    Costs at most one call of `score` a step, with about three texts per session. Ties go to the first action by name.
    """
    draft, plan = first_draft(history), list[str]()
    best = _reward(history, [draft], score)[0]
    while len(plan) < max_steps - 1:
        choices = [action for action in possible(history, draft) if not action.startswith(("inspect", STOP))]
        drafts = [revise(history, draft, action) for action in choices]
        rewards = _reward(history, drafts, score)
        if not rewards or max(rewards) <= best:
            break
        place = rewards.index(max(rewards))
        best, draft = rewards[place], drafts[place]
        plan.append(choices[place])
    return [*plan, STOP]


def _verb(symbol: int) -> str:
    """What turns the first draft's plain title into this symbol; "" where nothing is to be done."""
    return "enrich" if symbol == KEEP_METADATA else "" if symbol == KEEP else "drop"


def _reward(history: History, drafts: Sequence[Draft], score: ScoreFunction) -> list[float]:
    texts = [write(history, draft) for draft in drafts]
    return [scored.reward for scored in score([history.example_id] * len(texts), texts)]
