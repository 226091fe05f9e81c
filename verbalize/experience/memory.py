"""Retrieved experience as text for the system role: trajectories under headers of success and failure (ExpRAG), or
strategies and warnings for one step (SLEA-RL), within a budget of tokens.

The observation stays as it is: both papers put memory into the system prompt only. Retrieved text is data. Marks that a
chat template would take for the end of a turn are broken, and later lines of a message are indented, so no entry can
forge a header, a turn or another entry.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from verbalize.experience.entries import Experience, Hit

# A text -> its number of tokens, by the tokenizer of the model that will read it.
CountTokens = Callable[[str], int]

SUCCESSES, FAILURES = "## Successful experiences", "## Failed experiences"
STRATEGIES, WARNINGS = "## What worked in similar situations", "## What to avoid"
_SPEAKERS = {"user": "Observation", "assistant": "Action"}
_MARKS = re.compile(r"<(?=\||/?s>|/?[a-z]+_of_turn>)|(?<=\|)>")


def trajectory_block(hits: Sequence[Hit], budget: int, count_tokens: CountTokens) -> str:
    """Whole trajectories, the most similar first within each header, in at most `budget` tokens; "" when none fits.

    One that does not fit is cut after the last message that does, the nearest being placed first; system messages are
    left out. Cost: O(log messages) counts per trajectory.
    """
    shown: list[tuple[Experience, int]] = []
    for hit in hits:
        length = len(_turns(hit.entry))
        # The largest number of messages that fits, by bisection: a longer block never has fewer tokens.
        low, high = 0, length
        while low < high:
            middle = (low + high + 1) // 2
            if count_tokens(_trajectories([*shown, (hit.entry, middle)])) <= budget:
                low = middle
            else:
                high = middle - 1
        if low:
            shown.append((hit.entry, low))
    return _trajectories(shown)


def lesson_block(strategies: Sequence[Hit], warnings: Sequence[Hit], budget: int, count_tokens: CountTokens) -> str:
    """One line per lesson under its zone's header, in at most `budget` tokens; "" when none fits.

    Strategies and warnings are placed in turn, best first; a lesson that does not fit is left out, shorter ones after
    it may still fit. Repeated texts are shown once.
    """
    order = [hit.entry for pair in _alternate(strategies, warnings) for hit in pair]
    shown: list[Experience] = []
    for entry in order:
        if any((entry.zone, entry.text) == (other.zone, other.text) for other in shown):
            continue
        if count_tokens(_lessons([*shown, entry])) <= budget:
            shown.append(entry)
    return _lessons(shown)


def with_memory(messages: Sequence[Mapping[str, str]], block: str) -> list[dict[str, str]]:
    """The chat with the block at the end of its system message, or in a new one; unchanged when the block is empty.

    >>> with_memory([{"role": "user", "content": "hi"}], "## What to avoid")
    [{'role': 'system', 'content': '## What to avoid'}, {'role': 'user', 'content': 'hi'}]
    """
    chat = [dict(message) for message in messages]
    if not block:
        return chat
    if chat and chat[0]["role"] == "system":
        chat[0]["content"] = f"{chat[0]['content']}\n\n{block}"
        return chat
    return [{"role": "system", "content": block}, *chat]


def _trajectories(shown: Sequence[tuple[Experience, int]]) -> str:
    parts = []
    for header, success in ((SUCCESSES, True), (FAILURES, False)):
        texts = [_trajectory(entry, length) for entry, length in shown if entry.success is success]
        parts += [header, *texts] if texts else []
    return "\n\n".join(parts)


def _trajectory(entry: Experience, length: int) -> str:
    lines = [f"Task: {_safe(entry.key)}"]
    turns = _turns(entry)
    lines += [f"{_SPEAKERS[turn['role']]}: {_safe(turn['content'])}" for turn in turns[:length]]
    return "\n".join([*lines, "(cut)"] if length < len(turns) else lines)


def _turns(entry: Experience) -> list[dict[str, str]]:
    return [message for message in entry.messages if message["role"] in _SPEAKERS]


def _lessons(shown: Sequence[Experience]) -> str:
    parts = []
    for header, zone in ((STRATEGIES, "strategy"), (WARNINGS, "warning")):
        lines = [f"- {' '.join(_safe(entry.text).split())}" for entry in shown if entry.zone == zone]
        parts += ["\n".join([header, *lines])] if lines else []
    return "\n\n".join(parts)


def _alternate(left: Sequence[Hit], right: Sequence[Hit]) -> list[tuple[Hit, ...]]:
    return [(*left[i : i + 1], *right[i : i + 1]) for i in range(max(len(left), len(right)))]


def _safe(text: str) -> str:
    broken = _MARKS.sub(lambda mark: {"<": "‹", ">": "›"}[mark.group()], text)
    return "\n  ".join(line.rstrip() for line in broken.strip().splitlines())
