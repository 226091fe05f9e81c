"""One step of the library's evolution, from a batch of finished episodes to who enters and who leaves.

The rules are the pure functions of `verbalize.experience.admission`; this module feeds them from the records in memory
and changes nothing: the library applies what it returns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.errors import InputError
from verbalize.experience.admission import (
    Pool,
    entry_values,
    fade,
    limit_extraction,
    plan_admission,
    split_batch,
    usage_credit,
)
from verbalize.experience.embedding import Embedder
from verbalize.experience.entries import Experience
from verbalize.experience.settings import AdmissionConfig
from verbalize.experience.table import EntryTable


@dataclass(frozen=True)
class Episode:
    """A finished rollout: its source's name, episode reward, comparable group (task or family), the ids of the lessons
    that were in its contexts, and whatever the extractor reads (`payload`).
    """

    source: str
    score: float
    group: str = ""
    used: frozenset[str] = frozenset()
    payload: Any = None


# Best successes and worst failures -> lessons drawn from them, the most important first.
Extract = Callable[[Sequence[Episode], Sequence[Episode]], Sequence[Experience]]


@dataclass(frozen=True)
class Usage:
    """What is known of a lesson beyond its score: the batch it was admitted at, and faded evidence of its uses."""

    born: int
    uses: float = 0.0
    credit: float = 0.0


@dataclass(frozen=True)
class EvolutionReport:
    """Counts of one step. `extracted` = `over_limit` + `known` + `repeats` + `unworthy` + `admitted`."""

    epoch: int
    successes: int
    failures: int
    extracted: int
    over_limit: int
    known: int
    repeats: int
    unworthy: int
    admitted: int
    evicted: int
    lessons: int


@dataclass(frozen=True)
class Evolution:
    """What to apply: lessons with their (N, D) vectors per view, ids to drop, and everybody's usage afterwards."""

    admitted: tuple[Experience, ...]
    vectors: dict[str, np.ndarray]
    evicted: tuple[str, ...]
    usage: dict[str, Usage]
    report: EvolutionReport


def next_evolution(
    episodes: Sequence[Episode],
    extract: Extract,
    table: EntryTable,
    usage: Mapping[str, Usage],
    epoch: int,
    embed: Embedder,
    config: AdmissionConfig,
) -> Evolution:
    """Split, extract, limit, value, plan. `epoch` counts the steps before this one. Raises InputError when the
    extractor returns something other than lessons.
    """
    scores = [episode.score for episode in episodes]
    credit = usage_credit([e.used for e in episodes], scores, [e.group for e in episodes])
    best, worst = split_batch(scores, config.eta, config.top, config.bottom)
    found = list(extract([episodes[i] for i in best], [episodes[i] for i in worst])) if best or worst else []
    for entry in found:
        if entry.kind != "lesson":
            raise InputError(f"extracted {entry.kind} {entry.id}", "evolution admits lessons", "admit() trajectories")
    limited = [found[i] for i in limit_extraction([e.zone for e in found], config)]
    fresh = list({e.id: e for e in limited if e.id not in table.row_of}.values())

    rows = sorted(row for row in table.row_of.values() if table.entries[row].kind == "lesson")
    residents = [table.entries[row] for row in rows]
    after: dict[str, Usage] = {}
    for entry in residents:
        past = usage.get(entry.id, Usage(epoch))
        uses, total = fade(past.uses, past.credit, config)
        more, gained = credit.get(entry.id, (0, 0.0))
        after[entry.id] = Usage(past.born, uses + more, total + gained)

    texts = embed([e.view("text") for e in fresh]) if fresh else np.zeros((0, table.dimension), np.float32)
    plan = plan_admission(
        Pool([(e.level, e.zone) for e in fresh], _values(fresh, {}, epoch, config), texts),
        Pool(
            [(e.level, e.zone) for e in residents],
            _values(residents, after, epoch, config),
            table.vectors["text"].view[rows],
        ),
        config,
    )
    chosen = sorted(plan.admitted)
    admitted = tuple(fresh[i] for i in chosen)
    evicted = tuple(residents[i].id for i in plan.evicted)
    keys = embed([e.key for e in admitted]) if admitted else texts[:0]
    after |= {entry.id: Usage(epoch) for entry in admitted}
    report = EvolutionReport(
        epoch=epoch,
        successes=len(best),
        failures=len(worst),
        extracted=len(found),
        over_limit=len(found) - len(limited),
        known=len(limited) - len(fresh),
        repeats=len(plan.repeats),
        unworthy=len(plan.unworthy),
        admitted=len(admitted),
        evicted=len(evicted),
        lessons=len(residents) - len(evicted) + len(admitted),
    )
    kept = {name: value for name, value in after.items() if name not in set(evicted)}
    return Evolution(admitted, {"key": keys, "text": texts[chosen]}, evicted, kept, report)


def _values(
    entries: Sequence[Experience], usage: Mapping[str, Usage], epoch: int, config: AdmissionConfig
) -> np.ndarray:
    known = [usage.get(e.id, Usage(epoch)) for e in entries]
    return entry_values(
        np.array([e.score for e in entries], dtype=float),
        np.array([epoch - u.born for u in known], dtype=float),
        np.array([u.uses for u in known], dtype=float),
        np.array([u.credit for u in known], dtype=float),
        config,
    )
